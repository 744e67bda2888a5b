"""What every part of a config is: a section, the numbers that several share, and its paths. Imports no JAX."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


AnySection = TypeVar("AnySection", bound=Section)


def expanded(path: Path) -> Path:
    """With `~` and environment variables replaced."""
    return Path(os.path.expanduser(os.path.expandvars(path)))


def without_places(section: AnySection) -> AnySection:
    """The same section, of each absolute path the last part alone: what a page may tell of the machine."""
    changes: dict[str, object] = {}
    for name, value in section:
        if isinstance(value, Path) and value.is_absolute():
            changes[name] = Path(value.name)
        elif isinstance(value, Section):
            changes[name] = without_places(value)
    return section.model_copy(update=changes)
