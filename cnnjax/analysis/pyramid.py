"""A network's feature maps, from shallow to deep, with what a detector or a decoder has to know of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnnjax.analysis.equations import Value, trace
from cnnjax.analysis.receptive_field import ReceptiveField, fields_of_values
from cnnjax.nn.network import Network, Outputs


@dataclass(frozen=True)
class FeatureMap:
    """One of `Outputs.features`."""

    name: str
    """Its key."""
    stride: tuple[float, float] | None
    """Pixels from a position to the next one, down and to the right; None where no position has its own window."""
    channels: int
    size: tuple[int, int]
    """Height and width, in positions."""
    receptive_field: ReceptiveField


def feature_pyramid(network: Network, input_shape: tuple[int, int, int]) -> list[FeatureMap]:
    """The feature maps of a network in evaluation, in the order in which it computes them: from shallow to deep.

    Strides grow along the way; those of a decoder's maps, such as a U-Net's, shrink again. Nothing is computed.

    Args:
        network: any network of `cnnjax.models`.
        input_shape: (height, width, channels) of an image.

    Raises:
        ConfigError: the network takes no such image.
    """
    network = network.clone(lowering="native")
    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)
    names: list[str] = []

    def features(variables: object, images: jax.Array) -> dict[str, jax.Array]:
        outputs: Outputs = network.apply(variables, images, train=False)  # type: ignore[arg-type, assignment]
        names.extend(outputs.features)
        return outputs.features

    traced = trace(features, variables, images)
    return feature_maps(names, traced.outputs, fields_of_values(traced))


def feature_maps(
    names: Sequence[str], features: dict[str, Value], field_of: Callable[[Value], ReceptiveField | None]
) -> list[FeatureMap]:
    """The feature maps of a traced network; `names` are in their order, which JAX's own trees have lost."""
    found = []
    for name in names:
        field = field_of(features[name])
        assert field is not None, "features are computed from the images"
        _, height, width, channels = features[name].shape
        found.append(FeatureMap(name, field.stride, channels, (height, width), field))
    return found
