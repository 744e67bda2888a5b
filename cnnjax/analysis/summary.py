"""What a network costs and sees: parameters, multiply-adds, connections, activations and receptive fields, layer by
layer, without running it.

Multiply-adds and connections are counted as `cnnjax.analysis.layers` says; receptive fields are those of
`cnnjax.analysis.receptive_field`. The pools are layers, too, although they are no modules.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from cnnjax.analysis.calls import BEGIN, END, Call, Recorder, Shape, marked_call
from cnnjax.analysis.equations import Trace, Value, trace
from cnnjax.analysis.layers import is_layer, layer_cost, not_counted, size_of, without_compilation
from cnnjax.analysis.pools import Pool, find_pools
from cnnjax.analysis.pyramid import FeatureMap, feature_maps
from cnnjax.analysis.receptive_field import ReceptiveField, fields_of_values
from cnnjax.nn.network import Network, Outputs


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One call of a layer."""

    name: str
    """The path of its parameters, such as `stage2/block1/conv2`; for a pool, that of its module and its kind."""
    kind: str
    """Its class, or a pool's function."""
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
    receptive_field: ReceptiveField | None = None
    """What its output sees of the image; None for a layer that does not see it in evaluation."""
    training_only: bool = False
    """Whether it is computed in training alone, as an auxiliary classifier's layers are."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Totals for one image in evaluation, and the layers in the order of their calls."""

    params: int
    """Trainable numbers, those of layers that only training computes among them."""
    batch_stats: int
    """Running means and variances, not trained."""
    macs: int
    connections: int
    activation_bytes: int
    """Outputs of all layers."""
    largest_activation_bytes: int
    """Output of the layer with the largest."""
    layers: tuple[LayerSummary, ...]
    """Those that only training computes come last."""
    features: tuple[FeatureMap, ...]
    """The feature maps, from shallow to deep."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return dataclasses.asdict(self)


def summarize(network: Network, input_shape: tuple[int, int, int]) -> Summary:
    """Counts what a network costs in evaluation, from shapes alone.

    Args:
        network: any network of `cnnjax.models`; whether it is scanned or rematerialised makes no difference.
        input_shape: (height, width, channels) of an image.

    Raises:
        ConfigError: the network takes no such image.
        TypeError: a layer holds parameters, and nothing says how to count it; or it is called in a loop.
    """
    network = without_compilation(network)
    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)

    initialised = Recorder(is_layer)
    with nn.intercept_methods(initialised):
        variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)
    params = variables.get("params", {})
    _require_all_counted(params, initialised.calls)

    evaluated = Recorder(is_layer)
    feature_names: list[str] = []

    def evaluate(variables: Any, images: jax.Array) -> Outputs:
        outputs: Outputs = network.apply(variables, images, train=False)  # type: ignore[assignment]
        feature_names.extend(outputs.features)
        return outputs

    with nn.intercept_methods(evaluated):
        traced = trace(evaluate, variables, images)

    field_of = fields_of_values(traced)
    layers = list(_layers_in_order(traced, evaluated.calls, params, field_of))
    called = {layer.name for layer in layers}
    in_training = [
        dataclasses.replace(_summarize_layer(call, params), training_only=True)
        for call in initialised.calls
        if call.is_layer and call.name not in called
    ]
    return Summary(
        params=size_of(params),
        batch_stats=size_of(variables.get("batch_stats", {})),
        macs=sum(layer.macs for layer in layers),
        connections=sum(layer.connections for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        largest_activation_bytes=max((layer.activation_bytes for layer in layers), default=0),
        layers=tuple(_held_once([*layers, *in_training])),
        features=tuple(feature_maps(feature_names, traced.outputs.features, field_of)),
    )


def _layers_in_order(
    traced: Trace, calls: Sequence[Call], params: Any, field_of: Callable[[Value], ReceptiveField | None]
) -> Iterator[LayerSummary]:
    """Layers and pools in the order of their equations."""
    pools = find_pools(traced.equations)
    names: Counter[str] = Counter()
    around: list[int] = []  # the calls that have begun and not ended; the first is that of the network itself
    seen: set[int] = set()
    for index, equation in enumerate(traced.equations):
        if (number := marked_call(equation, BEGIN)) is not None:
            around.append(number)
        elif (number := marked_call(equation, END)) is not None:
            del around[around.index(number) :]
            if calls[number].is_layer:
                seen.add(number)
                layer = _summarize_layer(calls[number], params)
                yield dataclasses.replace(layer, receptive_field=field_of(equation.inputs[0]))
        elif index in pools and around and not calls[around[-1]].is_layer:
            path = "/".join((*calls[around[-1]].module.path, pools[index].kind))
            names[path] += 1
            name = path if names[path] == 1 else f"{path}{names[path]}"
            yield _summarize_pool(name, pools[index], field_of(pools[index].output))
    for number, call in enumerate(calls):
        if call.is_layer and number not in seen:
            raise TypeError(f"'{call.name}' is called in a loop, and nothing says how often; write the loop out")


def _held_once(layers: Iterable[LayerSummary]) -> Iterator[LayerSummary]:
    seen: set[str] = set()
    for layer in layers:
        yield dataclasses.replace(layer, params=0) if layer.name in seen else layer
        seen.add(layer.name)


def _summarize_layer(call: Call, params: Any) -> LayerSummary:
    module, own = call.module, _at(params, call.module.path)
    macs, connections = layer_cost(module, own, call.input_shape, call.output_shape)
    kernel = _pair(getattr(module, "kernel_size", None))
    return LayerSummary(
        name=call.name,
        kind=type(module).__name__,
        output_shape=call.output_shape,
        kernel=kernel,
        stride=None if kernel is None else _pair(getattr(module, "strides", None) or 1),
        params=size_of(own),
        macs=macs,
        connections=connections,
        activation_bytes=call.output_bytes,
    )


def _summarize_pool(name: str, pool: Pool, field: ReceptiveField | None) -> LayerSummary:
    output_shape = pool.output.shape[1:]
    return LayerSummary(
        name=name,
        kind=pool.kind,
        output_shape=output_shape,
        kernel=pool.window,
        stride=pool.stride,
        params=0,
        macs=0,
        connections=math.prod(output_shape) * math.prod(pool.window),
        activation_bytes=pool.output.bytes,
        receptive_field=field,
    )


def _require_all_counted(params: Any, calls: Sequence[Call]) -> None:
    """TypeError where parameters belong to a module that is no layer."""
    modules = {call.module.path: call for call in calls}
    held: dict[tuple[str, ...], list[str]] = {}
    for path in traverse_util.flatten_dict(params):
        parents = [path[:length] for length in range(len(path))]
        if not any(parent in modules and modules[parent].is_layer for parent in parents):
            held.setdefault(path[:-1], []).append(path[-1])
    for path, names in held.items():
        raise not_counted(modules[path].module if path in modules else None, path, names)


def _at(params: Any, path: Sequence[str]) -> Any:
    """The parameters of a module."""
    for name in path:
        params = params.get(name, {})
    return params


def _pair(size: Any) -> Shape | None:
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else tuple(size)
