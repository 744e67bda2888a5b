"""Compound scaling: depth, width and resolution of any network by one number, phi.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946, section
3: depth alpha^phi, width beta^phi, resolution gamma^phi, with alpha * beta^2 * gamma^2 about 2, so that the
multiply-adds double with each unit of phi. Pure functions; `cnnjax.analysis.scaled` counts what scaled networks cost.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from cnnjax.errors import ConfigError
from cnnjax.models import FAMILIES, check_args, get_variant
from cnnjax.models.efficientnet import SCALING

Strategy = Literal["compound", "depth", "width", "resolution"]
"""All three together, or one of them alone for as many multiply-adds."""
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
# Of a coefficient, and of phi either way: far beyond what can be computed.
_LARGEST, _FARTHEST = 10.0, 30.0
_LARGEST_FACTOR = 100.0


@dataclass(frozen=True)
class Factors:
    """How many times deeper, wider and larger."""

    depth: float = 1.0
    """Of each stage's blocks; what it gives is rounded up."""
    width: float = 1.0
    """Of all layers' channels; what it gives is rounded as `cnnjax.nn.rounding` says."""
    resolution: float = 1.0
    """Of the images' height and width."""

    @property
    def macs(self) -> float:
        """How many times as many multiply-adds, by the paper's formula: depth * width^2 * resolution^2."""
        return self.depth * self.width**2 * self.resolution**2


def parse_factors(text: str) -> Factors:
    """Of `depth=2,resolution=1.3`; what is not named stays as it is.

    Raises:
        ConfigError: an unknown name, one that is given twice, or no number above 0 and up to 100.
    """
    names = [field.name for field in dataclasses.fields(Factors)]
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in names or name in values:
            raise ConfigError(f"factors: expected depth, width and resolution, each once, got '{name}' in '{text}'")
        try:
            values[name] = float(number)
        except ValueError:
            values[name] = 0.0
        if not 0 < values[name] <= _LARGEST_FACTOR:
            raise ConfigError(f"factors: {name}: expected a number above 0 and up to 100, got '{number}'")
    return Factors(**values)


@dataclass(frozen=True)
class Coefficients:
    """What depth, width and resolution are multiplied by for each unit of phi; the defaults are EfficientNet's."""

    alpha: float = 1.2
    """Of the depth."""
    beta: float = 1.1
    """Of the width."""
    gamma: float = 1.15
    """Of the resolution."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 1 <= value <= _LARGEST:
                raise ConfigError(f"{name}: expected a number from 1 to {_LARGEST:g}, got {value:g}")

    @property
    def growth(self) -> float:
        """Of the multiply-adds for each unit of phi, alpha * beta^2 * gamma^2; the paper wants about 2."""
        return Factors(self.alpha, self.beta, self.gamma).macs

    def at(self, phi: float, strategy: Strategy = "compound") -> Factors:
        """The factors of a phi, which may be fractional, and negative for smaller networks.

        Args:
            strategy: one dimension alone takes all the growth that compound scaling spreads over the three.

        Raises:
            ConfigError: a phi that is no number from -30 to 30.
        """
        if not abs(phi) <= _FARTHEST:
            raise ConfigError(f"phi: expected a number from {-_FARTHEST:g} to {_FARTHEST:g}, got {phi:g}")
        total = self.growth**phi
        if strategy == "depth":
            return Factors(depth=total)
        if strategy == "width":
            return Factors(width=math.sqrt(total))
        if strategy == "resolution":
            return Factors(resolution=math.sqrt(total))
        return Factors(self.alpha**phi, self.beta**phi, self.gamma**phi)


@dataclass(frozen=True)
class Scaled:
    """A network of another size: what `create_model` takes, and its images."""

    name: str
    """A variant."""
    args: Mapping[str, Any]
    """The network's fields that differ from the variant's."""
    input_shape: tuple[int, int, int]
    """(height, width, channels)."""
    factors: Factors


def base_of(name: str) -> str:
    """The variant of that name; for a family's name its first one, such as `efficientnet_b0` for `efficientnet`."""
    if name in FAMILIES:
        name = FAMILIES[name][0]
    get_variant(name)  # raises where there is none
    return name


