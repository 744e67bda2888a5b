"""The training and evaluation steps against hand computation and against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from cnnjax.config import GhostBatchNorm
from cnnjax.nn.norm import BatchAveraging
from cnnjax.train.losses import cross_entropy, lenet_map
from cnnjax.train.state import init_state
from cnnjax.train.step import BatchAxis, batch_averaging, make_eval_step, make_train_step, normalize, predict

SHAPE = (5, 5, 2)
MEAN, STD = (0.4, 0.6), (0.2, 0.3)


def rubbish_loss(logits, labels):
    return lenet_map(logits, labels, 0.1)


@functools.cache
def start(network, optimizer, ema=False):
    return init_state(network, optimizer, 0, SHAPE, ema)


def one_step(network, optimizer, batch, **options):
    """The state after the first step, and its metrics."""
    step = make_train_step(network, optimizer, options.pop("loss", cross_entropy), mean=MEAN, std=STD, **options)
    return step(start(network, optimizer, options.get("ema_decay") is not None), batch)


def assert_close(one, other):
    """Equal to a millionth of each array's largest entry, or of the 0.1 that the terms of small sums measure here."""

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(float(np.abs(b).max()), 0.1))

    jax.tree.map(compare, one, other)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# Loss, metrics and padding


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.1307, 0.3081), (MEAN, STD)])
def test_normalize(make_batch, mean, std):
    images = make_batch()["image"]
    expected = (images / 255 - np.asarray(mean)) / np.asarray(std)
    found = normalize(images, mean, std)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("masked", [0, 3])
def test_metrics_are_masked_sums_and_counts(tiny, recorder, make_batch, masked):
    network, batch = tiny(), make_batch(masked=masked)
    state = start(network, recorder)
    logits = np.asarray(predict(network, state.params, {}, normalize(batch["image"], MEAN, STD)).logits, np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), batch["label"]]
    keep = 8 - masked
    expected = {
        "loss": (losses[:keep].sum(), keep),
        "accuracy": ((logits.argmax(1) == batch["label"])[:keep].sum(), keep),
    }
    new, metrics = one_step(network, recorder, batch)
    gradient = metrics.pop("grad_norm")
    assert_close(metrics, expected)
    norm = np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(new.opt_state)))
    assert_close(gradient, (norm, 1))
    assert_close(make_eval_step(network, cross_entropy, mean=MEAN, std=STD)(state.params, {}, batch), expected)


def test_the_gradient_is_that_of_the_mean_loss(tiny, recorder, make_batch):
    network, batch = tiny(), make_batch(masked=3)
    state = start(network, recorder)

    def mean_loss(params):
        logits = predict(network, params, {}, normalize(batch["image"][:5], MEAN, STD)).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"][:5]).mean()

    assert_close(one_step(network, recorder, batch)[0].opt_state, jax.grad(mean_loss)(state.params))


@pytest.mark.parametrize(
    ("content", "accumulate", "loss"),
    [(255, 1, cross_entropy), (np.nan, 1, cross_entropy), (np.inf, 1, rubbish_loss), (np.nan, 2, rubbish_loss)],
)
def test_what_padding_holds_changes_nothing(tiny, recorder, make_batch, content, accumulate, loss):
    network, batch = tiny(), make_batch(masked=3)
    dirty = {
        **batch,
        "image": batch["image"].astype(np.float32),
        "label": np.where(batch["mask"] > 0, batch["label"], 77),
    }
    dirty["image"][5:] = content
    clean = {**dirty, "image": dirty["image"].copy(), "label": batch["label"]}
    clean["image"][5:] = 0
    one, other = (one_step(network, recorder, each, accumulate=accumulate, loss=loss) for each in (dirty, clean))
    assert_same(one, other)
    eval_step = make_eval_step(network, loss, mean=MEAN, std=STD)
    assert_same(*(eval_step(one[0].params, {}, each) for each in (dirty, clean)))


def test_evaluation_in_padded_batches_is_exact(tiny, recorder, make_batch):
    network, whole = tiny(norm=True), make_batch(10)
    state = start(network, recorder)
    eval_step = make_eval_step(network, cross_entropy)
    parts = [{name: leaf[:6] for name, leaf in whole.items()}, {name: leaf[6:] for name, leaf in whole.items()}]
    parts[1] = {name: np.pad(leaf, [(0, 2)] + [(0, 0)] * (leaf.ndim - 1)) for name, leaf in parts[1].items()}
    sums = [eval_step(state.params, state.batch_stats, part) for part in parts]
    assert_close(jax.tree.map(jnp.add, *sums), eval_step(state.params, state.batch_stats, whole))


# Accumulation and BatchNorm


