"""What a network costs, in total alone: much quicker than a summary, for tables and for searches over many networks.

A module that is called with the same fields and the shapes of an earlier call costs the same again, so that each
different block is traced once.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from cnnjax.analysis.layers import Shape, is_layer, layer_cost, not_counted, size_of, without_compilation
from cnnjax.nn.network import Network

_MARK = "cnnjax.analysis.count"
_LOOPS = ("scan", "while")

Known = dict[Any, tuple["Counts", Any]]
"""What calls cost, and the shapes of what they returned; of `count` alone."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Totals for one image in evaluation, with the conventions of `cnnjax.analysis.layers`."""

    params: int = 0
    """Trainable numbers, those of layers that only training computes among them."""
    batch_stats: int = 0
    """Running means and variances, not trained."""
    macs: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.params + other.params, self.batch_stats + other.batch_stats, self.macs + other.macs)


def count(network: Network, input_shape: tuple[int, int, int], known: Known | None = None) -> Counts:
    """The totals of `cnnjax.summarize`, from shapes alone.

    Args:
        network: any network of `cnnjax.models`; whether it is scanned or rematerialised makes no difference.
        input_shape: (height, width, channels) of an image.
        known: an empty dict at first; the same one for several networks that have blocks in common saves time.

    Raises:
        ConfigError: the network takes no such image.
        TypeError: a layer holds parameters, and nothing says how to count it; or it is called in a loop.
    """
    network = without_compilation(network)
    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)

    def initialise(key: jax.Array, images: jax.Array) -> Any:
        return network.init(key, images, train=False)

    def evaluate(key: jax.Array, images: jax.Array) -> Any:
        # Parameters come into being as they are used: those of layers that only training computes do not.
        return network.apply({}, images, train=False, mutable=True, rngs={"params": key})

    known = {} if known is None else known

    def run(function: Callable[..., Any]) -> Counts:
        found = dict(known)
        counter = _Counter(found)
        with nn.intercept_methods(counter):
            traced = jax.make_jaxpr(function)(jax.random.key(0), images)
        _require_no_loops(traced.jaxpr, False)
        known.update(found)  # of what was refused, nothing is known
        return counter.counts

    everything = run(initialise)
    return dataclasses.replace(everything, macs=run(evaluate).macs)


class _Counter:
    """Adds up what the modules that are called cost, and takes from `known` what a like call did."""

    def __init__(self, known: Known) -> None:
        self.counts = Counts()
        """Of what has been called so far in the module that is being called."""
        self._known = known
        self._called: set[tuple[str, ...]] = set()

    def __call__(
        self,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        module, around = context.module, self.counts
        key = _key(module, args, kwargs)
        if key is not None and key in self._known:
            counts, shapes = self._known[key]
            output = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        else:
            self.counts = Counts()
            output = call(*args, **kwargs)
            counts = _count_called(module, self.counts, (args, kwargs), output)
            if key is not None:
                shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), output)
                self._known[key] = counts, shapes
        for array in jax.tree.leaves(output):
            checkpoint_name(array, _MARK)
        if module.path in self._called:  # its parameters are those that it had before
            counts = Counts(macs=counts.macs)
        self._called.add(module.path)
        self.counts = around + counts
        return output


def _count_called(module: nn.Module, inner: Counts, inputs: Any, output: Any) -> Counts:
    """What a call of a module has cost, in which modules were called that cost `inner`."""
    params, stats = (module.variables.get(collection, {}) for collection in ("params", "batch_stats"))
    if is_layer(module):
        macs, _ = layer_cost(module, params, _first_shape(inputs), _first_shape(output))
        return Counts(size_of(params), size_of(stats), macs)
    if own := _arrays(params):
        raise not_counted(module, module.path, list(own))
    return inner + Counts(batch_stats=size_of(_arrays(stats)))


def _arrays(variables: Mapping[str, Any]) -> dict[str, jax.Array]:
    """A module's own variables, without those of the modules in it."""
    return {name: value for name, value in variables.items() if isinstance(value, jax.Array)}


def _key(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Equal for calls that cost the same; None for what cannot be compared."""
    names = [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]
    fields = tuple(getattr(module, name) for name in names)
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf for leaf in leaves)
    # A layer is the same while it is initialised; a block may call more of them then.
    phase = None if is_layer(module) else module.is_initializing()
    key = (type(module), fields, arrays, tree, phase)
    if any(isinstance(leaf, nn.Module) for leaf in jax.tree.leaves((fields, leaves))):
        return None  # it may hold what another module holds, too
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _first_shape(tree: Any) -> Shape:
    """The first array's, for one image."""
    return next(leaf.shape[1:] for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))


def _require_no_loops(jaxpr: Any, inside: bool) -> None:
    """TypeError where a module is called in a loop."""
    for equation in jaxpr.eqns:
        if inside and equation.primitive.name == "name" and equation.params["name"] == _MARK:
            raise TypeError("a module is called in a loop, and nothing says how often; write the loop out")
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                _require_no_loops(inner, inside or equation.primitive.name in _LOOPS)
