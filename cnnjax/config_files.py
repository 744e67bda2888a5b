"""Config files: read, inherit, override, check with the dotted path, compare, hash, write. Imports no JAX."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cnnjax.config import Config
from cnnjax.config_base import Section
from cnnjax.config_faults import kind_of, sentences
from cnnjax.config_yaml import dump_yaml, parse_yaml
from cnnjax.errors import ConfigError, shown
from cnnjax.registry import did_you_mean

Tree = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)

# Sections that say how a run is executed and logged, not what it computes: left out of the hash.
OPERATIONAL = ("name", "log", "checkpoint", "parallel")
# Characters of a config file.
_LONGEST = 1_000_000
_DEEPEST = 50
# As JSON writes it, and not its name after a backslash.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_UNITS = frozenset({"steps", "epochs", "examples"})


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file, with what it inherits and the overrides, and checks the whole.

    Args:
        path: a YAML file; None for the defaults alone.
        overrides: `section.key=value` strings, each value written as YAML.

    Raises:
        ConfigError: the file cannot be read, or an entry is unknown, of the wrong type or impossible; it names the
            dotted path, what was expected and the nearest name.
    """
    tree: Tree = {}
    if path is not None:
        tree = read_tree(path)
        tree.setdefault("name", Path(path).stem)
    return check(merge_overrides(tree, overrides))


def merge_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    """`section.key=value` strings laid on a tree one after the other; ConfigError for one that is none."""
    for override in overrides:
        key, separator, value = override.partition("=")
        where = f"override '{shown(override)}'"
        if not separator or not all(part.strip() for part in key.split(".")):
            raise ConfigError(f"{where}: expected section.key=value, for example schedule.learning_rate=0.1")
        tree = merge(tree, _nested(key.strip().split("."), parse_yaml(value, where)))
    return tree


def check(tree: Mapping[str, Any]) -> Config:
    """Validates a nested mapping as a config; ConfigError names every fault by its dotted path."""
    # Laid on the defaults, so that a section may keep its default `kind` unsaid.
    return check_as(Config, merge(Config().model_dump(mode="json", exclude_none=True), tree))


def check_as(model: type[Model], tree: Mapping[str, Any], path: str = "") -> Model:
    """Validates a mapping as a pydantic model; ConfigError names every fault by its dotted path, begun with `path`."""
    try:
        # JSON in strict mode: lists become tuples and strings paths, but no string becomes a number.
        text = json.dumps(dict(tree))
        if _NUL.search(text):
            raise ConfigError(f"{path or 'the config'} holds a NUL character, which no text and no path has")
        if _is_deep(tree):  # or it could not be written again
            raise ConfigError(f"{path or 'the config'} is nested too deeply")
        checked = model.model_validate_json(text, strict=True)
        json.dumps(dict(tree), allow_nan=False)  # the model's own numbers are finite now; those in `args` may not be
        return checked
    except ValidationError as error:
        raise ConfigError("\n".join(sentences(error, model, path))) from None
    except RecursionError:
        raise ConfigError(f"{path or 'the config'} is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path or 'the config'} holds a value that YAML cannot: {error}") from None