@pytest.fixture
def _float64():
    # In float32 other sums round by as much as is tolerated here.
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("masked", "parts", "unroll"), [(0, 2, False), (0, 8, False), (3, 4, False), (0, 4, True), (3, 2, True)]
)
@pytest.mark.usefixtures("_float64")
def test_accumulation_gives_the_gradient_of_the_whole_batch(tiny, recorder, make_batch, masked, parts, unroll):
    network, batch = tiny(dtype=jnp.float64), make_batch(masked=masked)
    whole = one_step(network, recorder, batch)
    assert_close(one_step(network, recorder, batch, accumulate=parts, unroll_accumulation=unroll), whole)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.usefixtures("_float64")
def test_accumulation_keeps_ghost_groups_together(tiny, recorder, make_batch, parts):
    averaging = batch_averaging(GhostBatchNorm(ghost=4), BatchAxis())
    network = tiny(norm=True, batch_averaging=averaging, dtype=jnp.float64)
    batch = make_batch(16)
    whole = one_step(network, recorder, batch)
    assert_close(one_step(network, recorder, batch, accumulate=parts), whole)
    # Groups matter: without them the gradient is another.
    mixed = one_step(tiny(norm=True, dtype=jnp.float64), recorder, batch)
    assert np.abs(mixed[0].opt_state["conv"]["kernel"] - whole[0].opt_state["conv"]["kernel"]).max() > 1e-4


def convolved(params, images):
    outputs = nn.Conv(4, (3, 3), use_bias=False).apply({"params": params["conv"]}, normalize(images, MEAN, STD))
    return np.asarray(outputs, np.float64)


@pytest.mark.parametrize(
    ("mode", "groups"), [("global", 1), (GhostBatchNorm(ghost=2), 4), (GhostBatchNorm(ghost=8), 1)]
)
def test_running_statistics_move_towards_the_batchs(tiny, recorder, make_batch, mode, groups):
    network, batch = tiny(norm=True, batch_averaging=batch_averaging(mode, BatchAxis())), make_batch()
    state = start(network, recorder)
    state = state.replace(batch_stats={"norm": {"mean": jnp.arange(4.0), "var": 1 + jnp.arange(4.0)}})
    new, _ = make_train_step(network, recorder, cross_entropy, mean=MEAN, std=STD)(state, batch)
    grouped = convolved(state.params, batch["image"]).reshape(groups, -1, 4)
    expected = {
        "mean": 0.9 * np.arange(4.0) + 0.1 * grouped.mean(1).mean(0),
        "var": 0.9 * (1 + np.arange(4.0)) + 0.1 * grouped.var(1).mean(0),
    }
    assert_close(new.batch_stats["norm"], expected)


def test_accumulation_moves_running_statistics_once(tiny, recorder, make_batch):
    network, batch = tiny(norm=True), make_batch()
    state, _ = one_step(network, recorder, batch, accumulate=2)
    # Examples are dealt out to the parts in turn.
    parts = convolved(state.params, batch["image"]).reshape(4, 2, -1, 4).swapaxes(0, 1).reshape(2, -1, 4)
    expected = {"mean": 0.1 * parts.mean(1).mean(0), "var": 0.9 + 0.1 * parts.var(1).mean(0)}
    assert_close(state.batch_stats["norm"], expected)


def test_frozen_statistics_stay_and_are_used(tiny, recorder, make_batch):
    network, batch = tiny(norm=True, batch_averaging=BatchAveraging(frozen=True)), make_batch()
    state, metrics = one_step(network, recorder, batch)
    before = start(network, recorder)
    assert_same(state.batch_stats, before.batch_stats)
    assert_close(
        metrics["loss"],
        make_eval_step(network, cross_entropy, mean=MEAN, std=STD)(before.params, before.batch_stats, batch)["loss"],
    )


@pytest.mark.parametrize(
    ("mode", "axis", "averaging"),
    [
        ("global", BatchAxis(shards=8), BatchAveraging()),
        ("global", BatchAxis(name="data"), BatchAveraging(axis_name="data")),
        ("local", BatchAxis(shards=8), BatchAveraging(groups=8)),
        ("local", BatchAxis(name="data"), BatchAveraging()),
        ("frozen", BatchAxis(shards=8), BatchAveraging(frozen=True)),
        (GhostBatchNorm(ghost=4), BatchAxis(shards=8), BatchAveraging(group_size=4)),
        (GhostBatchNorm(ghost=4), BatchAxis(name="data"), BatchAveraging(group_size=4)),
    ],
)
def test_what_batch_norm_averages_over(mode, axis, averaging):
    assert batch_averaging(mode, axis) == averaging


# Moving averages, rematerialisation, precision


@pytest.mark.parametrize(("at", "weight"), [(0, 0.1), (1, 2 / 11), (10_000, 0.9)])
def test_moving_averages(tiny, make_batch, at, weight):
    network, optimizer = tiny(norm=True), optax.sgd(0.5)
    state = start(network, optimizer, ema=True).replace(step=jnp.int32(at))
    new, _ = make_train_step(network, optimizer, cross_entropy, ema_decay=0.9)(state, make_batch())
    now = {"params": new.params, "batch_stats": new.batch_stats}
    assert np.abs(new.params["dense"]["kernel"] - state.params["dense"]["kernel"]).max() > 1e-3
    assert_close(new.ema, jax.tree.map(lambda old, leaf: weight * old + (1 - weight) * leaf, state.ema, now))


