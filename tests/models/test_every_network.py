"""What holds for every registered network, narrow and shallow: it learns, on all executors, in both precisions.

Names whose small networks are the same one are tried together. By default one network of each family is tried, but of
those that are made of another's layers; with `CNNJAX_NETWORKS=all` every one.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from narrow import ALIKE, ALL, FIRST, distinct, narrow

from cnnjax.models import family_of, get_variant
from cnnjax.nn.norm import BatchAveraging
from cnnjax.train.losses import cross_entropy
from cnnjax.train.state import TrainState, init_state
from cnnjax.train.step import BatchAxis, make_train_step

pytestmark = pytest.mark.slow

CHOSEN = {*FIRST} - ALIKE
NAMES = [pytest.param(name, id="=".join(names)) for name, names in distinct().items() if ALL or CHOSEN & {*names}]
# Between them they have every kind of layer but gates, which know no other image; two programs in float64 take the
# others longer to compile than all else here.
UNDER_PMAP = {"lenet", "alexnet", "googlenet", "resnet", "densenet", "mobilenet", "unet"}
STEPS = 20
BATCH = 8


def images_and_labels(network, shape, seed=1):
    images = jax.random.normal(jax.random.key(seed), (BATCH, *shape))
    outputs = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False)[0].logits, images)
    labels = jax.random.randint(jax.random.key(seed + 1), outputs.shape[:-1], 0, network.num_classes)
    return images, labels


def objective(network, variables, params, images, labels, key):
    outputs, changed = network.apply(
        {**variables, "params": params}, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        for logits in (outputs.logits, *outputs.aux.values())
    ]
    return losses[0] + 0.3 * sum(losses[1:]), changed


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def trained(name):
    """The network, variables before and after 20 SGD steps on one batch, the losses, and the batch."""
    network, shape = narrow(name)
    images, labels = images_and_labels(network, shape)
    state = init_state(network, optax.identity(), 0, shape, ema=False)
    initial = {"params": state.params, **({"batch_stats": state.batch_stats} if state.batch_stats else {})}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))

    @jax.jit
    def step(variables, opt_state, key):
        compute = functools.partial(objective, network, variables)
        (loss, changed), gradients = jax.value_and_grad(compute, has_aux=True)(variables["params"], images, labels, key)
        updates, opt_state = optimizer.update(gradients, opt_state)
        return {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}, opt_state, loss

    variables, opt_state, losses = initial, optimizer.init(initial["params"]), []
    for index in range(STEPS):
        variables, opt_state, loss = step(variables, opt_state, jax.random.key(index))
        losses.append(float(loss))
    return network, initial, variables, losses, images


def test_the_loss_falls_and_statistics_move_in_training_alone(trained):
    network, initial, variables, losses, images = trained
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:2]), losses
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        assert np.isfinite(leaf).all(), path
    moved = jax.tree.map(
        lambda new, old: bool((new != old).any()), variables.get("batch_stats", {}), initial.get("batch_stats", {})
    )
    assert all(jax.tree.leaves(moved))
    _, changed = jax.eval_shape(lambda v: network.apply(v, images, train=False, mutable=["batch_stats"]), variables)
    evaluate = functools.partial(network.apply, train=False)
    assert "batch_stats" not in str(jax.make_jaxpr(evaluate)(variables, images).out_avals)
    assert jax.tree.structure(changed.get("batch_stats", {})) == jax.tree.structure(variables.get("batch_stats", {}))


def test_bfloat16_runs_and_is_near(name, trained):
    _, _, variables, _, images = trained
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        network, _ = narrow(name, dtype=dtype)
        evaluate = functools.partial(network.apply, train=False)
        logits[dtype] = jax.jit(evaluate)(variables, images).logits
    assert logits[jnp.bfloat16].dtype == jnp.float32
    difference = np.abs(logits[jnp.bfloat16] - logits[jnp.float32]).max() / np.abs(logits[jnp.float32]).max()
    assert 0 < difference < 0.1


@pytest.fixture
def _float64():
    # In float32, rounding flips values next to ReLU's corner, and deep networks amplify it.
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.repeats
@pytest.mark.usefixtures("_float64")
def test_a_step_under_jit_is_the_step_under_pmap(name, trained):
    if family_of(name) not in UNDER_PMAP and not ALL:
        pytest.skip("with CNNJAX_NETWORKS=all alone")
    devices = 2
    _, shape = narrow(name)
    _, initial, *_ = trained
    still = {
        field.name: 0.0
        for field in dataclasses.fields(get_variant(name).network)
        if "dropout" in field.name or field.name == "stochastic_depth"
    }
    whole, _ = narrow(name, dtype=jnp.float64, **still)
    parts, _ = narrow(name, dtype=jnp.float64, batch_averaging=BatchAveraging(axis_name="data"), **still)
    images, labels = images_and_labels(whole, shape)
    batch = {"image": (100 * (images - images.min())).astype(jnp.uint8), "label": labels, "mask": jnp.ones(BATCH)}
    optimizer = optax.sgd(0.1)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), initial)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jnp.zeros((2,), jnp.uint32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        ema=None,
    )
    together = jax.jit(make_train_step(whole, optimizer, cross_entropy))
    apart = jax.pmap(make_train_step(parts, optimizer, cross_entropy, axis=BatchAxis(name="data")), axis_name="data")
    expected, metrics = together(state, batch)
    replicated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices, *leaf.shape)), state)
    dealt = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), batch)
    found, found_metrics = apart(replicated, dealt)
    assert float(found_metrics["loss"][0][0]) == pytest.approx(float(metrics["loss"][0]), rel=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected.params))
    for (path, one), leaf in zip(
        jax.tree_util.tree_leaves_with_path((expected.params, expected.batch_stats)),
        jax.tree.leaves((found.params, found.batch_stats)),
        strict=True,
    ):
        # A bias before a normalisation has no gradient but rounding noise.
        size = max(np.abs(one).max(), 1e-8 * largest)
        np.testing.assert_allclose(leaf[1], one, rtol=1e-5, atol=1e-5 * size, err_msg=str(path))
