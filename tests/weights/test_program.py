"""The exported program predicts alike where only JAX is, and batch normalisation folded in changes nothing."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from random_weights import random_variables

from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import create_model
from cnnjax.weights.bundle import Weights
from cnnjax.weights.convert import flatten
from cnnjax.weights.fold import fold_batch_norm
from cnnjax.weights.preprocessing import Preprocessing
from cnnjax.weights.program import export_program

# Runs in a process that never hears of cnnjax.
LOADS = """
import sys
import jax, numpy as np
images = np.load(sys.argv[2])
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
np.savez(sys.argv[3], **{str(n): program.call(images[:n]) for n in (1, 3, 8)})
assert not any(name.startswith(("cnnjax", "flax")) for name in sys.modules)
"""


def make(name: str, size: int, **fields) -> Weights:
    fields = {"num_classes": 7, **fields}
    return Weights(
        model=name,
        fields=fields,
        input_shape=(size, size, 3),
        variables=random_variables(create_model(name, **fields), (size, size, 3)),
        preprocessing=Preprocessing(size=(size, size), order="bgr", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1)),
        labels=tuple("abcdefg"),
    )


def logits(weights: Weights, images: np.ndarray) -> np.ndarray:
    inputs = np.stack([weights.preprocessing.apply(image) for image in images])
    run = jax.jit(lambda variables, x: weights.network.apply(variables, x, train=False).logits)
    return np.asarray(run(weights.variables, inputs))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)


def test_a_process_without_cnnjax_predicts_the_same(images, tmp_path):
    weights = make("cifar_resnet20", 16, stage_sizes=(1, 1, 1))
    beside = export_program(weights, tmp_path / "new" / "net.jaxexport")
    np.save(tmp_path / "images.npy", images)
    words = [sys.executable, "-c", LOADS, "new/net.jaxexport", "images.npy", "out.npz"]
    subprocess.run(words, check=True, cwd=tmp_path, timeout=120)
    found, expected = np.load(tmp_path / "out.npz"), logits(weights, images)
    for count in (1, 3, 8):
        np.testing.assert_allclose(found[str(count)], expected[:count], rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    described = json.loads(beside.read_text())
    assert described["input"] == "images (batch, 16, 16, 3) uint8"
    assert (described["platforms"], described["labels"]) == (["cpu", "cuda", "tpu"], list("abcdefg"))


@pytest.mark.parametrize(
    ("name", "size", "fields"),
    [
        ("cifar_resnet20", 16, {"stage_sizes": (1, 1, 1)}),
        ("mobilenet_v1", 16, {"stem": "small", "width": 0.25, "stage_sizes": (1, 1), "stage_widths": (32, 64)}),
        ("efficientnet_b0", 32, {"stem": "small", "width": 0.25, "depth": 0.2}),
        ("vgg11_bn", 32, {"width": 0.125, "dense_width": 64}),
        ("googlenet_bn", 32, {"stem": "small", "width": 0.125, "depth": 0.2}),
    ],
)
def test_folding_changes_nothing(name, size, fields):
    weights = make(name, size, **fields)
    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    folded = fold_batch_norm(weights)
    expected, found = logits(weights, images), logits(folded, images)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert not any(each.endswith(("/mean", "/var")) for each in flatten(folded.variables))
    assert folded.network.norm == "none"


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("densenet121", {"stem": "small"}, "cannot be folded"),
        ("vgg11", {}, "has no batch normalisation to fold"),
        ("lenet5", {}, "has no batch normalisation to fold"),
    ],
)
def test_what_cannot_be_folded(name, fields, sentence):
    network = create_model(name, **fields)
    shape = (32, 32, 1 if name == "lenet5" else 3)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), np.zeros((1, *shape), np.float32), train=False))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    with pytest.raises(ConfigError, match=sentence):
        fold_batch_norm(Weights(name, fields, shape, variables))


def test_a_class_for_each_pixel_is_described_so(tmp_path):
    weights = make("unet", 32, width=0.0625, levels=2, padding="same")
    program = tmp_path / "unet.jaxexport"
    described = json.loads(export_program(weights, program, platforms=("cpu",)).read_text())
    assert described["output"] == "logits (batch, height, width, 7) float32"
    (logits,) = jax.export.deserialize(program.read_bytes()).out_avals
    assert len(logits.shape) == 4


def test_wrong_questions(tmp_path):
    weights = make("cifar_resnet20", 16, stage_sizes=(1, 1, 1))
    with pytest.raises(ConfigError, match=r"--platforms: no platform 'gpu'; known: cpu, cuda, rocm, tpu"):
        export_program(weights, tmp_path / "x.jaxexport", platforms=("gpu",))
    with pytest.raises(ConfigError, match=r"expected a name that ends in .jaxexport"):
        export_program(weights, tmp_path / "x.bin")
    with pytest.raises(WeightsError, match="do not say how images are prepared"):
        export_program(Weights(weights.model, weights.fields, (16, 16, 3), weights.variables), tmp_path / "x.jaxexport")
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written"):
        export_program(weights, tmp_path / "file" / "x.jaxexport", platforms=("cpu",))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
