"""Weights are arguments of what is compiled, not constants that the compiler has to take in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.models import create_model
from cnnjax.train import explain, predict
from cnnjax.train.features import make_extract
from cnnjax.train.state import init_state
from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing

# Characters of a program. The network's weights written out are more than twice as many.
LARGEST = 200_000
IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
IMAGE = jax.ShapeDtypeStruct((32, 32, 3), jnp.float32)


@pytest.fixture(scope="module")
def weights() -> Weights:
    fields = {"num_classes": 3, "norm": "batch"}
    state = init_state(create_model("lenet5_modern", **fields), optax.identity(), 0, (32, 32, 3), ema=False)
    return Weights(
        model="lenet5_modern",
        fields=fields,
        input_shape=(32, 32, 3),
        variables={"params": state.params, "batch_stats": state.batch_stats},
        preprocessing=Preprocessing(size=(32, 32), fit="stretch", mean=0.4, std=0.3),
        labels=("cat", "dog", "fish"),
    )


def program_size(compiled: functools.partial, *arguments) -> int:
    return len(compiled.func.lower(*compiled.args, *arguments).as_text())


def test_predictions_and_features(weights):
    assert program_size(predict._logits(weights), IMAGES) < LARGEST
    assert program_size(make_extract(weights, weights.preprocessing), IMAGES) < LARGEST


@pytest.mark.parametrize("method", ["probabilities", "gradient", "grad_cam"])
def test_attributions(weights, method):
    arguments = (IMAGE,) if method == "probabilities" else (IMAGE, np.int32(1))
    assert program_size(getattr(explain._methods(weights, "c1"), method), *arguments) < LARGEST


def test_constants_would_be_seen(weights):
    run = jax.jit(lambda x: weights.network.apply(weights.variables, x, train=False).logits)
    assert len(run.lower(IMAGES).as_text()) > 2 * LARGEST
