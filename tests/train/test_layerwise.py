"""LARS and LAMB against their papers' equations, written out in NumPy in double precision."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.config import OptimizerConfig
from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError
from cnnjax.nn.stage import stack_blocks, unstack_blocks
from cnnjax.train.optimizer import check_optimizer, make_optimizer
from cnnjax.train.task import DataFacts, make_task

STEPS = 4
RATES = (0.5, 0.4, 0.3, 0.2)
DECAY = 0.05


def make_params():
    random = np.random.default_rng(0)
    return {
        "conv": {"kernel": random.normal(size=(3, 3, 2, 4)), "bias": np.zeros(4)},
        "norm": {"scale": np.ones(4), "bias": np.zeros(4)},
        "head": {"kernel": random.normal(size=(4, 5)), "bias": random.normal(size=5)},
    }


def make_gradients(step):
    random = np.random.default_rng(100 + step)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape), make_params())


def norm(array):
    return np.sqrt((array**2).sum())


class PaperLars:
    """You et al. 2017, algorithm 1: its gamma, eta, beta and m."""

    def __init__(self, eta=0.001, m=0.9):
        self.eta, self.m = eta, m

    def step(self, w, g, memory, gamma, beta, own):
        local, decayed = 1.0, g
        if own:
            local = self.eta * norm(w) / (norm(g) + beta * norm(w)) if norm(w) > 0 else 1.0
            decayed = g + beta * w
        v = self.m * memory.get("v", 0.0) + gamma * local * decayed
        memory["v"] = v
        return w - v


class PaperLamb:
    """You et al. 2019, algorithm 2, with the identity for phi."""

    def __init__(self, b1=0.9, b2=0.999, epsilon=1e-6):
        self.b1, self.b2, self.epsilon = b1, b2, epsilon

    def step(self, x, g, memory, eta, decay, own):
        t = memory["t"] = memory.get("t", 0) + 1
        m = memory["m"] = self.b1 * memory.get("m", 0.0) + (1 - self.b1) * g
        v = memory["v"] = self.b2 * memory.get("v", 0.0) + (1 - self.b2) * g**2
        r = m / (1 - self.b1**t) / (np.sqrt(v / (1 - self.b2**t)) + self.epsilon)
        if not own:
            return x - eta * r
        direction = r + decay * x
        ratio = norm(x) / norm(direction) if norm(x) > 0 else 1.0
        return x - eta * ratio * direction


def by_hand(paper, everywhere):
    params, memories = make_params(), {}
    for step in range(STEPS):
        gradients = make_gradients(step)
        for module, leaves in params.items():
            for name, leaf in leaves.items():
                memory = memories.setdefault((module, name), {})
                own = everywhere or name == "kernel"
                gradient = gradients[module][name]
                leaves[name] = paper.step(leaf, gradient, memory, RATES[step], DECAY if own else 0.0, own)
    return params


def by_config(name, everywhere=False, **args):
    config = OptimizerConfig(name=name, args=args, weight_decay=DECAY, decay_norm_and_bias=everywhere)
    with jax.enable_x64(True):  # in float32, Adam's 1 - 0.999 alone is off by some 1e-5
        optimizer = make_optimizer(config, lambda step: jnp.asarray(RATES)[step])
        params = jax.tree.map(jnp.asarray, make_params())
        state = optimizer.init(params)
        for step in range(STEPS):
            updates, state = optimizer.update(jax.tree.map(jnp.asarray, make_gradients(step)), state, params)
            params = optax.apply_updates(params, updates)
        return jax.tree.map(np.asarray, params)


def assert_close(found, expected, tolerance=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(
    ("name", "args", "paper"),
    [
        ("lars", {}, PaperLars()),
        ("lars", {"trust_coefficient": 0.02, "momentum": 0.5}, PaperLars(eta=0.02, m=0.5)),
        ("lamb", {}, PaperLamb()),
        ("lamb", {"b1": 0.8, "b2": 0.9, "eps": 1e-3}, PaperLamb(0.8, 0.9, 1e-3)),
    ],
)
def test_each_step_is_the_papers(name, args, paper, everywhere):
    assert_close(by_config(name, everywhere, **args), by_hand(paper, everywhere))


def test_one_step_of_lars_by_numbers():
    """|w| = 5, |g| = 13, decay 0.4: 0.001 * 5 / (13 + 2) = 1/3000; g + 0.4 w = (6.2, 13.6)."""
    params = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([3.0, 4.0])}
    gradients = jax.tree.map(lambda _: jnp.array([5.0, 12.0]), params)
    optimizer = make_optimizer(OptimizerConfig(name="lars", weight_decay=0.4), 6.0)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [-6 * 6.2 / 3000, -6 * 13.6 / 3000], rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], [-30, -72], rtol=1e-6)


def test_without_decay_lars_is_optax_s_and_lamb_is_with_it():
    """Where they ought to be the same; with decay, optax's LARS divides by another norm."""
    params, gradients = (jax.tree.map(jnp.float32, tree) for tree in (make_params(), make_gradients(0)))
    for config, theirs in (
        (OptimizerConfig(name="lars", decay_norm_and_bias=True), optax.lars(0.1)),
        (
            OptimizerConfig(name="lamb", decay_norm_and_bias=True, weight_decay=DECAY),
            optax.lamb(0.1, weight_decay=DECAY),
        ),
    ):
        ours = make_optimizer(config, 0.1)
        assert_close(*(each.update(gradients, each.init(params), params)[0] for each in (ours, theirs)), 1e-6)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_layer_s_step_depends_on_the_gradient_s_direction_alone(name):
    """The point of both: with no decay, a gradient a thousand times as large moves the kernels as far."""
    params = jax.tree.map(jnp.float32, make_params())
    optimizer = make_optimizer(OptimizerConfig(name=name, args={"eps": 1e-30}), 0.1)
    small, large = (jax.tree.map(lambda leaf, by=by: jnp.float32(by * leaf), make_gradients(0)) for by in (1, 1000))
    one, other = (optimizer.update(each, optimizer.init(params), params)[0] for each in (small, large))
    np.testing.assert_allclose(one["head"]["kernel"], other["head"]["kernel"], rtol=1e-5)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_all_zeros_do_not_become_nan_and_do_move(name):
    params = {"kernel": jnp.zeros(3)}
    optimizer = make_optimizer(OptimizerConfig(name=name, weight_decay=DECAY), 0.1)
    for gradient, moves in ((jnp.ones(3), True), (jnp.zeros(3), False)):
        update = optimizer.update({"kernel": gradient}, optimizer.init(params), params)[0]["kernel"]
        assert np.isfinite(update).all()
        assert (np.asarray(update) != 0).all() == moves


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_each_block_of_a_scanned_stage_is_a_layer(name):
    random = np.random.default_rng(0)
    sizes = {"conv": (3, 3, 2, 2), "head": (4,)}

    def tree(scale):
        blocks = {f"block{number}": scale**number * random.normal(size=sizes["conv"]) for number in (1, 2, 3, 4)}
        return {
            "stage1": {block: {"conv": {"kernel": jnp.float32(leaf)}} for block, leaf in blocks.items()},
            "head": {"kernel": jnp.float32(random.normal(size=sizes["head"]))},
        }

    params, gradients = tree(10.0), tree(0.1)
    like = {"stage1": {"block1": {}, "block2to4": {}}, "head": {}}
    optimizer = make_optimizer(OptimizerConfig(name=name, weight_decay=DECAY), 0.1)
    expected = optimizer.update(gradients, optimizer.init(params), params)[0]
    stacked, stacked_gradients = (
        {"stage1": stack_blocks(each["stage1"], like["stage1"]) | {"block1": each["stage1"]["block1"]}}
        | {"head": each["head"]}
        for each in (params, gradients)
    )
    assert stacked["stage1"]["block2to4"]["conv"]["kernel"].shape == (3, *sizes["conv"])
    found = optimizer.update(stacked_gradients, optimizer.init(stacked), stacked)[0]
    assert_close(unstack_blocks(found), expected, 1e-5)


