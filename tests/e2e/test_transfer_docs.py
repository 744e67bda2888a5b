"""What docs/transfer.md shows: a network with its weights within another Linen module."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import cnnjax
from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing

PAGE = Path(__file__).parents[2] / "docs" / "transfer.md"


def test_a_backbone_within_ones_own_module(monkeypatch):
    network = cnnjax.create_model("resnet18", num_classes=3, width=0.125)
    shape = (64, 64, 3)
    variables = jax.tree.map(np.asarray, dict(network.init(jax.random.key(7), jnp.zeros((1, *shape)), train=False)))
    weights = Weights(
        model="resnet18", fields={"num_classes": 3, "width": 0.125}, input_shape=shape, variables=variables,
        preprocessing=Preprocessing(size=shape[:2]), labels=("a", "b", "c"), origin="a test",
    )  # fmt: skip
    monkeypatch.setattr(cnnjax, "load_weights", lambda path: weights)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(next(block for block in blocks if "class Detector" in block), names)
    images = jax.random.normal(jax.random.key(1), (2, *shape))
    boxes = names["detector"].apply(names["variables"], images)
    features = network.apply(variables, images, train=False).features["stage4"].mean((1, 2))
    expected = features @ names["variables"]["params"]["box"]["kernel"]
    np.testing.assert_allclose(boxes, expected, atol=1e-5)
