"""Name -> thing: a duplicate raises, an unknown name gets "did you mean"."""

import difflib
from collections.abc import Iterable
from typing import Generic, TypeVar

from cnnjax.errors import ConfigError

Thing = TypeVar("Thing")

# Names that fit into one sentence.
_MANY = 24


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A phrase that names the nearest known name, or all of them where none is near.

    Returns:
        `"did you mean 'x'?"`, or `"known: a, b, c"` (of many the first), or "nothing is known here".
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return f"known: {', '.join(names[:_MANY])}{more}" if names else "nothing is known here"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known."""
    return f"unknown {kind} '{name}'; {did_you_mean(name, known)}"


class Registry(Generic[Thing]):
    """Things of one kind by name, in the order in which they were added."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, Thing] = {}

    def add(self, name: str, thing: Thing) -> None:
        """Registers `thing`; a name that is taken raises ValueError."""
        if name in self._things:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._things[name] = thing

    def get(self, name: str) -> Thing:
        """The thing of that name; ConfigError with the nearest name where there is none."""
        if name not in self._things:
            raise ConfigError(unknown(self.kind, name, self._things))
        return self._things[name]

    def names(self) -> list[str]:
        """All names."""
        return list(self._things)
