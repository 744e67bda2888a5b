"""Weights that tests pass around, what they answer, and whether they are the same."""

import functools

import jax
import numpy as np

from cnnjax.models import create_model
from cnnjax.weights.bundle import Weights
from cnnjax.weights.convert import flatten, shapes_of, unflatten
from cnnjax.weights.preprocessing import Preprocessing

SHAPE = (32, 32, 3)


def random_variables(network, shape, seed=0):
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        values = random.normal(size=leaf.shape).astype(np.float32)
        return np.abs(values) + 0.5 if path.endswith(("var", "scale")) else values / max(1, values[..., 0].size) ** 0.5

    shapes = shapes_of(network, shape)
    return unflatten({path: draw(path, leaf) for path, leaf in flatten(shapes).items()}, shapes)


@functools.cache
def cifar_weights():
    fields = {"num_classes": 10}
    variables = random_variables(create_model("cifar_resnet20_b", **fields), SHAPE)
    prepared = Preprocessing(size=(32, 32), fit="stretch", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    return Weights("cifar_resnet20_b", fields, SHAPE, variables, prepared, tuple("abcdefghij"), "nowhere")


def logits(weights, images):
    return np.asarray(jax.jit(lambda x: weights.network.apply(weights.variables, x, train=False).logits)(images))


def images(shape, batch=2):
    return np.random.default_rng(9).normal(size=(batch, *shape)).astype(np.float32)


def assert_same(found, expected, but=()):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        if path not in but:
            np.testing.assert_array_equal(found[path], array, err_msg=path)
