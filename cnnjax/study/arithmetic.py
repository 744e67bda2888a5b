"""Numbers that papers and courses quote, computed by the package's own layers and counted by its own analysis.

A study's `computations` each name one of `FUNCTIONS`, with the arguments that its class here has as fields.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
from flax import linen as nn
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from cnnjax.analysis.summary import LayerSummary, Summary, summarize
from cnnjax.config_base import Section
from cnnjax.config_files import check_as
from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant
from cnnjax.nn.layers import Layers, SqueezeExcite
from cnnjax.nn.network import Network, Outputs
from cnnjax.nn.residual import Residual
from cnnjax.nn.separable import SeparableConv
from cnnjax.ops.padding import output_size, pad_amounts
from cnnjax.ops.pooling import global_average_pool
from cnnjax.registry import unknown
from cnnjax.scaling import Coefficients
from cnnjax.study.question import Computation, Study

Number = float | tuple[float, ...]
Known = Mapping[str, Number]
"""Results of named computations so far."""


class Layer(Section):
    """One layer of a `Chain`: exactly one of the entries."""

    conv: PositiveInt | None = None
    """Channels of a convolution without bias that keeps the size."""
    kernel: PositiveInt = 3
    """Of `conv`."""
    dense: PositiveInt | None = None
    """Units, without bias, on the whole map."""
    pool: Literal["global_average"] | None = None
    separable: PositiveInt | None = None
    """Channels of a depthwise separable 3x3 convolution with BatchNorm."""
    squeeze_excite: PositiveInt | None = None
    """Hidden width."""
    basic: PositiveInt | None = None
    """Channels of a residual block of two 3x3 convolutions."""
    bottleneck: PositiveInt | None = None
    """Channels around a bottleneck block."""
    inner: PositiveInt | None = None
    """Channels of a bottleneck's 3x3; by default a quarter."""
    cardinality: PositiveInt = 1
    """Groups of a bottleneck's 3x3."""

    def apply(self, x: jax.Array, name: str) -> jax.Array:
        """The layer on (1, height, width, channels), its parameters under `name`."""
        layers = Layers(train=False)
        if self.conv is not None:
            return nn.Conv(self.conv, (self.kernel, self.kernel), use_bias=False, name=name)(x)
        if self.dense is not None:
            return nn.Dense(self.dense, use_bias=False, name=name)(x.reshape(len(x), -1))
        if self.separable is not None:
            return SeparableConv(layers, self.separable, name=name)(x)
        if self.squeeze_excite is not None:
            return SqueezeExcite(layers, self.squeeze_excite, name=name)(x)
        if self.basic is not None:
            return Residual(
                layers, features=self.basic, bottleneck=False, inner=self.basic, reduced=self.basic, name=name
            )(x, None)
        if self.bottleneck is not None:
            inner = self.inner or self.bottleneck // 4
            return Residual(
                layers, features=self.bottleneck, bottleneck=True, inner=inner, reduced=inner,
                cardinality=self.cardinality, name=name,
            )(x, None)  # fmt: skip
        if self.pool is None:
            raise ConfigError(
                "layers: a layer needs one of conv, dense, pool, separable, squeeze_excite, basic, bottleneck"
            )
        return global_average_pool(x)


class _Chain(Network, kw_only=True):
    steps: tuple[Layer, ...]

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        x = images
        for index, step in enumerate(self.steps):
            x = step.apply(x, f"layer{index}")
        return Outputs(logits=x, aux={}, features={"last": x} if x.ndim == 4 else {})


class Chain(Section):
    """Layers one after the other: what they cost, in all, each for itself, or how far the last one sees."""

    input: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Height, width and channels."""
    layers: tuple[Layer, ...]
    of: Literal["params", "weights", "macs", "receptive_field"]
    """Weights are the convolutions' parameters."""
    each: bool = False
    """Each layer's that has some, instead of the sum."""

    def value(self, known: Known) -> Number:
        """By `cnnjax.summarize`."""
        summary = summarize(_Chain(steps=self.layers), self.input)
        if self.of == "receptive_field":
            size = summary.features[-1].receptive_field.size
            return float(size[0]) if size is not None else math.inf
        return _counted(summary, "params" if self.of == "weights" else self.of, self.of == "weights", self.each)


def _counted(summary: Summary, of: str, only_convolutions: bool, each: bool) -> Number:
    chosen = [layer for layer in summary.layers if not only_convolutions or layer.kind == "Conv"]
    numbers = [float(getattr(layer, of)) for layer in chosen]
    return tuple(number for number in numbers if number) if each else sum(numbers)


