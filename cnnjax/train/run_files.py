"""What the JSON in a run folder must hold to be taken for what it says it is."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from cnnjax.errors import RunError


class _Git(BaseModel):
    commit: str
    changed: bool


class _Start(BaseModel):
    command: list[str]
    python: str
    system: str
    packages: dict[str, str]
    devices: list[str]
    cpus: int | None
    git: _Git | None


class _Result(BaseModel):
    finished: bool
    step: NonNegativeInt
    loss: float | None
    accuracy: float | None
    best_accuracy: float | None
    train_accuracy: float | None
    seconds: float


class _Facts(BaseModel):
    class_names: Annotated[list[str], Field(min_length=1)]
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    train_examples: PositiveInt
    test_examples: PositiveInt
    segmentation: bool = False


class _Measures(BaseModel):
    test_error: float
    seconds: float


class _Failure(BaseModel):
    error: str
    seconds: float


class _Line(BaseModel):
    """What all lines of a history have, and all readers of it need."""

    step: NonNegativeInt
    epoch: float
    loss: float
    accuracy: float


class _TrainLine(_Line):
    kind: Literal["train"]


class _EvalLine(_Line):
    kind: Literal["eval"]
    weights: Literal["raw", "ema"]


STARTS: TypeAdapter[Any] = TypeAdapter(list[_Start])
RESULT: TypeAdapter[Any] = TypeAdapter(_Result)
FACTS: TypeAdapter[Any] = TypeAdapter(_Facts)
MEASURES: TypeAdapter[Any] = TypeAdapter(_Measures)
FAILURE: TypeAdapter[Any] = TypeAdapter(_Failure)
LINE: TypeAdapter[Any] = TypeAdapter(Annotated[_TrainLine | _EvalLine, Field(discriminator="kind")])


def read_json(path: Path, shape: TypeAdapter[Any], remedy: str) -> Any:
    """The value in a JSON file; RunError, which says what to do, where it cannot be read or has not this shape."""
    try:
        return parse_json(path.read_text(encoding="utf-8"), shape)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:
        reason = str(error)
    raise RunError(f"{path} cannot be read ({reason}); {remedy}")


def parse_json(text: str, shape: TypeAdapter[Any]) -> Any:
    """The value in a JSON text; ValueError where it has not this shape."""
    try:
        shape.validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{place}: {fault['msg']}" if place else fault["msg"]) from None
    return json.loads(text)
