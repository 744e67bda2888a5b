"""A state in parts: what is cut, that it stays so, and what a step then sends."""

import jax
import numpy as np
import pytest

from cnnjax.aot.plan import plan
from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError
from cnnjax.parallel import make_executor
from cnnjax.train.task import DataFacts, make_task

FACTS = DataFacts(tuple("0123456789"), (32, 32, 1), 1000, 100)
SETTINGS = (
    "model.name=lenet5_modern",
    "data.batch_size=32",
    "eval.batch_size=32",
    "optimizer.args.momentum=0.9",
    "train.duration.steps=10",
    "train.ema_decay=0.9",
)


def prepare(*overrides: str):
    config = load_config(None, [*SETTINGS, *overrides])
    executor = make_executor(config)
    return make_task(config, FACTS, axis=executor.axis, lowering=executor.lowering), executor


def cut_names(tree) -> set[str]:
    return {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if leaf.addressable_shards[0].data.shape != leaf.shape
    }


def make_batch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (32, 32, 32, 1), dtype=np.uint8),
        "label": random.integers(0, 10, 32, dtype=np.int32),
        "mask": np.ones(32, np.float32),
        "epoch": np.zeros(32, np.int32),
        "index": np.arange(32, dtype=np.int32),
    }


@pytest.mark.parametrize("shard_state", ["optimizer", "all"])
def test_large_arrays_are_cut_and_stay_so(shard_state):
    task, executor = prepare(f"parallel.shard_state={shard_state}", "parallel.shard_from=10000")
    state = executor.put_state(task.init_state())
    # LeNet-5 has two arrays of more than ten thousand numbers: c5's 5x5x16x120 and f6's 120x84.
    large = cut_names(state.params)
    assert large == ({"['c5']['kernel']", "['f6']['kernel']"} if shard_state == "all" else set())
    moments, average = cut_names(state.opt_state), cut_names(state.ema)
    assert len(moments) == len(average) == 2
    assert not cut_names(state.batch_stats)
    step = executor.compile_train(task.train_steps[0])
    for _ in range(2):
        state, _ = step(state, executor.put_batch(make_batch()))
    assert cut_names(state.params) == large
    assert (cut_names(state.opt_state), cut_names(state.ema)) == (moments, average)
    assert step._cache_size() == 1  # its own results are what it was compiled for


def test_an_array_is_cut_along_its_longest_dimension_that_the_devices_divide():
    _, executor = prepare("parallel.shard_state=all", "parallel.shard_from=100")
    shapes = {"kernel": (3, 3, 16, 24), "square": (64, 64), "odd": (7, 99), "small": (8,)}
    tree = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    found = {name: tuple(each.spec) for name, each in executor.layout._cut(tree).items()}
    assert found == {"kernel": (None, None, None, "data"), "square": (None, "data"), "odd": (), "small": ()}


def test_what_a_step_sends_is_the_parameters_once_and_no_more():
    """Of a network in float32 without BatchNorm: gradients, metrics, and the two arrays that are brought together."""
    kernels = 4 * (5 * 5 * 16 * 120 + 120 * 84)

    def sent(shard_state: str) -> dict[str, tuple[int, int]]:
        settings = [*SETTINGS, f"parallel.shard_state={shard_state}", "parallel.shard_from=10000"]
        told = plan(load_config(None, settings), FACTS, "cpu:8", evaluation=False)["train"]
        return {each["kind"]: (each["count"], each["bytes"]) for each in told["collectives"]}

    whole, optimizer, everything = map(sent, ("none", "optimizer", "all"))
    assert set(whole) == {"all-reduce"}
    for sharded in (optimizer, everything):
        assert sharded["all-gather"] == (2, kernels)
        assert sharded["all-reduce"][1] == pytest.approx(whole["all-reduce"][1], abs=64)
        assert set(sharded) == {"all-reduce", "all-gather"}


def test_a_device_holds_less_of_it():
    sizes = {}
    for shard_state in ("none", "optimizer", "all"):
        settings = [*SETTINGS, f"parallel.shard_state={shard_state}", "parallel.shard_from=100"]
        told = plan(load_config(None, settings), FACTS, "cpu:8", evaluation=False)
        sizes[shard_state] = told["train"]["memory"]["arguments"]
    # Parameters, their moments and their average: three times the same numbers.
    assert sizes["optimizer"] < 0.5 * sizes["none"]
    assert sizes["all"] < 0.4 * sizes["none"]


def test_pmap_cannot():
    with pytest.raises(ConfigError, match=r"parallel.shard_state: it needs parallel.executor=jit"):
        load_config(None, ["parallel.shard_state=all", "parallel.executor=pmap"])
