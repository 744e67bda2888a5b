"""What single layers of a network give, and what its head reads, as pure functions of images."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import tracers

from cnnjax.errors import ConfigError
from cnnjax.nn.digit_codes import RadialBasisOutput
from cnnjax.nn.network import Network
from cnnjax.registry import did_you_mean

Variables = Mapping[str, Any]
Notice = Callable[[nn.Module, str, Any, Any], Any]
"""From a module, its path, what it was called with first and its output to what takes the output's place."""

# A network without a dense layer, as Network in Network, ends in a convolution.
_HEADS = (nn.Dense, nn.Conv, RadialBasisOutput)


def head_inputs(network: Network, variables: Variables, images: jax.Array) -> jax.Array:
    """What the layer that makes the logits reads, in evaluation: (batch, values) float32.

    It is the last dense layer; LeNet-5's distances to its codes; and where a network ends in a convolution, that,
    whose input is averaged over all positions.

    Args:
        images: (batch, height, width, channels) as the network takes them.
    """
    read: list[jax.Array] = []

    def note(module: nn.Module, path: str, first: Any, output: Any) -> Any:
        if isinstance(module, _HEADS):
            read.append(first)
        return output

    # Evaluation keeps nothing for a backward pass, and within `remat` no layer is seen.
    if getattr(network, "remat", False):
        network = network.clone(remat=False)
    call_with(network, variables, images, note)
    return mean_over_positions(read[-1])


def layer_output(network: Network, variables: Variables, images: jax.Array, layer: str) -> jax.Array:
    """A module's output in evaluation, (batch, ...) in its own precision.

    Args:
        layer: one of `output_shapes`.

    Raises:
        ConfigError: there is no such layer.
    """
    found: list[jax.Array] = []

    def note(module: nn.Module, path: str, first: Any, output: Any) -> Any:
        if path == layer:
            found.append(output)
        return output

    # Other lowerings may compute two layers in one, and then one of them has no output of its own.
    if layer not in output_shapes(network, variables, images.shape[1:]):
        network = network.clone(lowering="native")
        known = output_shapes(network, variables, images.shape[1:])
        if layer not in known:
            raise ConfigError(f"layer '{layer}': no such layer; {did_you_mean(layer, known)}")
    call_with(network, variables, images, note)
    return found[0]


def output_shapes(network: Network, variables: Variables, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of all modules' outputs for one image, without the batch, by path, in the order of computation.

    Those within blocks that `scan` or `remat` compiles by themselves are not among them: their outputs stay inside.

    Args:
        variables: or their shapes.
        input_shape: (height, width, channels).
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(module: nn.Module, path: str, first: Any, output: Any) -> Any:
        if path and getattr(output, "ndim", 0) > 1:
            shapes.setdefault(path, tuple(output.shape[1:]))
        return output

    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    jax.eval_shape(lambda given, x: call_with(network, given, x, note), variables, images)
    return shapes


def mean_over_positions(values: jax.Array) -> jax.Array:
    """(batch, height, width, channels) or (batch, channels) to (batch, channels) float32 (or float64)."""
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return values.mean(tuple(range(1, values.ndim - 1)))


def call_with(network: Network, variables: Variables, images: jax.Array, notice: Notice) -> Any:
    """The network's outputs in evaluation, each module's output replaced by what `notice` makes of it."""
    outside = tracers.current_trace()

    def intercept(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*arguments, **keywords)
        if context.method_name != "__call__" or tracers.current_trace() != outside:
            return output
        first = arguments[0] if arguments else None
        return notice(context.module, "/".join(context.module.path), first, output)

    with nn.intercept_methods(intercept):
        return network.apply(variables, images, train=False)
