"""Real TPU topologies, by their compiler: needs libtpu (extra `tpu-aot`), and no TPU."""

import json
import os
import subprocess
import sys

import pytest

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
    "googlenet": (64, 8),
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


def test_a_batch_that_does_not_fit_is_told_in_a_sentence(tmp_path):
    settings = ("model.name=lenet5", "data.image_size=32", "data.batch_size=4194304", "eval.batch_size=4")
    done = aot(tmp_path, *settings, "--classes", "10", "--topology", "v5e:2x2")
    assert done.returncode == 0, done.stderr
    assert "train: does not fit: it needs" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_largest_batch_fits_and_the_next_does_not(tmp_path):
    told = told_of(tmp_path, "lenet5", "--topology", "v5e:2x2", "--largest", "--multiple", "16384")
    found = told["largest"]
    assert found["next_batch"] == found["batch"] + 4 * 16384
    tried = {int(batch): needed for batch, needed in found["tried"].items()}
    assert tried[found["batch"]] < told["memory_bytes"] < tried[found["next_batch"]] * 1.02
    assert found["train"]["fits"] is True


def test_a_topology_that_libtpu_does_not_know(tmp_path):
    done = aot(tmp_path, "--classes", "10", "--topology", "v5e:3x7", "data.image_size=32")
    assert done.returncode == 2
    assert "error: --topology: expected a TPU and its shape, such as v5e:4x4, got 'v5e:3x7'" in done.stderr
    assert "Traceback" not in done.stderr
