"""Freezing really freezes: bit-equal parameters and statistics, and no work for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.config import Config
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.train.freezing import frozen_by
from cnnjax.train.losses import cross_entropy
from cnnjax.train.state import init_state
from cnnjax.train.step import make_train_step
from cnnjax.train.task import DataFacts, make_task
from cnnjax.weights.convert import flatten

NETWORK = create_model("cifar_resnet20", num_classes=4, stage_sizes=(1, 1, 1), width=0.5, lowering="native")
SHAPE = (16, 16, 3)
RANDOM = np.random.default_rng(0)
BATCH = {
    "image": jnp.asarray(RANDOM.integers(0, 256, (8, *SHAPE)).astype(np.uint8)),
    "label": jnp.asarray(RANDOM.integers(0, 4, 8).astype(np.int32)),
    "mask": jnp.ones(8),
}
# Each of these moves a parameter whose gradient is zero, or remembers what is no longer asked for.
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01, weight_decay=0.1))


@functools.cache
def trained(patterns: tuple[str, ...]):
    """Leaves before and after three steps."""
    state = init_state(NETWORK, OPTIMIZER, 0, SHAPE, ema=True)
    start = state
    is_frozen = frozen_by(patterns) if patterns else None
    step = jax.jit(make_train_step(NETWORK, OPTIMIZER, cross_entropy, ema_decay=0.9, is_frozen=is_frozen))
    for _ in range(3):
        state, metrics = step(state, BATCH)
    leaves = [flatten({"params": each.params, "batch_stats": each.batch_stats}) for each in (start, state)]
    return *leaves, metrics


@pytest.mark.parametrize(
    "patterns",
    [("*", "!head/*"), ("stem/*", "stage1/*"), ("*/norm/*",), ("*", "!stage3/*", "!head/*", "stage3/*/norm*/*")],
)
def test_what_is_frozen_stays_bit_for_bit(patterns):
    before, after, _ = trained(patterns)
    is_frozen = frozen_by(patterns)
    assert any(map(is_frozen, before))
    for name in before:
        assert np.array_equal(before[name], after[name]) == is_frozen(name), name


def test_frozen_norms_use_their_statistics():
    """The gradient of the head is that of a network in evaluation."""
    state = init_state(NETWORK, optax.sgd(1.0), 0, SHAPE, ema=False)
    stats = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.arange(leaf.size), state.batch_stats)
    state = state.replace(batch_stats=stats)
    step = jax.jit(make_train_step(NETWORK, optax.sgd(1.0), cross_entropy, is_frozen=frozen_by(("*", "!head/*"))))
    after, _ = step(state, BATCH)

    def loss(head):
        variables = {"params": {**state.params, "head": head}, "batch_stats": stats}
        logits = NETWORK.apply(variables, BATCH["image"] / 255.0, train=False).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["label"]).mean()

    gradient = jax.jit(jax.grad(loss))(state.params["head"])
    moved = jax.tree.map(jnp.subtract, state.params["head"], after.params["head"])
    for one, two in zip(jax.tree.leaves(moved), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_what_is_frozen_costs_no_backward_pass():
    def flops(patterns):
        state = init_state(NETWORK, OPTIMIZER, 0, SHAPE, ema=False)
        is_frozen = frozen_by(patterns) if patterns else None
        step = make_train_step(NETWORK, OPTIMIZER, cross_entropy, is_frozen=is_frozen)
        return jax.jit(step).lower(state, BATCH).compile().cost_analysis()["flops"]

    assert flops(("*", "!head/*")) < 0.45 * flops(())


def test_the_last_pattern_decides():
    is_frozen = frozen_by(("stage*", "!stage2/*", "stage2/block1/*"))
    names = ("stage1/block1/x", "stage2/block2/x", "stage2/block1/x", "head/kernel")
    assert [is_frozen(name) for name in names] == [True, False, True, False]


@pytest.mark.parametrize(
    ("freeze", "sentence"),
    [
        (["stag1/*"], r"train.freeze: no parameter's name fits 'stag1/\*'; did you mean 'stage1'\?"),
        (["*"], r"train.freeze: nothing is left to train; let some in again, such as !head/\*"),
        (["*", "!neck/*"], r"train.freeze: no parameter's name fits '!neck/\*'"),
    ],
)
def test_patterns_are_checked(freeze, sentence):
    model = {"name": "cifar_resnet20", "args": {"stage_sizes": [1, 1, 1]}}
    config = Config.model_validate({"model": model, "train": {"freeze": freeze}})
    with pytest.raises(ConfigError, match=sentence):
        make_task(config, DataFacts(tuple("abcd"), SHAPE, 1000, 100))
