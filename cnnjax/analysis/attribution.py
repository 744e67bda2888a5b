"""Which parts of an image a network's answer rests on.

Pure functions. A score is a function of one image, (height, width, channels) to a number, such as `class_score` makes.
Its gradient, `jax.grad(score)`, is the saliency of Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnjax.analysis.layer_outputs import Variables, call_with, output_shapes
from cnnjax.errors import ConfigError
from cnnjax.nn.network import Network
from cnnjax.registry import did_you_mean

Score = Callable[[jax.Array], jax.Array]
Gradient = Callable[[jax.Array], jax.Array]


def class_score(network: Network, variables: Variables, index: int | jax.Array) -> Score:
    """The logit of a class, of an image as the network takes it."""

    def score(image: jax.Array) -> jax.Array:
        outputs: Any = network.apply(variables, image[None], train=False)
        return outputs.logits[0, index]

    return score


def smooth_gradient(
    gradient: Gradient, image: jax.Array, key: jax.Array, *, deviation: float | jax.Array, samples: int = 32
) -> jax.Array:
    """The mean gradient of noisy copies (Smilkov et al. 2017, arXiv:1706.03825): (height, width, channels).

    Args:
        gradient: is called so many times, so that it should be compiled.
        deviation: of the noise, in units of the image; the paper has 10 to 20 % of its range.
    """
    total = jnp.zeros_like(image)
    for each in jax.random.split(key, samples):
        total = total + gradient(image + deviation * jax.random.normal(each, image.shape, image.dtype))
    return total / samples


def integrated_gradients(gradient: Gradient, image: jax.Array, baseline: jax.Array, *, steps: int = 64) -> jax.Array:
    """How much of the score's change from a baseline each value accounts for (Sundararajan, Taly and Yan 2017,
    arXiv:1703.01365): (height, width, channels), whose sum is score(image) - score(baseline).

    Args:
        gradient: is called so many times, so that it should be compiled.
        baseline: an image without content, such as black.
        steps: points of the Gauss-Legendre rule along the way; more make the sum more exact.
    """
    total = jnp.zeros_like(image)
    for place, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        total = total + weight / 2 * gradient(baseline + (place + 1) / 2 * (image - baseline))
    return (image - baseline) * total


def grad_cam(network: Network, variables: Variables, image: jax.Array, index: int | jax.Array, layer: str) -> jax.Array:
    """Where a layer's maps speak for a class (Selvaraju et al. 2016, arXiv:1610.02391): (height, width), not negative.

    The maps are weighted by the mean of the logit's gradient over each; what speaks against the class is 0.

    Args:
        layer: the path of a module whose output is (1, height, width, channels), such as `stage4`; see `map_layers`.

    Raises:
        ConfigError: there is no such layer.
    """

    def logit(change: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        outputs, maps = _run(network, variables, image[None], layer, change)
        return outputs.logits[0, index], maps

    shape = jax.eval_shape(lambda: logit(None)[1])
    gradient, maps = jax.grad(logit, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    weights = gradient.mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * maps).sum(-1)[0])


def layer_maps(network: Network, variables: Variables, image: jax.Array, layer: str) -> jax.Array:
    """A layer's output for an image: (height, width, channels); ConfigError where there is no such layer."""
    return _run(network, variables, image[None], layer, None)[1][0]


def map_layers(network: Network, variables: Variables, input_shape: tuple[int, int, int]) -> list[str]:
    """The paths of all modules whose output is a map of more than one position, as they are computed.

    Those within blocks that `scan` or `remat` compiles by themselves are not among them: their outputs stay inside.

    Args:
        variables: or their shapes.
    """
    shapes = output_shapes(network.clone(lowering="native"), variables, input_shape)
    return [path for path, shape in shapes.items() if len(shape) == 3 and max(shape[:2]) > 1]


def _run(network: Network, variables: Variables, images: jax.Array, layer: str, change: Any) -> tuple[Any, jax.Array]:
    """The outputs with `change` added to a layer's output, and that output without it."""
    maps: list[jax.Array] = []

    def replace(module: nn.Module, path: str, first: Any, output: Any) -> Any:
        if path != layer:
            return output
        maps.append(output)
        return output if change is None else output + change

    # Other lowerings may compute two layers in one, and then there is no output of the first to replace.
    outputs = call_with(network.clone(lowering="native"), variables, images, replace)
    if not maps:
        known = map_layers(network, variables, tuple(images.shape[1:]))  # type: ignore[arg-type]
        raise ConfigError(f"layer '{layer}': no such layer; {did_you_mean(layer, known)}")
    return outputs, maps[0]
