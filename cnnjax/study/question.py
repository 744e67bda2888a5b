"""What a study's file may contain: the question, its arms and seeds, and what is claimed. Imports no JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from cnnjax.config_base import Section
from cnnjax.config_faults import kind_of
from cnnjax.config_files import Tree, check_as, merge, read_tree, read_yaml
from cnnjax.errors import ConfigError
from cnnjax.registry import unknown

Together = Literal["auto", "separate", "vmap", "map", "devices"]
Cost = Literal["macs", "params", "seconds"]
COSTS: tuple[Cost, ...] = get_args(Cost)
# What every run is measured by, mean_iou only where pixels have classes; diagnostics come beside them.
METRICS = ("test_error", "training_error", "gap", "test_loss", "training_loss", "mean_iou", *COSTS)
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# So far apart are the seeds of two arms that share none.
SEED_STRIDE = 100_000


class Region(Section):
    """Where a number is claimed to be: below or above something, or between two numbers."""

    below: float | None = None
    above: float | None = None
    within: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("below", "above", "within") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of below, above, within; got {' and '.join(given) or 'none of them'}"
            )
        if self.within is not None and not self.within[0] < self.within[1]:
            raise ValueError(f"within: expected the smaller number first, got {list(self.within)}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The region's ends, infinite where it has none."""
        if self.within is not None:
            return self.within
        return (
            self.above if self.above is not None else float("-inf"),
            self.below if self.below is not None else float("inf"),
        )

    def __str__(self) -> str:
        if self.within is not None:
            return f"between {self.within[0]:g} and {self.within[1]:g}"
        return f"below {self.below:g}" if self.below is not None else f"above {self.above:g}"


class Hypothesis(Section):
    """One claim on one number: a difference of two arms, a weighted sum of several, an arm's mean, or an exponent."""

    claim: str
    """A sentence."""
    metric: str | None = None
    """Another than the study's."""
    difference: tuple[str, str] | None = None
    """Two arms: the first one's mean less the second one's."""
    contrast: dict[str, float] | None = None
    """Arms with their weights, such as {plain56: 1, plain20: -1}."""
    mean: str | None = None
    """One arm."""
    exponent: str | None = None
    """One of the study's `power_laws`: by which power of the cost the metric changes."""
    expect: Region

    @model_validator(mode="after")
    def _one(self) -> Self:
        kinds = ("difference", "contrast", "mean", "exponent")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(kinds)}; got {' and '.join(given) or 'none of them'}")
        if self.difference is not None and self.difference[0] == self.difference[1]:
            raise ValueError(f"difference: expected two arms, got '{self.difference[0]}' twice")
        if self.contrast is not None and not any(self.contrast.values()):
            raise ValueError("contrast: expected arms with their weights, such as {plain56: 1, plain20: -1}")
        return self

    @property
    def weights(self) -> Mapping[str, float]:
        """The arms whose weighted sum is the number; empty for an exponent."""
        if self.difference is not None:
            return {self.difference[0]: 1.0, self.difference[1]: -1.0}
        return self.contrast or ({self.mean: 1.0} if self.mean is not None else {})


class PowerLaw(Section):
    """Arms whose means are fitted by metric = factor * cost ** exponent."""

    arms: tuple[str, ...]
    """Their names, with * and ? as wildcards."""
    cost: Cost = "macs"


class Computation(Section):
    """A number that the package computes without training: see `cnnjax.study.arithmetic`."""

    claim: str
    """A sentence."""
    name: str | None = None
    """By which another's `of` refers to it."""
    compute: dict[str, Any]
    """A function of `cnnjax.study.arithmetic` and its arguments."""
    expect: float | tuple[float, ...]
    within: NonNegativeFloat = 0.0
    """How far off it may be, such as half a unit of the last digit that is quoted."""


class Budget(Section):
    """What a study may cost; beyond it no run is begun."""

    minutes: PositiveFloat | None = None
    """Of training, over all runs."""
    runs: Annotated[int, Field(gt=0, le=SEED_STRIDE)] = 200
    """Arms times seeds; more are an error before anything starts."""


class Study(Section):
    """One question: either arms that are trained, or computations."""

    name: str
    question: str
    claim: str = ""
    """What is claimed, in a sentence or two."""
    source: str = ""
    """Who claims it, and where."""
    reduction: str = ""
    """How this differs from what the source did: data, size, length."""
    config: dict[str, Any] = Field(default_factory=dict)
    """What all arms share, as in a file of `configs/train`."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """Any path of the config with its values, named arms, or a grid of phi; all are crossed."""
    seeds: PositiveInt | tuple[Seed, ...] = 5
    """How many, from 0 on; or which."""
    design: Literal["paired", "independent"] = "paired"
    """Whether a seed's runs start alike and see the same order in all arms, or each arm has seeds of its own."""
    metric: str = "test_error"
    """What is compared; errors are in percent."""
    baseline: str | None = None
    """The arm that the others are compared with; by default the first."""
    hypotheses: tuple[Hypothesis, ...] = ()
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of intervals, and of verdicts after Holm's correction over the hypotheses."""
    power_laws: dict[str, PowerLaw] = Field(default_factory=dict)
    """Fits of the metric, by name."""
    diagnostics: tuple[Literal["gradient_norm", "activations", "dead_units"], ...] = ()
    together: Together = "separate"
    """How an arm's seeds are trained: one after the other, or several in one program."""
    budget: Budget = Budget()
    computations: tuple[Computation, ...] = ()

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if bool(self.axes) == bool(self.computations):
            raise ValueError("expected either axes, whose arms are trained, or computations")
        if isinstance(self.seeds, tuple) and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ValueError(f"seeds: expected some, each once, got {list(self.seeds)}")
        for each in self.hypotheses:
            if each.exponent is not None and each.exponent not in self.power_laws:
                raise ValueError(f"exponent: {unknown('power law', each.exponent, self.power_laws)}")
        return self

    @property
    def seed_count(self) -> int:
        """How many seeds."""
        return self.seeds if isinstance(self.seeds, int) else len(self.seeds)

    @property
    def seed_list(self) -> tuple[int, ...]:
        """All seeds."""
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self.seeds))


def is_study(path: Path) -> bool:
    """Whether a file asks a question, and is not a single run's; ConfigError where it cannot be read."""
    return "question" in read_yaml(path)


def load_study(path: str | Path) -> tuple[Study, Tree]:
    """Reads a study's file.

    Returns:
        The study, and the config that its arms start from, not yet checked: the file `base` with `config` on it.

    Raises:
        ConfigError: the file cannot be read, or an entry is unknown, of the wrong type or impossible.
    """
    path = Path(path)
    tree = read_yaml(path)
    tree.setdefault("name", path.stem)
    base = tree.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the name of a file in quotes or bare, such as ../train/x.yaml")
    study = check_as(Study, tree)
    shared = read_tree(path.parent / base) if base is not None else {}
    return study, merge({"name": study.name, **shared}, nest(study.config))


def nest(overrides: Mapping[str, Any]) -> Tree:
    """A mapping with dotted paths among its keys as sections within sections.

    Raises:
        ConfigError: a path goes through something that is no section.
    """
    tree: Tree = {}
    for path, value in overrides.items():
        *sections, last = path.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"'{path}': '{section}' is no section here, since it is {kind_of(inner)} elsewhere")
        if isinstance(value, Mapping) and isinstance(inner.get(last), dict):
            inner[last] |= value
        else:
            inner[last] = dict(value) if isinstance(value, Mapping) else value
    return tree
