"""For each family the names that other libraries give its parameters, as tables: NAMES, pattern of networks -> map."""

import importlib
import importlib.util
from collections.abc import Mapping

from cnnjax.weights.name_map import NameMap


def load_names(family: str) -> Mapping[str, NameMap]:
    """A family's maps by a shell-style pattern of `LIBRARY/NAME`; empty where no other library has the family."""
    module = f"cnnjax.weights.names.{family}"
    if importlib.util.find_spec(module) is None:
        return {}
    names: Mapping[str, NameMap] = importlib.import_module(module).NAMES
    return names
