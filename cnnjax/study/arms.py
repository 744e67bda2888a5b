"""From a study's axes to its arms, each a checked config. Imports JAX only for a grid of phi."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from cnnjax.config import Config
from cnnjax.config_base import Section
from cnnjax.config_faults import kind_of
from cnnjax.config_files import Tree, check, check_as, config_hash, merge, merge_overrides
from cnnjax.errors import ConfigError
from cnnjax.registry import did_you_mean
from cnnjax.study.question import METRICS, SEED_STRIDE, Study, load_study, nest

_MOST_VALUES = 1000
_SEEDS = "seed: which seeds a study has is said by `seeds`, and all arms have them"


class Range(Section):
    """Numbers at equal distances, or at equal ratios with `count`."""

    start: float
    stop: float
    """The last one too, if a whole number of steps leads to it."""
    step: float | None = None
    count: Annotated[int, Field(ge=2, le=_MOST_VALUES)] | None = None
    """How many, each the same number of times the one before."""

    def values(self) -> list[float]:
        """All of them; whole ones as int, since a config tells them from fractions."""
        if (self.step is None) == (self.count is None):
            raise ConfigError("expected exactly one of step and count")
        if self.step is not None:
            steps = (self.stop - self.start) / self.step if self.step else -1.0
            if not 0 <= steps < _MOST_VALUES:
                raise ConfigError(f"step: {self.step:g} does not lead from {self.start:g} to {self.stop:g}")
            found = [round(self.start + index * self.step, 9) for index in range(int(steps + 1e-9) + 1)]
        else:
            assert self.count is not None
            if not (self.start > 0 and self.stop > 0):
                raise ConfigError("count: equal ratios need start and stop above 0")
            ratio = (self.stop / self.start) ** (1 / (self.count - 1))
            found = [round(self.start * ratio**index, 9) for index in range(self.count)]
        if not all(map(math.isfinite, found)):
            raise ConfigError(f"{self.start:g} and {self.stop:g} are too far apart to count between")
        return [int(value) if value == int(value) else value for value in found]


class PhiGrid(Section):
    """Compound scaling: phi by strategy, on the model and the image size that the arm has otherwise."""

    phi: tuple[float, ...]
    strategy: tuple[Literal["compound", "depth", "width", "resolution"], ...] = ("compound",)
    """At phi = 0 they are one and the same arm."""
    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15
    multiple: PositiveInt = 1
    """Image sizes are rounded to multiples of it."""


@dataclass(frozen=True)
class Choice:
    """One value of one axis."""

    label: str
    overrides: Tree
    """Dotted paths or sections, as in the file."""
    factors: Any = None
    """`cnnjax.scaling.Factors` and the image sizes' multiple, of a grid of phi."""


@dataclass(frozen=True)
class Arm:
    """One way in which a network is trained, with several seeds."""

    name: str
    config: Config
    seeds: tuple[int, ...]

    def config_of(self, seed: int) -> Config:
        """Its config with that seed."""
        return self.config.model_copy(update={"seed": seed})

    def folder_of(self, seed: int) -> str:
        """The name of that run's folder: it changes with whatever changes what the run computes."""
        return f"{slug(self.name)}-seed{seed}-{config_hash(self.config_of(seed))}"


