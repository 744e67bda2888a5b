"""The calls of a network's modules, noted and marked in the trace while it is traced."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from cnnjax.analysis.equations import Equation

Shape = tuple[int, ...]

BEGIN, END = "cnnjax.analysis.begin.", "cnnjax.analysis.end."


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A module was called; shapes are those of one image."""

    module: nn.Module
    is_layer: bool
    """Whether it is a row of the table."""
    input_shape: Shape
    output_shape: Shape
    output_bytes: int

    @property
    def name(self) -> str:
        return "/".join(self.module.path)


class Recorder:
    """Notes all calls of modules, and leaves a mark in the trace where each of them begins and ends."""

    def __init__(self, is_layer: Callable[[nn.Module], bool]) -> None:
        self._is_layer = is_layer
        self.calls: list[Call] = []
        """By their number; a layer's inner modules are not among them."""
        self._in_layer = False

    def __call__(
        self,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        if context.method_name != "__call__" or self._in_layer:
            return call(*args, **kwargs)
        is_layer = self._is_layer(context.module)
        number = len(self.calls)
        self.calls.append(Call(context.module, is_layer, (), (), 0))
        first = _mark((args, kwargs), f"{BEGIN}{number}")
        self._in_layer = is_layer
        output = call(*args, **kwargs)
        self._in_layer = False
        last = _mark(output, f"{END}{number}")
        if is_layer:
            size = last.size * last.dtype.itemsize
            self.calls[number] = Call(context.module, is_layer, first.shape[1:], last.shape[1:], size)
        return output


def _mark(tree: Any, mark: str) -> Any:
    """The first array of a tree; it goes into an equation of that name as well, whose result nobody uses."""
    array = next((leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)), None)
    if array is not None:
        checkpoint_name(array, mark)
    return array


def marked_call(equation: Equation, mark: str) -> int | None:
    """The number of the call that begins (`BEGIN`) or ends (`END`) with an equation; None if none does."""
    name = equation.params["name"] if equation.name == "name" else ""
    return int(name.removeprefix(mark)) if name.startswith(mark) else None
