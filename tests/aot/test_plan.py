"""What is told of a step, compiled for this machine's own devices, beside what theory says."""

import jax
import numpy as np
import pytest

from cnnjax.analysis.catalogue import count_named
from cnnjax.aot.plan import facts_of, largest, plan, try_savings
from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError
from cnnjax.models import get_variant

SETTINGS = (
    "model.name=lenet5_modern",
    "data.source={kind: folder, path: nowhere}",
    "data.image_size=32",
    "data.batch_size=64",
    "eval.batch_size=64",
    "optimizer.args.momentum=0.9",
    "train.duration.steps=10",
    "ops.conv=native",  # as on TPUs; other forms sum kernels' gradients before they are put together
)


def told_of(*overrides: str, topology: str = "cpu:8", evaluation: bool = False):
    config = load_config(None, [*SETTINGS, *overrides])
    return plan(config, facts_of(config, 10), topology, evaluation=evaluation)


@pytest.mark.parametrize("executor", ["jit", "pmap"])
def test_gradients_are_summed_once_and_statistics_as_their_mode_says(executor):
    params, _, macs = count_named("lenet5_modern")
    plain = told_of(f"parallel.executor={executor}")
    assert (plain["params"], plain["macs_an_image"]) == (params, macs)
    assert (plain["devices"], plain["batch_a_device"], plain["memory_bytes"]) == (8, 8, None)
    (only,) = plain["train"]["collectives"]
    assert only["kind"] == "all-reduce"
    # The gradient, and the sums and counts of loss and accuracy.
    assert 4 * params < only["bytes"] <= 4 * params + 64
    sent = {}
    for mode in ("global", "local", "frozen"):
        told = told_of("model.args.norm=batch", f"train.batch_norm={mode}", f"parallel.executor={executor}")
        assert [each["kind"] for each in told["train"]["collectives"]] == ["all-reduce"]
        sent[mode] = told["train"]["collectives"][0]["bytes"] - 4 * told["params"]
    channels = 6 + 16 + 120  # of LeNet-5's three convolutions
    # Under pmap running statistics are averaged, whether they moved or not.
    assert sent["frozen"] <= 64 + (4 * 2 * channels if executor == "pmap" else 0)
    # Mean and mean square, forwards; their gradients are those of scale and bias, or are summed beside them.
    assert 4 * 2 * channels <= sent["global"] <= 4 * (4 if executor == "jit" else 6) * channels + 64
    # Running statistics are averaged once.
    assert sent["local"] <= 4 * 2 * channels + 64


def test_memory_is_the_state_and_the_batch_and_what_is_between():
    told = told_of(evaluation=True)
    memory = told["train"]["memory"]
    # uint8 images, int32 labels and float32 mask; what names the examples is left out where nothing is augmented.
    batch = 8 * (32 * 32 + 2 * 4)
    # Each array is filled up to 64 bytes at most.
    assert told["state_bytes"] + batch <= memory["arguments"] <= told["state_bytes"] + batch + 64 * 64
    assert memory["peak"] >= memory["arguments"] + memory["temporaries"]
    assert told["train"]["fits"] is None
    assert told["eval"]["memory"]["arguments"] < memory["arguments"]
    twice = told_of("data.batch_size=128")["train"]["memory"]
    assert twice["temporaries"] > 1.5 * memory["temporaries"]


def test_for_gpus_it_is_only_lowered():
    told = told_of(topology="cuda:8", evaluation=True)
    assert told["train"]["operations"] > told["eval"]["operations"] > 0
    for step in ("train", "eval"):
        assert told[step]["memory"] is told[step]["compile_seconds"] is told[step]["fits"] is None


def test_what_only_a_compiler_or_jit_can_tell_of_gpus_is_refused():
    with pytest.raises(ConfigError, match=r"cuda:8: steps are lowered without GPUs only for parallel.executor=jit"):
        told_of("parallel.executor=pmap", topology="cuda:8")
    config = load_config(None, SETTINGS)
    with pytest.raises(ConfigError, match="--savings: for cuda:8 steps are only lowered"):
        try_savings(config, facts_of(config, 10), "cuda:8")


def test_savings_are_compiled_and_what_is_impossible_says_why():
    config = load_config(None, [*SETTINGS, "data.batch_size=8"])
    told = try_savings(config, facts_of(config, 10), "cpu:8")
    assert {"bfloat16", "remat", "accumulate 2"} <= set(told)
    assert told["bfloat16"]["memory"]["peak"] > 0
    assert "data.batch_size: 8 is not divisible" in told["accumulate 2"]["refused"]


def test_facts_of_data_that_are_not_here():
    config = load_config(None, [*SETTINGS, "data.image_size=null"])
    with pytest.raises(ConfigError, match=r"--classes: the images' size is the data's own"):
        facts_of(config, 10)
    unet = load_config(None, [*SETTINGS, "model.name=unet"])
    facts = facts_of(unet, 3)
    assert facts.segmentation
    assert facts.input_shape == (32, 32, get_variant("unet").input_shape[-1])


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("cpu:99", "--topology: expected cpu:1 to cpu:8, got 'cpu:99'"),
        ("gpu:8", "--topology: expected a TPU and its shape, such as v5e:4x4, cpu:8 or cuda:8, got 'gpu:8'"),
        ("cpu:3", "cpu:3: data.batch_size: 64 is not divisible by devices"),
    ],
)
def test_a_wrong_topology_is_told(topology, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        told_of(topology=topology)


def test_the_largest_batch_needs_a_chip_whose_memory_is_known():
    config = load_config(None, SETTINGS)
    with pytest.raises(ConfigError, match="how much memory a device of cpu:8 has is not known"):
        largest(config, facts_of(config, 10), "cpu:8")


def test_what_is_compiled_is_what_trains():
    """The very program: as many operations, as many bytes, whether its arguments are shapes or arrays."""
    from cnnjax.aot.programs import bind, compile_train
    from cnnjax.parallel import make_executor

    config = load_config(None, SETTINGS)
    executor = make_executor(config)
    task = bind(config, facts_of(config, 10), executor)
    program = compile_train(task, executor)
    state = executor.put_state(task.init_state())
    batch = {
        "image": np.zeros((64, 32, 32, 1), np.uint8),
        "label": np.zeros(64, np.int32),
        "mask": np.ones(64, np.float32),
        "epoch": np.zeros(64, np.int32),
        "index": np.zeros(64, np.int32),
    }
    step = executor.compile_train(task.train_steps[0])
    compiled = step.lower(state, executor.put_batch(batch)).compile()
    assert sum(" = " in line for line in compiled.as_text().splitlines()) == program.operations
    assert compiled.memory_analysis().temp_size_in_bytes == program.memory.temporaries
    assert jax.tree.leaves(step(state, executor.put_batch(batch)))
