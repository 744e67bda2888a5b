"""Attributions: their axioms, and what they are by definition."""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util

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


@dataclass(frozen=True)
class Built:
    """A small network with weights, and an image."""

    network: Network
    variables: dict
    image: jax.Array

    def score(self, index: int):
        return class_score(self.network, self.variables, index)

    def with_head(self, change) -> "Built":
        """With another kernel of the head, made of (inputs, classes) by `change`."""
        params = self.variables["params"]
        head = {**params["head"], "kernel": change(params["head"]["kernel"])}
        return replace(self, variables={**self.variables, "params": {**params, "head": head}})


# With normalisation and without, with gates, shortcuts and depthwise convolutions.
SMALL = {
    "vgg11": {"width": 0.125, "dense_width": 64, "stem": "small", "stage_sizes": (1, 1), "stage_widths": (64, 128)},
    "cifar_resnet20": {"stage_sizes": (1, 1, 1)},
    "se_resnet18": {"stem": "small", "width": 0.125, "stage_sizes": (1, 1), "stage_widths": (64, 128)},
    "mobilenet_v1": {"stem": "small", "width": 0.125, "stage_sizes": (1, 1), "stage_widths": (64, 128)},
}
# Those whose head reads the means of the last stage's maps, and that stage.
AVERAGED = {"cifar_resnet20": "stage3", "se_resnet18": "stage2", "mobilenet_v1": "stage2"}


@pytest.fixture(scope="module")
def built():
    @functools.cache
    def build(name: str, **fields) -> Built:
        forgetful = {} if name == "vgg11" else {"norm_momentum": 1e-6}
        network = create_model(name, num_classes=4, lowering="native", **SMALL[name], **forgetful, **fields)
        image, *images = jnp.asarray(np.random.default_rng(5).normal(size=(9, 16, 16, 3)), jnp.float32)
        variables = variables_of(network, image.shape)
        if forgetful:  # Statistics of a batch rather than 0 and 1, so that no map grows beyond measure or dies.
            _, changed = network.apply(
                variables, jnp.stack(images), train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
            )
            variables = {**variables, **changed}
        return Built(network, variables, image)

    return build


@pytest.mark.parametrize(
    ("name", "activation", "steps"), [*((name, "silu", 64) for name in SMALL), ("cifar_resnet20", "relu", 512)]
)
def test_integrated_gradients_are_complete(name, activation, steps, built):
    """Their sum is the change of the score from the baseline; where ReLU makes the gradient jump, with more steps."""
    given = built(name, activation=activation)
    baseline = 0.5 * given.image
    changes = np.array([given.score(index)(given.image) - given.score(index)(baseline) for index in range(4)])
    index = int(np.abs(changes).argmax())
    attribution = integrated_gradients(jax.jit(jax.grad(given.score(index))), given.image, baseline, steps=steps)
    assert float(attribution.sum()) == pytest.approx(changes[index], rel=1e-3, abs=0)


@pytest.mark.parametrize("name", AVERAGED)
def test_grad_cam_is_complete_before_it_drops_what_speaks_against_the_class(name, built):
    """What speaks for a class, less what speaks against it, is its logit without the bias: maps, means, one layer."""
    given = built(name).with_head(lambda kernel: kernel.at[:, 1].set(-kernel[:, 2]))
    of, against = (
        grad_cam(given.network, given.variables, given.image, index, AVERAGED[name]).sum() for index in (2, 1)
    )
    bias = given.variables["params"]["head"]["bias"][2]
    assert float(of - against) == pytest.approx(float(given.score(2)(given.image) - bias), rel=1e-3)
    assert of > 0
    assert against > 0


@pytest.mark.parametrize("name", SMALL)
def test_a_class_whose_logit_sees_nothing_has_no_attributions(name, built):
    given = built(name).with_head(lambda kernel: kernel.at[:, 1].set(0))
    last = map_layers(given.network, given.variables, given.image.shape)[-1]
    for index, seen in ((1, False), (2, True)):
        gradient = jax.jit(jax.grad(given.score(index)))
        found = (
            gradient(given.image),
            integrated_gradients(gradient, given.image, jnp.zeros_like(given.image), steps=4),
            smooth_gradient(gradient, given.image, jax.random.key(0), deviation=0.1, samples=2),
        )
        assert [bool(jnp.any(each != 0)) for each in found] == [seen] * 3
        assert seen or not jnp.any(grad_cam(given.network, given.variables, given.image, index, last))


@pytest.mark.parametrize("name", SMALL)
def test_a_channel_that_no_layer_reads_gets_nothing_and_changes_nothing(name, built):
    given = built(name)
    first = next(
        path
        for path, kernel in traverse_util.flatten_dict(given.variables["params"]).items()
        if path[-1] == "kernel" and kernel.ndim == 4 and kernel.shape[2] == 3 and kernel.shape[-1] > 1
    )
    params = traverse_util.flatten_dict(given.variables["params"])
    params[first] = params[first].at[:, :, 1].set(0)
    variables = {**given.variables, "params": traverse_util.unflatten_dict(params)}
    gradient = jax.jit(jax.grad(class_score(given.network, variables, 0)))
    for attribution in (
        gradient(given.image),
        integrated_gradients(gradient, given.image, jnp.ones_like(given.image), steps=4),
    ):
        assert not jnp.any(attribution[..., 1])
        assert jnp.any(attribution[..., 0])
        assert jnp.any(attribution[..., 2])
    layer = map_layers(given.network, variables, given.image.shape)[0]
    other = given.image.at[..., 1].add(3.0)
    np.testing.assert_array_equal(
        *(grad_cam(given.network, variables, image, 0, layer) for image in (given.image, other))
    )


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
