"""What a network costs: parameters, multiply-adds, connections and activations, layer by layer, without running it.

Conventions, as in the papers: multiply-adds (MACs) are those of convolutions and matrix products for one image in
evaluation; padding counts, biases, normalisation, pooling and activations do not. Connections are the inputs of all
units, the constant one of a bias among them (LeCun et al. 1998); normalisation has none, since it folds into its layer.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.nn.network import Network
from cnnjax.nn.norm import BatchNorm

Shape = tuple[int, ...]

_NORMALISATIONS = (BatchNorm, nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)


@runtime_checkable
class CountsItself(Protocol):
    """What a layer of one's own defines to be counted; shapes are those of one image. Its inner layers do not count."""

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Multiply-adds."""

    def connections(self, input_shape: Shape, output_shape: Shape) -> int:
        """Inputs of all units, biases among them."""


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One call of a layer."""

    name: str
    """The path of its parameters, such as `stage2/block1/conv2`."""
    kind: str
    """Its class."""
    output_shape: Shape
    """(height, width, channels), or (features,)."""
    kernel: Shape | None
    """Height and width of its kernel or window; None without one."""
    stride: Shape | None
    params: int
    """Trainable numbers; 0 in a layer's second call."""
    macs: int
    connections: int
    activation_bytes: int
    """Size of its output."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Totals for one image, and the layers in the order of their calls."""

    params: int
    batch_stats: int
    """Running means and variances, not trained."""
    macs: int
    connections: int
    layers: tuple[LayerSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return dataclasses.asdict(self)


def summarize(network: Network, input_shape: tuple[int, int, int]) -> Summary:
    """Counts what a network costs in evaluation, from shapes alone.

    Args:
        network: any network of `cnnjax.models`.
        input_shape: (height, width, channels) of an image.

    Raises:
        ConfigError: the network takes no such image.
        TypeError: a layer holds parameters, and nothing says how to count it.
    """
    layers: list[LayerSummary] = []
    seen: set[str] = set()
    counting = False

    def count_layer(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        nonlocal counting
        module = context.module
        if context.method_name != "__call__" or counting or not _is_layer(module):
            output = call(*args, **kwargs)
            if context.method_name == "__call__" and not counting:
                _require_no_own_params(module)
            return output
        counting = True
        output = call(*args, **kwargs)
        counting = False
        layer = _summarize_layer(module, args[0].shape[1:], output)
        layers.append(dataclasses.replace(layer, params=0) if layer.name in seen else layer)
        seen.add(layer.name)
        return output

    def initialise(key: jax.Array, images: jax.Array) -> Any:
        return network.init(key, images, train=False)

    with nn.intercept_methods(count_layer):
        images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
        variables = jax.eval_shape(initialise, jax.random.key(0), images)
    return Summary(
        params=_size(variables.get("params", {})),
        batch_stats=_size(variables.get("batch_stats", {})),
        macs=sum(layer.macs for layer in layers),
        connections=sum(layer.connections for layer in layers),
        layers=tuple(layers),
    )


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv, nn.ConvTranspose, nn.Dense, CountsItself, *_NORMALISATIONS))


def _summarize_layer(module: nn.Module, input_shape: Shape, output: jax.Array) -> LayerSummary:
    output_shape = output.shape[1:]
    params = module.variables.get("params", {})
    if isinstance(module, CountsItself):
        macs, connections = module.macs(input_shape, output_shape), module.connections(input_shape, output_shape)
    elif isinstance(module, _NORMALISATIONS):
        macs, connections = 0, 0
    else:
        # A transposed convolution spreads each input over a kernel; the others gather a kernel for each output.
        positions = (input_shape if isinstance(module, nn.ConvTranspose) else output_shape)[:-1]
        macs = math.prod(positions) * math.prod(params["kernel"].shape)
        connections = macs + (math.prod(output_shape) if module.use_bias else 0)
    kernel = _pair(getattr(module, "kernel_size", None))
    return LayerSummary(
        name="/".join(module.path),
        kind=type(module).__name__,
        output_shape=output_shape,
        kernel=kernel,
        stride=None if kernel is None else _pair(getattr(module, "strides", None) or 1),
        params=_size(params),
        macs=macs,
        connections=connections,
        activation_bytes=output.size * output.dtype.itemsize,
    )


def _require_no_own_params(module: nn.Module) -> None:
    own = [name for name, value in module.variables.get("params", {}).items() if hasattr(value, "shape")]
    if own:
        raise TypeError(
            f"{type(module).__name__} '{'/'.join(module.path)}' holds parameters ({', '.join(own)}), and nothing says "
            "how to count it; give it the methods macs and connections of CountsItself"
        )


def _pair(size: Any) -> Shape | None:
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else tuple(size)


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