def scale(
    name: str,
    factors: Factors,
    *,
    fields: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    multiple: int = 1,
) -> Scaled:
    """A network deeper, wider and on larger images.

    Args:
        name: a variant or a family; its own `width` and `depth` are multiplied.
        fields: others of the network's fields, as in `model.args`.
        image_size: height and width at factor 1; by default the variant's own.
        multiple: image sizes are rounded to multiples of it.

    Raises:
        ConfigError: an unknown name or field, or fields that do not go with another width.
    """
    name = base_of(name)
    variant, given = get_variant(name), check_args(name, fields or {}, name)
    usual = {field.name: field.default for field in dataclasses.fields(variant.network)}
    args = dict(given)
    for dimension in ("depth", "width"):
        base = given.get(dimension, variant.args.get(dimension, usual[dimension]))
        factor = getattr(factors, dimension)
        if factor != 1:
            args[dimension] = base * factor
    size = image_size or variant.input_shape[0]
    if factors.resolution != 1:
        size = max(multiple, math.floor(size * factors.resolution / multiple + 0.5) * multiple)
    return Scaled(name, check_args(name, args, name), (size, size, variant.input_shape[2]), factors)


def released(phi: float, family: Literal["b", "lite"] = "b") -> Scaled:
    """EfficientNet's B0 to B7 (or Lite0 to Lite4) as the authors released them, which are not what the formula gives.

    Raises:
        ConfigError: there is none of that phi.
    """
    known = released_phis(family)
    if phi not in known:
        raise ConfigError(
            f"phi: the release has {known[0]} to {known[-1]} in whole numbers, got {phi:g}; --mode formula any"
        )
    width, depth, size, _ = SCALING[f"{family}{phi:g}"]
    name, base = f"efficientnet_{family}{phi:g}", SCALING[f"{family}0"][2]
    return Scaled(name, {}, get_variant(name).input_shape, Factors(depth, width, size / base))


def released_phis(family: Literal["b", "lite"] = "b") -> list[int]:
    """Of the networks in the release, from 0 on."""
    keys = [key.removeprefix(family) for key in SCALING if key.startswith(family)]
    return sorted(int(key) for key in keys if key.isdigit())


def grid(step: float = 0.05, tolerance: float = 0.1, growth: float = 2.0) -> list[Coefficients]:
    """The coefficients among which the paper searched at phi = 1: multiples of `step` with about that growth.

    Args:
        tolerance: how far alpha * beta^2 * gamma^2 may be from `growth`.

    Raises:
        ConfigError: a step that is not above 0.
    """
    if not step > 0:
        raise ConfigError(f"step: expected a number above 0, got {step}")
    most = growth + tolerance
    values = [1 + index * step for index in range(math.floor((most - 1) / step + 1e-9) + 1)]
    every = (Coefficients(*(round(value, 9) for value in point)) for point in itertools.product(values, repeat=3))
    return [each for each in every if abs(each.growth - growth) <= tolerance + 1e-9]


Cost = TypeVar("Cost")


@dataclass(frozen=True)
class Fit(Generic[Cost]):
    """The largest network within a budget, and the next larger one, which is not."""

    phi: float
    cost: Cost
    next_phi: float
    next_cost: Cost


def largest_phi(cost_of: Callable[[float], Cost | None], fits: Callable[[Cost], bool], step: float = 0.01) -> Fit[Cost]:
    """The largest phi, in multiples of `step`, whose cost is within a budget.

    Args:
        cost_of: counts the network of a phi, larger ones costing more; None where it would be too small to be.
        fits: whether that is within the budget.

    Raises:
        ConfigError: no network is small enough, or all are; or a step that is not above 0.
    """
    if not step > 0:
        raise ConfigError(f"step: expected a number above 0, got {step:g}")
    known: dict[int, Cost | None] = {}

    def cost(index: int) -> Cost | None:
        if index not in known:
            known[index] = cost_of(round(index * step, 9))
        return known[index]

    def within(index: int) -> bool:
        found = cost(index)
        return found is None or fits(found)

    low, high, stride = 0, 0, max(1, round(1 / step))
    if within(0):
        while within(high):
            low, high = high, high + stride
            if high * step > _FARTHEST:
                raise ConfigError(f"budget: even phi = {_FARTHEST:g} is within it; give a smaller one")
    else:
        while not within(low):
            low, high = low - stride, low
            if low * step < -_FARTHEST:
                raise ConfigError(f"budget: even phi = {-_FARTHEST:g} is above it; give a larger one")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    found, beyond = cost(low), cost(high)
    if found is None:
        raise ConfigError(f"budget: the smallest network there is, at phi = {high * step:g}, is above it; give more")
    assert beyond is not None
    return Fit(round(low * step, 9), found, round(high * step, 9), beyond)
