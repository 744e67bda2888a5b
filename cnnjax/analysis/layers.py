"""Which modules are layers, and what a call of one costs.

Conventions, as in the papers: multiply-adds (MACs) are those of convolutions and matrix products for one image in
evaluation; padding counts, biases, normalisation, pooling and activations do not. Connections are the inputs of all
units, the constant one of a bias among them (LeCun et al. 1998); normalisation has none, since it folds into its layer.

The layers are Linen modules with a class that is known here or that counts itself.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
from flax import linen as nn

from cnnjax.nn.network import Network
from cnnjax.nn.norm import BatchNorm

Shape = tuple[int, ...]

_MATRIX_PRODUCTS = (nn.Conv, nn.ConvTranspose, nn.Dense)
_NORMALISATIONS = (BatchNorm, nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)
# Fields that change how a network is compiled, and neither its layers nor their costs.
_COMPILATION_FIELDS = ("remat", "scan")


@runtime_checkable
class CountsItself(Protocol):
    """What a layer of one's own defines to be counted; shapes are those of one image. Its inner layers do not count."""

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Multiply-adds."""

    def connections(self, input_shape: Shape, output_shape: Shape) -> int:
        """Inputs of all units, biases among them."""


def is_layer(module: nn.Module) -> bool:
    """Whether it is counted as a whole."""
    return isinstance(module, (CountsItself, *_MATRIX_PRODUCTS, *_NORMALISATIONS))


def layer_cost(module: nn.Module, params: Any, input_shape: Shape, output_shape: Shape) -> tuple[int, int]:
    """Multiply-adds and connections of a layer's call.

    Args:
        params: the layer's own, arrays or shapes.
        input_shape: that of one image, as is `output_shape`.
    """
    if isinstance(module, CountsItself):
        return module.macs(input_shape, output_shape), module.connections(input_shape, output_shape)
    if isinstance(module, _NORMALISATIONS):
        return 0, 0
    assert isinstance(module, _MATRIX_PRODUCTS)
    # A transposed convolution spreads each input over a kernel; the others gather a kernel for each output.
    positions = (input_shape if isinstance(module, nn.ConvTranspose) else output_shape)[:-1]
    macs = math.prod(positions) * math.prod(params["kernel"].shape)
    return macs, macs + (math.prod(output_shape) if module.use_bias else 0)


def size_of(tree: Any) -> int:
    """How many numbers a tree of arrays or shapes holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def not_counted(module: nn.Module | None, path: Sequence[str], names: Sequence[str]) -> TypeError:
    """The error that a module which is no layer holds parameters of those names."""
    kind = "a module" if module is None else type(module).__name__
    return TypeError(
        f"{kind} '{'/'.join(path)}' holds parameters ({', '.join(names)}), and nothing says how to count it; "
        "give it the methods macs and connections of CountsItself"
    )


def without_compilation(network: Network) -> Network:
    """The same network without `remat` and `scan`, and with XLA's own convolutions."""
    own = {field.name for field in dataclasses.fields(network)}
    off: dict[str, Any] = {name: False for name in _COMPILATION_FIELDS if name in own}
    return network.clone(**off, lowering="native")