@pytest.mark.parametrize("argument", ["trust_ratio_mask", "mask", "weight_decay_mask"])
def test_masks_are_not_given_by_hand(argument):
    with pytest.raises(ConfigError, match=rf"optimizer\.args\.{argument}: optax\.lars has no such argument"):
        check_optimizer(OptimizerConfig(name="lars", args={argument: True}))


def test_the_ready_recipe_is_that_of_mlperf():
    """90 epochs of ImageNet in batches of 8192, peak 10 after five, then (1 - progress) squared."""
    config = load_config(Path(__file__).parents[2] / "configs/train/resnet50_lars.yaml")
    classes = tuple(f"class {number}" for number in range(1000))
    task = make_task(config, DataFacts(classes, (224, 224, 3), 1_281_167, 50_000))
    per_epoch = 1_281_167 // 8192
    assert (task.steps_per_epoch, task.total_steps) == (per_epoch, 90 * per_epoch)
    halfway = 5 * per_epoch + 85 * per_epoch // 2
    expected = {1: 10 / (5 * per_epoch), 5 * per_epoch: 10.0, halfway + 1: 2.5, 90 * per_epoch + 1: 0.0}
    assert [task.learning_rate(step) for step in expected] == pytest.approx(list(expected.values()), abs=1e-6)
