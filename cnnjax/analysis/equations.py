"""What a function computes, as a flat list of equations: traced by JAX from shapes alone, with all calls inlined."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

# Equations that only call another function; its equations stand in their place.
_CALLS = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}
)
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")

# The name of the equations that say "one of these", which stand for a choice between branches.
EITHER = "either"


@dataclasses.dataclass(eq=False)
class Value:
    """An array in a trace. Two values are equal only if they are the same one."""

    shape: tuple[int, ...]
    dtype: Any
    array: Any = None
    """Its entries, where the trace has them as a constant."""
    origin: "Equation | None" = None
    """What computes it, if it depends on constants alone."""

    @property
    def is_constant(self) -> bool:
        """Whether its entries depend on none of the function's arguments."""
        return self.array is not None or self.origin is not None

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One operation of JAX, such as `conv_general_dilated` or `add`."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: Mapping[str, Any]
    """Of the operation, such as `window_strides`."""
    primitive: Primitive | None
    """JAX's own; None for `EITHER`."""
    is_alternative: bool
    """Whether it belongs to a second or later branch of a choice, of which the first is in the list too."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """A function's equations in the order in which they were called."""

    inputs: tuple[Value, ...]
    """The leaves of all arguments."""
    equations: tuple[Equation, ...]
    outputs: Any
    """The tree that the function returns, each array as a value."""


def trace(function: Callable[..., Any], *args: Any) -> Trace:
    """Traces a pure function.

    Calls, `jax.checkpoint` and functions with derivatives of their own are inlined. A choice between branches becomes
    the equations of all of them and one named `EITHER`, but of what `cnnjax.ops` writes for one platform
    otherwise, what it is elsewhere stands alone; a loop stays one equation.

    Args:
        function: of trees of arrays, and gives one.
        args: its arguments, arrays or `jax.ShapeDtypeStruct`.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    inliner = _Inliner()
    inputs = [_value_of(variable.aval) for variable in closed.jaxpr.invars]
    outputs = inliner.run(closed.jaxpr, closed.consts, inputs)
    tree = jax.tree.structure(shapes)
    return Trace(tuple(inputs), tuple(inliner.equations), jax.tree.unflatten(tree, outputs))


def evaluate(value: Value) -> np.ndarray:
    """The entries of a value that depends on constants alone."""

    def compute() -> jax.Array:
        known: dict[Value, Any] = {}

        def get(value: Value) -> Any:
            if value.array is not None:
                return value.array
            if value not in known:
                equation = value.origin
                assert equation is not None, "evaluate takes constants"
                assert equation.primitive is not None
                found = equation.primitive.bind(*map(get, equation.inputs), **equation.params)
                several = equation.primitive.multiple_results
                known.update(zip(equation.outputs, found if several else [found], strict=True))
            return known[value]

        result: jax.Array = get(value)
        return result

    return np.asarray(jax.jit(compute)())


class _Inliner:
    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self._alternatives = 0

    def run(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """Appends the equations of a jaxpr, and returns its outputs."""
        values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, array in zip(jaxpr.constvars, consts, strict=True):
            values[variable] = _value_of(variable.aval, array)

        def read(atom: Any) -> Value:
            return _value_of(atom.aval, atom.val) if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            if equation.primitive.name in _CALLS:
                results = self._call(next(equation.params[key] for key in _CALLED if key in equation.params), operands)
            elif _is_written_otherwise(equation.params):
                results = self._call(equation.params["branches"][-1], operands[1:])
            elif equation.primitive.name == "cond":
                results = self._choose(equation.params["branches"], operands)
            else:
                results = [_value_of(variable.aval) for variable in equation.outvars]
                self._append(equation.primitive.name, operands, results, equation.params, equation.primitive)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _call(self, called: ClosedJaxpr | Jaxpr, operands: Sequence[Value]) -> list[Value]:
        if isinstance(called, ClosedJaxpr):
            return self.run(called.jaxpr, called.consts, operands)
        return self.run(called, (), operands)

    def _choose(self, branches: Sequence[ClosedJaxpr], operands: Sequence[Value]) -> list[Value]:
        which, *rest = operands
        found = []
        for index, branch in enumerate(branches):
            self._alternatives += index > 0
            found.append(self._call(branch, rest))
            self._alternatives -= index > 0
        results = [Value(value.shape, value.dtype) for value in found[0]]
        for result, *choices in zip(results, *found, strict=True):
            self._append(EITHER, [which, *choices], [result], {}, None)
        return results

    def _append(
        self,
        name: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        params: Mapping[str, Any],
        primitive: Primitive | None,
    ) -> None:
        equation = Equation(name, tuple(inputs), tuple(outputs), params, primitive, self._alternatives > 0)
        self.equations.append(equation)
        if primitive is not None and all(value.is_constant for value in inputs):
            for value in outputs:
                value.origin = equation


def _is_written_otherwise(params: Mapping[str, Any]) -> bool:
    """Whether the first of an equation's branches is set apart for one platform, as `cnnjax.ops` has it.

    Such a branch computes the same numbers as the last, which is plain.
    """
    if params.get("branches_platforms") is None:
        return False
    first = params["branches"][0].jaxpr.eqns
    return bool(first) and first[0].primitive.name == "optimization_barrier"


def _value_of(aval: Any, array: Any = None) -> Value:
    return Value(tuple(getattr(aval, "shape", ())), getattr(aval, "dtype", None), array)