@pytest.mark.parametrize(("remat", "accumulate"), [("full", 1), ("keep_products", 1), ("full", 2)])
def test_rematerialisation_leaves_the_result(tiny, recorder, make_batch, remat, accumulate):
    network, batch = tiny(norm=True, dropout=0.5), make_batch()
    plain = one_step(network, recorder, batch, accumulate=accumulate)
    assert_close(one_step(network, recorder, batch, accumulate=accumulate, remat=remat), plain)


def test_rematerialisation_computes_again_what_it_says(tiny, recorder, make_batch):
    network, batch = tiny(norm=True), make_batch()
    state = start(network, recorder)

    def count(remat):
        text = str(jax.make_jaxpr(make_train_step(network, recorder, cross_entropy, remat=remat))(state, batch))
        tanhs = text.count(" tanh ")
        return text.count("conv_general_dilated["), text.count("dot_general["), tanhs

    convolutions, products, tanhs = count("none")
    assert count("keep_products") == (convolutions, products, tanhs + 1)
    assert count("full") == (convolutions + 1, products, tanhs + 1)


def test_bfloat16_is_for_activations_only(tiny, make_batch):
    network, optimizer, batch = tiny(norm=True, dtype=jnp.bfloat16), optax.adam(0.01), make_batch()
    step = make_train_step(network, optimizer, cross_entropy, ema_decay=0.9)
    state = start(network, optimizer, ema=True)
    new, metrics = jax.jit(step)(state, batch)
    floats = [leaf for leaf in jax.tree.leaves((new, metrics)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    convolutions = [
        line for line in str(jax.make_jaxpr(step)(state, batch)).split("\n") if "conv_general_dilated[" in line
    ]
    assert convolutions
    assert all("bf16[" in line for line in convolutions)
    exact, _ = jax.jit(make_train_step(tiny(norm=True), optimizer, cross_entropy, ema_decay=0.9))(state, batch)
    assert 0 < np.abs(new.batch_stats["norm"]["mean"] - exact.batch_stats["norm"]["mean"]).max() < 1e-3


# Purity


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (optax.sgd(0.1), {}),
        (optax.adamw(optax.cosine_decay_schedule(0.1, 10)), {"ema_decay": 0.9}),
        (optax.sgd(0.1, momentum=0.9), {"accumulate": 2, "remat": "full"}),
    ],
)
def test_many_steps_are_traced_once_and_donate_the_state(tiny, make_batch, optimizer, options):
    network, traces = tiny(norm=True, dropout=0.5), []
    step = make_train_step(network, optimizer, cross_entropy, **options)

    def traced(state, batch):
        traces.append(batch)
        return step(state, batch)

    compiled = jax.jit(traced, donate_argnums=0)
    state = init_state(network, optimizer, 0, SHAPE, ema="ema_decay" in options)
    for number in range(4):
        assert int(state.step) == number
        old = state
        state, _ = compiled(state, make_batch(seed=number))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert len(traces) == 1


def test_the_same_state_and_batch_give_the_same_result(tiny, make_batch):
    network, optimizer, batch = tiny(norm=True, dropout=0.5), optax.adam(0.01), make_batch()
    state = start(network, optimizer)
    before = jax.tree.map(np.array, state)
    step = jax.jit(make_train_step(network, optimizer, cross_entropy))
    assert_same(step(state, batch), step(state, batch))
    assert_same(state, before)
    assert_same(step(state, batch)[0].key, state.key)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_differs_between_steps_and_is_equal_on_repeat(tiny, recorder, make_batch, accumulate):
    network, batch = tiny(dropout=0.5), make_batch()
    step = jax.jit(make_train_step(network, recorder, cross_entropy, accumulate=accumulate))
    first, metrics = step(start(network, recorder), batch)
    _, later = step(first, batch)
    assert float(metrics["loss"][0]) != float(later["loss"][0])
    _, again = step(first, batch)
    assert_same(later, again)
    _, elsewhere = step(first.replace(key=first.key + 1), batch)
    assert float(later["loss"][0]) != float(elsewhere["loss"][0])


def test_micro_batches_drop_other_units(tiny, recorder, make_batch):
    # The same examples in both parts: with one dropout mask for both, the sums would be twice one part's.
    network, half = tiny(dropout=0.5), make_batch(4)
    batch = {name: np.repeat(leaf, 2, axis=0) for name, leaf in half.items()}
    _, one = one_step(network, recorder, half)
    _, two = one_step(network, recorder, batch, accumulate=2)
    assert abs(float(two["loss"][0]) - 2 * float(one["loss"][0])) > 1e-3
