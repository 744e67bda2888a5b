"""Attributions: their axioms, and what they are by definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from cnnjax.analysis.attribution import (
    class_score,
    grad_cam,
    integrated_gradients,
    map_layers,
    smooth_gradient,
)
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.nn.network import Network, Outputs
from cnnjax.train.state import init_state

RANDOM = np.random.default_rng(0)


class LeftHalf(Network):
    """Sees nothing but the left half of the first channel."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv")(images[:, :, :8, :1]))
        return Outputs(nn.Dense(self.num_classes, name="head")(x.mean((1, 2))), {}, {})


def variables_of(network, shape):
    state = init_state(network, optax.identity(), 0, shape, ema=False)
    return {"params": state.params, "batch_stats": state.batch_stats}


@pytest.fixture(scope="module")
def small():
    network = LeftHalf(num_classes=4)
    return network, variables_of(network, (16, 16, 3)), jnp.asarray(RANDOM.normal(size=(16, 16, 3)), jnp.float32)


@pytest.mark.parametrize(
    ("name", "fields", "shape"),
    [("lenet5_modern", {}, (32, 32, 1)), ("cifar_resnet20", {"stage_sizes": (1, 1, 1)}, (16, 16, 3))],
)
def test_integrated_gradients_are_complete(name, fields, shape):
    network = create_model(name, num_classes=10, lowering="native", **fields)
    variables = variables_of(network, shape)
    image = jnp.asarray(RANDOM.normal(size=shape), jnp.float32)
    score = class_score(network, variables, 3)
    change = float(score(image) - score(jnp.zeros_like(image)))
    attribution = integrated_gradients(jax.jit(jax.grad(score)), image, jnp.zeros_like(image), steps=128)
    assert float(attribution.sum()) == pytest.approx(change, rel=1e-3, abs=1e-3)


def test_what_is_not_seen_gets_nothing(small):
    network, variables, image = small
    gradient = jax.jit(jax.grad(class_score(network, variables, 1)))
    for attribution in (
        gradient(image),
        smooth_gradient(gradient, image, jax.random.key(0), deviation=0.1, samples=4),
        integrated_gradients(gradient, image, jnp.zeros_like(image), steps=8),
    ):
        assert attribution.shape == image.shape
        seen = np.zeros(image.shape, bool)
        seen[:, :8, 0] = True
        assert not np.any(np.asarray(attribution)[~seen])
        assert np.any(np.asarray(attribution)[seen])


def test_smooth_gradients_are_means(small):
    network, variables, image = small
    gradient = jax.jit(jax.grad(class_score(network, variables, 0)))
    same = smooth_gradient(gradient, image, jax.random.key(0), deviation=0.0, samples=3)
    np.testing.assert_allclose(same, gradient(image), atol=1e-6)
    keys = jax.random.split(jax.random.key(1), 5)
    noisy = [image + 0.3 * jax.random.normal(key, image.shape) for key in keys]
    expected = np.mean([gradient(each) for each in noisy], 0)
    found = smooth_gradient(gradient, image, jax.random.key(1), deviation=0.3, samples=5)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_grad_cam_of_averaged_maps_is_their_weighted_sum(small):
    """The head's weights over the number of positions are the gradients' means: class activation maps."""
    network, variables, image = small
    kernel = variables["params"]["conv"]
    maps = nn.Conv(6, (3, 3)).apply({"params": kernel}, image[None, :, :8, :1])
    weights = variables["params"]["head"]["kernel"][:, 2] / 128
    mean_of_gradients = (weights * (maps[0] > 0)).mean((0, 1))
    expected = np.maximum((np.asarray(maps[0]) * np.asarray(mean_of_gradients)).sum(-1), 0)
    np.testing.assert_allclose(grad_cam(network, variables, image, 2, "conv"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("resnet18", 64, "stage4/block2"),
        ("vgg11", 64, "stage4"),
        ("mobilenet_v1", 64, "stem"),
        ("lenet5_modern", 64, "s4"),
    ],
)
def test_layers_are_found_by_their_paths(name, size, layer):
    network = create_model(name)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    layers = map_layers(network, variables, (size, size, 3))
    assert layer in layers
    assert "head" not in layers


def test_an_unknown_layer_is_told(small):
    network, variables, image = small
    assert map_layers(network, variables, image.shape) == ["conv"]
    with pytest.raises(ConfigError, match=r"layer 'conf': no such layer; did you mean 'conv'\?"):
        grad_cam(network, variables, image, 0, "conf")


@pytest.mark.parametrize("switch", ["scan", "remat"])
def test_layers_within_blocks_compiled_by_themselves_are_not_offered(switch):
    network = create_model("cifar_resnet20", num_classes=4, width=0.25, lowering="native", **{switch: True})
    variables = variables_of(network, (16, 16, 3))
    image = jnp.asarray(RANDOM.normal(size=(16, 16, 3)), jnp.float32)
    layers = map_layers(network, variables, image.shape)
    assert layers[-1] == "stage3"
    inner = "stage3/block2to3/conv1" if switch == "scan" else "stage3/block2/conv1"
    assert inner not in layers
    assert grad_cam(network, variables, image, 0, "stage3").shape == (4, 4)
    with pytest.raises(ConfigError, match=r"no such layer"):
        grad_cam(network, variables, image, 0, inner)
