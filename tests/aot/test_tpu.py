"""Real TPU topologies, by their compiler: needs libtpu (extra `tpu-aot`), and no TPU."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from cnnjax.models import create_model

pytestmark = pytest.mark.tpu_aot

SETTINGS = (
    "data.source={kind: folder, path: nowhere}",
    "train.precision=bfloat16",
    "optimizer.args.momentum=0.9",
    "train.duration.steps=100",
)
# The smallest images at which each is itself: what a compiler does depends little on their size, its time more.
NETWORKS = {
    "lenet5": (32, 64),
    "alexnet": (67, 8),
    "googlenet": (80, 8),
    "resnet18": (64, 8),
    "mobilenet_v1": (64, 8),
    "unet": (188, 1),
}


def aot(folder, *words: str):
    """What `cnnjax aot` prints of a config of its own, in a process of its own."""
    config = folder / "small.yaml"
    config.write_text("{}\n")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "cnnjax", "aot", str(config), *SETTINGS, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)


def told_of(folder, name: str, *words: str):
    size, each = NETWORKS[name]
    settings = (f"model.name={name}", f"data.image_size={size}", f"data.batch_size={4 * each}", "eval.batch_size=4")
    done = aot(folder, *settings, "--classes", "10", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_compile_for_a_board_of_v5e(name, tmp_path):
    extra = ("model.args.width=0.25",) if name == "unet" else ()
    told = told_of(tmp_path, name, "--topology", "v5e:2x2", *extra)
    assert told["devices"] == 4
    for step in ("train", "eval"):
        assert told[step]["fits"] is True
        assert 0 < told[step]["memory"]["peak"] < told["memory_bytes"]
        assert told[step]["flops"] > 0
        assert 0 < told[step]["padding"]["share"] < 1
        assert told[step]["estimate"]["seconds"] > 0
    kinds = {each["kind"]: each["bytes"] for each in told["train"]["collectives"]}
    assert set(kinds) == {"all-reduce"}
    # Kernels' gradients are added in bfloat16, others' in float32; BatchNorm's sums come beside them.
    assert 2 * told["params"] < kinds["all-reduce"] < 4.4 * told["params"]


@pytest.mark.parametrize("mode", ["global", "local", "frozen", "sharded"])
def test_resnet50_sends_what_theory_asks_for_and_no_more(mode, tmp_path):
    """On sixteen chips, counted from the network's own parameters."""
    variables = jax.eval_shape(
        lambda key: create_model("resnet50").init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.key(0)
    )
    sizes = {jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree.leaves_with_path(variables["params"])}
    convolutions = [size for name, size in sizes.items() if "['conv']['kernel']" in name]
    channels = {name: size for name, size in sizes.items() if "['scale']" in name}
    projections = [size for name, size in channels.items() if "projection" in name]
    head = sum(size for name, size in sizes.items() if "head" in name)
    assert (len(convolutions), len(channels), len(projections)) == (53, 53, 4)
    # Sums for the number of examples, the loss and the accuracy.
    scalars = 3
    # Kernels' gradients are those of bfloat16 arithmetic. The bias gradients of a projection's norm and of the norm
    # that its output is added to are the same numbers.
    gradients = 2 * sum(convolutions) + 4 * (head + 2 * sum(channels.values()) - sum(projections))
    # Mean and mean square of each norm; backwards the same sums are the gradients of scale and bias.
    statistics = 4 * 2 * sum(channels.values())

    settings = ["model.name=resnet50", "data.image_size=64", "data.batch_size=128", "eval.batch_size=16"]
    settings.append("parallel.shard_state=all" if mode == "sharded" else f"train.batch_norm={mode}")
    done = aot(tmp_path, *settings, "--classes", "1000", "--json", "--topology", "v5e:4x4")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])["train"]["collectives"]
    found = {each["kind"]: (each["count"], each["bytes"]) for each in told}
    # A projection's norm and the one beside it wait for one sum, forwards and backwards; one more is of the kernels.
    together = 2 * (len(channels) - len(projections)) + 1
    expected = {
        "global": (together, gradients + statistics + 4 * scalars),
        "local": (3, gradients + statistics + 4 * scalars),  # of statistics once, for the running ones
        "frozen": (3, gradients + 4 * scalars),
        # And the parts of the gradient's norm, of each array that is cut.
        "sharded": (together + 1, gradients + statistics + 4 * (scalars + 10)),
    }[mode]
    assert found.pop("all-reduce") == expected
    if mode == "sharded":
        cut = [size for size in sizes.values() if size >= 2**20]
        assert found.pop("all-gather") == (len(cut), 2 * sum(cut))
    assert found == {}


def test_parts_of_alexnets_head_are_summed_where_they_lie(tmp_path):
    told = told_of(tmp_path, "alexnet", "--topology", "v5e:2x2", "parallel.shard_state=all")
    found = {each["kind"]: each for each in told["train"]["collectives"]}
    # Its two large layers, of 54 of 58 million parameters: neither is summed whole on every device.
    large = 2 * (9216 * 4096 + 4096 * 4096)
    assert (found["all-gather"]["count"], found["all-gather"]["bytes"]) == (2, large)
    assert found["reduce-scatter"]["count"] == 2
    assert large <= found["reduce-scatter"]["bytes"] < 1.03 * large  # 9216 rows are filled up to four times 2352
    assert found["all-reduce"]["bytes"] < 4 * (told["params"] - large // 2) + 64


def test_what_does_not_fit_is_told_in_a_sentence(tmp_path):
    """By its parameters, since a compiler takes minutes over a batch that large."""
    settings = ("model.name=alexnet", "data.image_size=67", "data.batch_size=32", "eval.batch_size=4")
    wide = ("model.args.dense_width=40000", "--classes", "10", "--topology", "v5e:2x2")
    done = aot(tmp_path, *settings, *wide)
    assert done.returncode == 0, done.stderr
    assert re.search(r"train: does not fit: it needs 1\d\.\d\d GiB a device, and 15\.75 are there\n", done.stdout)
    assert "eval: 7." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_topology_that_libtpu_does_not_know(tmp_path):
    done = aot(tmp_path, "--classes", "10", "--topology", "v5e:3x7", "data.image_size=32")
    assert done.returncode == 2
    assert "error: --topology: expected a TPU and its shape, such as v5e:4x4; of 'v5e:3x7' libtpu says: " in done.stderr
    assert "Traceback" not in done.stderr
