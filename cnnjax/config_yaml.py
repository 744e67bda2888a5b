"""YAML 1.2 as configs are written in it: the one door to PyYAML. Imports no JAX."""

import itertools
import json
import math
import re
from collections import Counter
from typing import Any, ClassVar

import yaml

from cnnjax.errors import ConfigError

# Values in a file, its aliases written out; without a bound, aliases of aliases make billions of ten lines.
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: 1e-3 is a number, `off` and dates are strings; a key written twice is an error."""

    # Each loader class keeps its own tables; new ones drop YAML 1.1's scalars and the types that JSON lacks.
    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "str", "seq", "map")
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = sorted(key for key, times in keys.items() if times > 1)
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key '{twice[0]}' is written twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Nothing: YAML 1.2 has no merge keys, and merges of merges double with each line."""


class _Dumper(yaml.SafeDumper):
    """Puts quotes around a string that YAML 1.1 or `_Loader` would take for something else."""


for _tag, _pattern, _first in (
    ("null", r"^(?:null|~|)$", "n~\0"),
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?\d[\d_]*$", "-+0123456789"),
    # One way alone to read a row of digits, or a long one takes minutes.
    ("float", r"^[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$", "-+.0123456789"),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first) + ([""] if _tag == "null" else [])
        )


def _construct_bool(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    text = loader.construct_scalar(node)
    if text not in ("true", "false"):
        raise yaml.constructor.ConstructorError(None, None, f"expected true or false, got '{text}'", node.start_mark)
    return text == "true"


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node).replace("_", ""))


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    number = float(loader.construct_scalar(node).replace("_", ""))
    if not math.isfinite(number):
        raise yaml.constructor.ConstructorError(None, None, f"{node.value} is no finite number", node.start_mark)
    return number


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Left to itself, PyYAML writes some line breaks so that it reads others back.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Loader.add_constructor("tag:yaml.org,2002:bool", _construct_bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Dumper.add_representer(str, _represent_text)


def parse_yaml(text: str, where: str) -> Any:
    """The value that a YAML 1.2 text holds; ConfigError, begun with `where`, if it holds none that JSON could hold."""
    try:
        tree = yaml.load(text, Loader=_Loader)
        if _size(tree, {}) > _MOST_VALUES:
            raise ValueError(f"with its aliases written out it holds more than {_MOST_VALUES:,} values")
        json.dumps(tree)  # refuses an alias inside its own anchor, which nothing after this expects
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        if isinstance(error, RecursionError):
            problem = "nested too deeply"
        raise ConfigError(f"{where}{place}: not valid YAML: {problem}") from None
    return tree


def _size(tree: Any, known: dict[int, int]) -> int:
    """How many values a tree holds, what is used several times counted as often, and long texts by their length.

    Args:
        known: by `id` the sizes of the lists and mappings that were met.
    """
    if isinstance(tree, str):
        return 1 + len(tree) // 64
    if not isinstance(tree, list | dict):
        return 1
    if id(tree) not in known:
        known[id(tree)] = 1  # for one that holds itself
        parts = tree if isinstance(tree, list) else itertools.chain(tree, tree.values())
        known[id(tree)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(tree)]


def dump_yaml(tree: Any) -> str:
    """YAML that `parse_yaml` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
