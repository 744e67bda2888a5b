"""What scaled networks cost, counted and not by the formula, and the largest one within a budget."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from cnnjax.analysis.count import Known, count
from cnnjax.analysis.layers import without_compilation
from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.nn.network import Network
from cnnjax.scaling import Fit, Scaled, largest_phi

Quantity = Literal["params", "macs", "activation_bytes", "training_bytes"]
"""`activation_bytes` are of one image; `training_bytes` are `training_memory`'s, of a batch."""
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
_BYTES = 4


@dataclass(frozen=True)
class Stage:
    """A feature map of a network."""

    name: str
    channels: int
    repeats: int
    """Numbered modules (blocks, layers or convolutions) in the module of that name; 0 where it has none."""
    size: tuple[int, int]
    """Height and width."""


@dataclass(frozen=True)
class ScaledCost:
    """A scaled network and what it costs."""

    scaled: Scaled
    params: int
    macs: int
    """For one image."""
    activation_bytes: int | None = None
    """Of all layers' outputs for one image, in float32; None where nobody asked."""
    training_bytes: int | None = None
    """See `training_memory`."""


def training_memory(params: int, batch_stats: int, activation_bytes: int, batch: int) -> int:
    """Bytes on a device that trains in float32 with momentum: parameters, gradients, momenta, and all activations.

    A count from shapes: a compiler needs less where it fuses, and more for its own use.
    """
    return _BYTES * (3 * params + batch_stats) + batch * activation_bytes


def cost_of(scaled: Scaled, known: Known | None = None, *, activations: bool = False, batch: int = 1) -> ScaledCost:
    """Counts a scaled network.

    Args:
        known: see `cnnjax.analysis.count.count`.
        activations: also the activations, and what training on batches of `batch` images needs; takes longer.

    Raises:
        ConfigError: the network takes no such images.
    """
    network = create_model(scaled.name, **scaled.args)
    if not activations:
        counts = count(network, scaled.input_shape, known)
        return ScaledCost(scaled, counts.params, counts.macs)
    summary = summarize(network, scaled.input_shape)
    training = training_memory(summary.params, summary.batch_stats, summary.activation_bytes, batch)
    return ScaledCost(scaled, summary.params, summary.macs, summary.activation_bytes, training)


def stages_of(network: Network, input_shape: tuple[int, int, int]) -> list[Stage]:
    """The feature maps with their channels, and how many blocks make each, from shallow to deep."""
    network = without_compilation(network)
    names: list[str] = []

    def run(key: jax.Array, images: jax.Array) -> Any:
        outputs, variables = network.init_with_output(key, images, train=False)
        names.extend(outputs.features)
        return outputs.features, variables["params"]

    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    features, params = jax.eval_shape(run, jax.random.key(0), images)
    numbered = {name: sum(part[-1].isdigit() for part in params.get(name, {})) for name in names}
    return [Stage(name, features[name].shape[-1], numbered[name], features[name].shape[1:3]) for name in names]


def largest_within(
    budget: Mapping[Quantity, float], scaled_at: Callable[[float], Scaled], *, batch: int = 1, step: float = 0.01
) -> Fit[ScaledCost]:
    """The largest phi whose counted costs are within a budget.

    Args:
        budget: the most of some quantities.
        scaled_at: the network of a phi.
        batch: images of a batch, for `training_bytes`.
        step: phi is a multiple of it.

    Raises:
        ConfigError: an empty budget or one that nothing, or everything, is within.
    """
    if not budget:
        raise ConfigError(f"budget: expected at least one of {', '.join(QUANTITIES)}")
    known: Known = {}
    activations = bool({"activation_bytes", "training_bytes"} & budget.keys())

    def cost(phi: float) -> ScaledCost | None:
        scaled = scaled_at(phi)
        try:
            return cost_of(scaled, known, activations=activations, batch=batch)
        except ConfigError:
            if phi >= 0:
                raise
            return None  # images too small for the network

    return largest_phi(cost, lambda each: all(getattr(each, name) <= most for name, most in budget.items()), step)


def describe(networks: Sequence[tuple[float | None, Scaled]], base: Scaled) -> list[dict[str, Any]]:
    """Networks of several phi beside the one at phi = 0, as plain values for JSON.

    Args:
        networks: with phi, or None where the factors were chosen without it.

    Returns:
        For each: phi, depth, width and resolution (factors), model, args, input, params, macs, stages (name, channels,
        repeats); `macs_by_formula`, how many times the multiply-adds of `base` the factors promise;
        `macs_after_rounding`, the same of what rounding leaves of each stage's repeats, channels and map; and
        `macs_ratio`, as counted: it differs further since a stage's further blocks cost other than its first.
    """
    known: Known = {}
    macs_of_base, stages_of_base, shares = cost_of(base, known).macs, _stages(base), _shares(base)
    rows = []
    for phi, scaled in networks:
        cost, stages = cost_of(scaled, known), _stages(scaled)
        rows.append(
            {
                "phi": phi,
                **dataclasses.asdict(scaled.factors),
                "model": scaled.name,
                "args": dict(scaled.args),
                "input": list(scaled.input_shape),
                "params": cost.params,
                "macs": cost.macs,
                "macs_by_formula": scaled.factors.macs,
                "macs_after_rounding": _rounded(shares, stages, stages_of_base),
                "macs_ratio": cost.macs / macs_of_base,
                "stages": [dataclasses.asdict(stage) for stage in stages],
            }
        )
    return rows


def _stages(scaled: Scaled) -> list[Stage]:
    return stages_of(create_model(scaled.name, **scaled.args), scaled.input_shape)


def _rounded(shares: Mapping[str, float], stages: Sequence[Stage], of_base: Sequence[Stage]) -> float:
    """How many times the base's multiply-adds rounding leaves: each stage's repeats, channels and map for themselves,
    weighed by its share of the cost; layers beside the stages grow as all stages together."""
    before = {stage.name: stage for stage in of_base}
    growth = {}
    for now in stages:
        then = before[now.name]
        repeats = now.repeats / then.repeats if then.repeats else 1.0
        area = math.prod(now.size) / math.prod(then.size)
        growth[now.name] = repeats * (now.channels / then.channels) ** 2 * area
    known = sum(shares.get(name, 0.0) for name in growth)
    if not known:
        return sum(growth.values()) / len(growth)
    return sum(shares.get(name, 0.0) * factor for name, factor in growth.items()) / known


def _shares(scaled: Scaled) -> dict[str, float]:
    """Multiply-adds by top-level module."""
    shares: dict[str, float] = {}
    for layer in summarize(create_model(scaled.name, **scaled.args), scaled.input_shape).layers:
        module = layer.name.partition("/")[0]
        shares[module] = shares.get(module, 0.0) + layer.macs
    return shares