def slug(name: str) -> str:
    """A name as a file's name."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("_.")


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Study, list[Arm]]:
    """A study's file and the arms that it asks for; none, where it asks for computations.

    Args:
        overrides: `section.key=value`, of the config that all arms share.

    Raises:
        ConfigError: an entry is unknown, of the wrong type or impossible, or there are more runs than the budget has.
    """
    study, shared = load_study(path)
    if "seed" in study.config or any(override.partition("=")[0].strip() == "seed" for override in overrides):
        raise ConfigError(_SEEDS)
    arms = expand(study, merge_overrides(shared, overrides))
    _check_names(study, arms)
    return study, arms


def expand(study: Study, shared: Mapping[str, Any]) -> list[Arm]:
    """All combinations of the axes' values, each laid on the shared config.

    Raises:
        ConfigError: see `read_study`.
    """
    if not study.axes:
        return []
    axes = [_choices(name, value) for name, value in study.axes.items()]
    combinations = math.prod(map(len, axes))
    runs = combinations * study.seed_count
    if runs > study.budget.runs:  # before any is made: they may be billions
        raise ConfigError(
            f"{combinations} arms with {study.seed_count} seeds are {runs} runs, and budget.runs allows "
            f"{study.budget.runs}; raise it, or take some away"
        )
    arms: dict[str, Arm] = {}
    folders: dict[str, str] = {}
    for number, combination in enumerate(itertools.product(*axes)):
        name = ", ".join(choice.label for choice in combination)
        tree = dict(shared)
        for choice in combination:
            if "seed" in choice.overrides:
                raise ConfigError(f"arm '{name}': {_SEEDS}")
            tree = merge(tree, nest(choice.overrides))
        for choice in combination:
            if choice.factors is not None:
                tree = merge(tree, _scaled(choice, tree))
        try:
            config = check(tree)
        except ConfigError as error:
            raise ConfigError("\n".join(f"arm '{name}': {line}" for line in str(error).split("\n"))) from None
        shift = number * SEED_STRIDE if study.design == "independent" else 0
        seeds = tuple((seed + shift) % 2**32 for seed in study.seed_list)
        if name in arms:
            raise ConfigError(f"axes: two arms are called '{name}'; name them apart")
        other = folders.setdefault(slug(name), name)
        if other != name:
            raise ConfigError(
                f"axes: the arms '{other}' and '{name}' would both be '{slug(name)}' as names of folders; name them "
                "apart by letters from a to z or digits"
            )
        arms[name] = Arm(name, config, seeds)
    used = [seed for arm in arms.values() for seed in arm.seeds]
    if study.design == "independent" and len(set(used)) < len(used):
        raise ConfigError(
            f"seeds: an independent design adds {SEED_STRIDE} to them with each arm, and then two arms share one; "
            "choose seeds that are closer to each other"
        )
    return list(arms.values())


def _check_names(study: Study, arms: Sequence[Arm]) -> None:
    """The arms and the metrics that hypotheses and the baseline speak of exist."""
    names = [arm.name for arm in arms]
    spoken_of = [("baseline", study.baseline)] if study.baseline is not None else []
    for index, hypothesis in enumerate(study.hypotheses):
        spoken_of += [(f"hypotheses[{index}]", name) for name in hypothesis.weights]
    for where, name in spoken_of:
        if name not in names:
            raise ConfigError(f"{where}: there is no arm '{name}'; {did_you_mean(name, names)}")
    if not arms:
        return
    metrics = [("metric", study.metric)]
    metrics += [(f"hypotheses[{i}].metric", each.metric) for i, each in enumerate(study.hypotheses) if each.metric]
    known = (*METRICS, *study.diagnostics)
    for where, metric in metrics:
        if metric.partition(".")[0] not in known:
            raise ConfigError(f"{where}: there is no '{metric}'; {did_you_mean(metric, known)}")


def _choices(axis: str, value: Any) -> list[Choice]:
    is_path = "." in axis or axis in Config.model_fields
    where = f"axes.{axis}"
    if isinstance(value, list):
        if not is_path:
            raise ConfigError(f"{where}: a list needs a path of the config before it, such as model.args.width")
        if not value:
            raise ConfigError(f"{where}: expected a value or more, got none")
        return _of_path(axis, value)
    if not isinstance(value, dict) or not value:
        raise ConfigError(
            f"{where}: expected a list of values, a range, named arms or a grid of phi, got {kind_of(value)}"
        )
    if is_path:
        try:
            return _of_path(axis, check_as(Range, value, where).values())
        except ConfigError as error:
            raise ConfigError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    if "phi" in value:
        return _of_phi(where, check_as(PhiGrid, value, where))
    for label, overrides in value.items():
        if not isinstance(overrides, dict):
            raise ConfigError(
                f"{where}.{label}: expected what it changes, such as {{model.args.lrn: off}}, got {kind_of(overrides)}"
            )
    return [Choice(str(label), overrides) for label, overrides in value.items()]


def _of_path(path: str, values: Sequence[Any]) -> list[Choice]:
    return [Choice(f"{path.rpartition('.')[2]}={value}", {path: value}) for value in values]


def _of_phi(where: str, grid: PhiGrid) -> list[Choice]:
    from cnnjax.scaling import Coefficients

    if not grid.phi or not grid.strategy:
        raise ConfigError(f"{where}: expected a phi and a strategy or more, got none")
    coefficients = Coefficients(grid.alpha, grid.beta, grid.gamma)
    choices = []
    for phi in grid.phi:
        for strategy in grid.strategy if phi else grid.strategy[:1]:
            label = f"{strategy} phi={phi:g}" if phi and len(grid.strategy) > 1 else f"phi={phi:g}"
            choices.append(Choice(label, {}, (coefficients.at(phi, strategy), grid.multiple)))
    return choices


def _scaled(choice: Choice, tree: Mapping[str, Any]) -> Tree:
    """The model's args and the image size that the factors give."""
    from cnnjax.scaling import scale

    factors, multiple = choice.factors
    config = check(tree)
    if config.data.image_size is None:
        raise ConfigError("data.image_size: a grid of phi needs a number, of the images at phi = 0")
    scaled = scale(
        config.model.name, factors, fields=config.model.args, image_size=config.data.image_size, multiple=multiple
    )
    return {"model": {"args": dict(scaled.args)}, "data": {"image_size": scaled.input_shape[0]}}
