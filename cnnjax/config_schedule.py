"""How long something lasts, and the learning rate's way through a run. Imports no JAX."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cnnjax.config_base import Section

_MOST_STEPS = 2**31 - 1
"""A state counts them in 32 bits."""


class Duration(Section):
    """A length of training in exactly one unit."""

    steps: Annotated[int, Field(gt=0, le=_MOST_STEPS)] | None = None
    """Optimizer updates."""
    epochs: Annotated[float, Field(gt=0, le=_MOST_STEPS)] | None = None
    """Passes over the training set."""
    examples: Annotated[int, Field(gt=0, lt=2**53)] | None = None
    """Training examples seen, repeats counted."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [unit for unit in ("steps", "epochs", "examples") if getattr(self, unit) is not None]
        if len(given) != 1:
            came = " and ".join(given) if given else "none of them"
            raise ValueError(f"expected exactly one of steps, epochs, examples; got {came}")
        return self

    def to_steps(self, steps_per_epoch: int, batch_size: int) -> int:
        """The duration in optimizer steps, at least 1 and at most as many as can be counted."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return min(max(1, round(self.epochs * steps_per_epoch)), _MOST_STEPS)
        assert self.examples is not None
        return min(max(1, round(self.examples / batch_size)), _MOST_STEPS)


class ScheduleBase(Section):
    """What all schedules share."""

    learning_rate: PositiveFloat = 0.1
    """The peak, or where there is a `reference_batch` what the peak is for that batch."""
    reference_batch: PositiveInt | None = None
    """The batch size that `learning_rate` is for; the peak follows `data.batch_size` from there. null: no scaling."""
    batch_scaling: Literal["linear", "sqrt"] = "linear"
    """The peak grows as the batch (Goyal et al. 2017, arXiv:1706.02677), or as its square root (You et al. 2019,
    arXiv:1904.00962)."""
    warmup: Duration | None = None
    """Linear rise to the peak, before the schedule proper."""
    warmup_from: Literal["zero", "reference"] = "zero"
    """Where the rise begins: at zero, or at `learning_rate` itself as in Goyal et al. 2017."""

    @model_validator(mode="after")
    def _scaled_from_something(self) -> Self:
        if self.reference_batch is None:
            for name, value in (("batch_scaling", self.batch_scaling), ("warmup_from", self.warmup_from)):
                if value != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: {value} needs a reference_batch; give one, or leave {name} out")
        elif self.warmup_from == "reference" and self.warmup is None:
            raise ValueError("warmup_from: reference needs a warmup; give one, or leave warmup_from out")
        return self

    def peak(self, batch_size: int) -> float:
        """The highest learning rate of a run with that batch."""
        if self.reference_batch is None:
            return self.learning_rate
        ratio = batch_size / self.reference_batch
        return self.learning_rate * (ratio if self.batch_scaling == "linear" else math.sqrt(ratio))


class ConstantSchedule(ScheduleBase):
    """The peak throughout."""

    kind: Literal["constant"]


class CosineSchedule(ScheduleBase):
    """Half a cosine from the peak to `end_factor` times the peak at the end of training."""

    kind: Literal["cosine"] = "cosine"
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0


class StepSchedule(ScheduleBase):
    """Multiplied by `factor` at each boundary."""

    kind: Literal["step"]
    boundaries: tuple[Duration, ...]
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _some_boundary(self) -> Self:
        if not self.boundaries:
            raise ValueError("expected at least one boundary; for none, choose kind: constant")
        return self


class PolynomialSchedule(ScheduleBase):
    """(1 - progress) ** power from the peak to `end_factor` times the peak; power 1 is linear."""

    kind: Literal["polynomial"]
    power: PositiveFloat = 1.0
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0


Schedule = Annotated[ConstantSchedule | CosineSchedule | StepSchedule | PolynomialSchedule, Field(discriminator="kind")]