class Model(Section):
    """A registered network: what it, or some of its layers, have."""

    name: str
    of: Literal["params", "macs", "connections", "channels"]
    """Channels: of the feature maps, or of the named layers' outputs."""
    args: dict[str, Any] = Field(default_factory=dict)
    layers: tuple[str, ...] = ()
    """Names of layers, for a number each; none for the whole network's."""

    def value(self, known: Known) -> Number:
        """By `cnnjax.summarize`, on images of the network's own size."""
        summary = summarize(create_model(self.name, **self.args), get_variant(self.name).input_shape)
        if not self.layers:
            if self.of == "channels":
                return tuple(float(each.channels) for each in summary.features)
            return float(getattr(summary, self.of))
        by_name: dict[str, LayerSummary] = {layer.name: layer for layer in summary.layers}
        for name in self.layers:
            if name not in by_name:
                raise ConfigError(f"layers: {unknown('layer', name, by_name)}")
        found = [by_name[name] for name in self.layers]
        return tuple(
            float(each.output_shape[-1] if self.of == "channels" else getattr(each, self.of)) for each in found
        )


class OutputSize(Section):
    """How many windows fit."""

    size: PositiveInt
    window: PositiveInt
    stride: PositiveInt = 1
    padding: Literal["ceil", "same", "valid"] | NonNegativeInt = 0

    def value(self, known: Known) -> Number:
        """By `cnnjax.ops.padding`."""
        return float(output_size(self.size, self.window, self.stride, self.padding))


class SamePadding(Section):
    """What TensorFlow puts before and after."""

    size: PositiveInt
    window: PositiveInt
    stride: PositiveInt

    def value(self, known: Known) -> Number:
        """By `cnnjax.ops.padding`."""
        pads, _ = pad_amounts("same", (self.size,) * 2, (self.window,) * 2, (self.stride,) * 2)
        return tuple(map(float, pads))


class Growth(Section):
    """alpha * beta^2 * gamma^2."""

    alpha: PositiveFloat
    beta: PositiveFloat
    gamma: PositiveFloat

    def value(self, known: Known) -> Number:
        """By `cnnjax.scaling`."""
        return Coefficients(self.alpha, self.beta, self.gamma).growth


class Ratio(Section):
    """The first of two named computations, divided by the second."""

    of: tuple[str, str]

    def value(self, known: Known) -> Number:
        """From their results."""
        first, second = _single(self.of[0], known), _single(self.of[1], known)
        return first / second if second else math.inf


class Difference(Section):
    """The first of two named computations, less the second."""

    of: tuple[str, str]

    def value(self, known: Known) -> Number:
        """From their results."""
        return _single(self.of[0], known) - _single(self.of[1], known)


def _single(name: str, known: Known) -> float:
    if name not in known:
        raise ConfigError(f"of: {unknown('computation', name, known)}; name it above this one")
    number = known[name]
    if isinstance(number, tuple):
        raise ConfigError(f"of: '{name}' is {len(number)} numbers, expected one")
    return number


FUNCTIONS: dict[str, type[Section]] = {
    "chain": Chain,
    "model": Model,
    "output_size": OutputSize,
    "same_padding": SamePadding,
    "growth": Growth,
    "ratio": Ratio,
    "difference": Difference,
}


@dataclass(frozen=True)
class Computed:
    """A claim with what came out."""

    claim: str
    verdict: Literal["reproduced", "not reproduced"]
    expected: Number
    within: float
    computed: Number


def compute(study: Study) -> list[Computed]:
    """All of a study's computations, in their order.

    Raises:
        ConfigError: one names an unknown function, argument, layer or computation.
    """
    known: dict[str, Number] = {}
    found = []
    for index, each in enumerate(study.computations):
        where = f"computations[{index}].compute"
        number = _value(each, known, where)
        if each.name is not None:
            known[each.name] = number
        found.append(Computed(each.claim, _verdict(each, number), each.expect, each.within, number))
    return found


def _value(computation: Computation, known: Known, where: str) -> Number:
    if len(computation.compute) != 1:
        raise ConfigError(f"{where}: expected one function with its arguments, got {len(computation.compute)}")
    ((name, arguments),) = computation.compute.items()
    if name not in FUNCTIONS:
        raise ConfigError(f"{where}: {unknown('function', name, FUNCTIONS)}")
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"{where}.{name}: expected a mapping of its arguments, got {arguments!r}")
    function: Any = check_as(FUNCTIONS[name], arguments, f"{where}.{name}")
    try:
        number: Number = function.value(known)
    except ConfigError as error:
        raise ConfigError(f"{where}.{name}: {error}") from None
    return number


def _verdict(computation: Computation, number: Number) -> Literal["reproduced", "not reproduced"]:
    expected, came = _all(computation.expect), _all(number)
    near = len(expected) == len(came) and all(
        abs(one - other) <= computation.within + 1e-12 * abs(one) for one, other in zip(expected, came, strict=True)
    )
    return "reproduced" if near else "not reproduced"


def _all(number: Number) -> tuple[float, ...]:
    return number if isinstance(number, tuple) else (number,)


def describe_computed(found: list[Computed]) -> list[dict[str, Any]]:
    """The same as plain values for JSON."""
    return [dataclasses.asdict(each) for each in found]


def in_words(number: Number) -> str:
    """`51,380,224`, `1.815`, or several of them."""
    parts = [f"{each:,.0f}" if each == round(each) else f"{each:,.7g}" for each in _all(number)]
    return ", ".join(parts)