def _is_deep(tree: Any) -> bool:
    level = [tree]
    for _ in range(_DEEPEST):
        level = [
            part
            for each in level
            if isinstance(each, Mapping | list | tuple)
            for part in (each.values() if isinstance(each, Mapping) else each)
        ]
    return bool(level)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`over` laid on `base`, mapping by mapping; neither is changed.

    What cannot fit a new choice is dropped: with another `kind`, the entries that it does not have; with another
    `name`, the old name's `args`; with a duration in one unit, those in other units.
    """
    merged = dict(base)
    if "kind" in over and over["kind"] != base.get("kind"):
        known = _fields_by_kind().get(over["kind"], ()) if isinstance(over["kind"], str) else ()
        merged = {key: value for key, value in merged.items() if key in known}
    if "args" in base and "name" in over and over["name"] != base.get("name"):
        merged.pop("args", None)  # another kind may have dropped it already
    if _UNITS & over.keys():
        merged = {key: value for key, value in merged.items() if key not in _UNITS}
    for key, value in over.items():
        old = merged.get(key)
        if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
            merged[key] = value
        else:  # what `args` holds are somebody else's names: `kind`, `name` or `steps` mean nothing special there
            merged[key] = {**old, **value} if key == "args" else merge(old, value)
    return merged


@functools.cache
def _fields_by_kind() -> dict[str, frozenset[str]]:
    """The entries of each section that a `kind` chooses; no two sections share one."""
    sections: list[type[BaseModel]] = [Section]
    fields = {}
    while sections:
        section = sections.pop()
        sections += section.__subclasses__()
        kind = section.model_fields.get("kind")
        if kind is not None:
            fields[get_args(kind.annotation)[0]] = frozenset(section.model_fields)
    return fields


def to_tree(config: Config) -> Tree:
    """The whole config, defaults included, as plain JSON values."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    """The whole config, defaults included, as YAML that `load_config` reads back."""
    return dump_yaml(to_tree(config))


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits that name what the run computes.

    Equal for equal meaning whatever the order, spelling or inheritance in the files, on every machine. Defaults do not
    count, so that a field added later leaves it as it is; nor do name, logging, profile, checkpoints and devices.
    """
    config = config.model_copy(update={"train": config.train.model_copy(update={"profile": None})})
    meaning = config.model_dump(mode="json", exclude_defaults=True, exclude=set(OPERATIONAL))
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted paths whose values differ, with (old, new); a value that one side lacks is None there."""
    before, after = dict(flatten(to_tree(old))), dict(flatten(to_tree(new)))
    paths = list(before) + [path for path in after if path not in before]
    return {path: (before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, leaf) pairs; lists are leaves, empty mappings have none."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def json_schema() -> Tree:
    """The JSON schema of config files, for editors that complete and check YAML.

    It requires no key, not even `kind`, since a file may inherit what it leaves out; the checks see the whole.
    """
    schema = Config.model_json_schema()
    for section in schema["$defs"].values():
        section.pop("required", None)
    for section in (schema, *schema["$defs"].values()):
        for field in section["properties"].values():
            for node in (field, field.get("items", {})):
                if "discriminator" in node:
                    del node["discriminator"]
                    node["anyOf"] = node.pop("oneOf")
    schema["properties"]["base"] = {
        "type": "string",
        "description": "Another file that this one inherits from.",
    }
    return schema


def read_tree(path: str | Path) -> Tree:
    """A config file's entries laid on those that it inherits through `base`, not yet checked.

    Raises:
        ConfigError: a file cannot be read, or inherits from itself.
    """
    return _read_with_base(Path(path), ())


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file, an empty one where it holds nothing; ConfigError where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)  # a device may hold any number
    except FileNotFoundError:
        raise ConfigError(f"config file '{path}' cannot be read: there is no such file{_nearby(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config file '{path}' cannot be read: not UTF-8 text") from None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: no file name
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"config file {str(path)!r} cannot be read: {reason}") from None
    if len(text) > _LONGEST:
        raise ConfigError(f"config file '{path}' cannot be read: more than {_LONGEST:,} characters are no config")
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as 'model:' and 'data:', got {kind_of(tree)}")
    return tree


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> Tree:
    tree = read_yaml(path)
    resolved = path.resolve()
    if resolved in seen:
        names = " -> ".join(file.name for file in (*seen, resolved))
        raise ConfigError(f"{path}: inherits from itself through base: {names}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the name of a file, got {kind_of(base)}")
    return merge(_read_with_base(path.parent / base, (*seen, resolved)), tree)


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder '{path.parent}' either"
    files = [name for name in os.listdir(path.parent) if name.endswith(".yaml")]
    return f"; {did_you_mean(path.name, files)}" if files else f"; there is no .yaml file in '{path.parent}'"


def _nested(parts: Sequence[str], value: Any) -> Tree:
    for part in reversed(parts):
        value = {part: value}
    return value
