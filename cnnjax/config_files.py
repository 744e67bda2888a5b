"""Config files: read, inherit, override, check with the dotted path, compare, hash, write. Imports no JAX."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cnnjax.config import Config
from cnnjax.errors import ConfigError
from cnnjax.registry import did_you_mean

Tree = dict[str, Any]

# Sections that say how a run is executed and logged, not what it computes: left out of the hash.
OPERATIONAL = ("name", "log", "checkpoint", "parallel")
_UNITS = frozenset({"steps", "epochs", "examples"})


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: 1e-3 is a number, `off` and dates are strings; a key written twice is an error."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key '{twice[0]}' is written twice", node.start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"^(?:null|~|)$", "n~\0"),
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?\d[\d_]*$", "-+0123456789"),
    ("float", r"^[-+]?(?:\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first) + ([""] if _tag == "null" else [])
    )


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value.replace("_", ""))


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


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
        tree = _read_with_base(Path(path), ())
        tree.setdefault("name", Path(path).stem)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not all(part.strip() for part in key.split(".")):
            raise ConfigError(
                f"override '{override}': expected section.key=value, for example schedule.learning_rate=0.1"
            )
        tree = merge(tree, _nested(key.strip().split("."), _parse(value, f"override '{override}'")))
    return check(tree)


def check(tree: Mapping[str, Any]) -> Config:
    """Validates a nested mapping as a config; ConfigError names every fault by its dotted path."""
    try:
        # Laid on the defaults, so that a section may keep its default `kind` unsaid. JSON in strict mode: lists become
        # tuples and strings paths, but no string becomes a number.
        whole = merge(Config().model_dump(mode="json", exclude_none=True), tree)
        return Config.model_validate_json(json.dumps(whole), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error))) from None
    except TypeError as error:
        raise ConfigError(f"the config holds a value that YAML cannot: {error}") from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`over` laid on `base`, mapping by mapping; neither is changed.

    Another `kind` replaces the whole mapping, another `name` drops the old name's `args`, and a duration in one unit
    drops those in other units, since the old entries would not fit the new choice.
    """
    if "kind" in over and over["kind"] != base.get("kind"):
        return dict(over)
    merged = dict(base)
    if "args" in base and "name" in over and over["name"] != base.get("name"):
        del merged["args"]
    if _UNITS & over.keys():
        merged = {key: value for key, value in merged.items() if key not in _UNITS}
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def to_tree(config: Config) -> Tree:
    """The whole config, defaults included, as plain JSON values."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    """The whole config, defaults included, as YAML that `load_config` reads back."""
    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True, width=100)


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits that name what the run computes.

    Equal for equal meaning whatever the order, spelling or inheritance in the files, on every machine. Defaults do not
    count, so that a field added later leaves it as it is; nor do name, logging, checkpoints and devices.
    """
    meaning = config.model_dump(mode="json", exclude_defaults=True, exclude=set(OPERATIONAL))
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]


def diff(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted paths whose values differ, with (old, new); a value that one side lacks is None there."""
    before, after = dict(flatten(to_tree(old))), dict(flatten(to_tree(new)))
    paths = list(before) + [path for path in after if path not in before]
    return {path: (before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, leaf) pairs; lists and empty mappings are leaves."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def json_schema() -> Tree:
    """The JSON schema of config files, for editors that complete and check YAML."""
    schema = Config.model_json_schema()
    schema["properties"]["base"] = {
        "type": "string",
        "description": "Another file that this one inherits from.",
    }
    return schema


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> Tree:
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError(
            f"{path}: inherits from itself through base: {' -> '.join(p.name for p in (*seen, resolved))}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"config file '{path}' cannot be read: {reason}{_nearby(path)}") from None
    tree = _parse(text, str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as 'model:' and 'data:', got {_kind_of(tree)}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the name of a file, got {_kind_of(base)}")
    return merge(_read_with_base(path.parent / base, (*seen, resolved)), tree)


def _nearby(path: Path) -> str:
    folder = path.parent
    if path.exists() or not folder.is_dir():
        return ""
    return f"; {did_you_mean(path.name, (name for name in os.listdir(folder) if name.endswith('.yaml')))}"


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ConfigError(f"{where}{place}: not valid YAML: {problem}") from None


def _nested(parts: Sequence[str], value: Any) -> Tree:
    for part in reversed(parts):
        value = {part: value}
    return value


def _kind_of(value: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "nothing" if value is None else f"{names.get(type(value), type(value).__name__)} ({value!r:.60})"


def _sentences(error: ValidationError) -> Iterator[str]:
    for fault, path, section in _tellable(error):
        where = f"{path}: " if path else ""
        if fault["type"] == "extra_forbidden":
            yield f"{where}unknown key; {did_you_mean(str(fault['loc'][-1]), section.model_fields if section else ())}"
        elif fault["type"] == "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in fault["ctx"]["expected_tags"].split(",")]
            yield f"{where}unknown kind '{fault['ctx']['tag']}'; {did_you_mean(fault['ctx']['tag'], tags)}"
        elif fault["type"] == "union_tag_not_found":
            yield f"{where}expected a mapping with the key 'kind', got {_kind_of(fault['input'])}"
        elif fault["type"] == "missing":
            yield f"{where}is required and was not given"
        elif fault["type"] == "value_error":
            yield f"{where}{fault['ctx']['error']}"
        elif fault["type"] == "literal_error" and isinstance(fault["input"], str):
            choices = fault["ctx"]["expected"]
            near = did_you_mean(fault["input"], re.findall(r"'([^']*)'", choices))
            yield f"{where}expected {choices}, got '{fault['input']}'; {near}"
        else:
            yield f"{where}{_plain(fault['msg'])}, got {_kind_of(fault['input'])}"


def _tellable(error: ValidationError) -> list[tuple[Any, str, type[BaseModel] | None]]:
    """The faults, without those of a union's other branches than the one that the user meant."""
    located = [(fault, *_locate(fault["loc"])) for fault in error.errors()]
    paths = [path for _, path, _ in located]
    literals = {path for fault, path, _ in located if fault["type"] == "literal_error"}

    def from_another_branch(fault: Any, path: str) -> bool:
        deeper = any(other.startswith((f"{path}.", f"{path}[")) for other in paths)
        return (path != "" and deeper) or (fault["type"] == "model_type" and path in literals)

    return [entry for entry in located if not from_another_branch(entry[0], entry[1])]


def _plain(message: str) -> str:
    return re.sub(r"^Input should be ", "expected ", message).replace("an object", "a mapping")


def _locate(loc: Sequence[str | int]) -> tuple[str, type[BaseModel] | None]:
    """The dotted path as the user wrote it (pydantic's union tags taken out) and the section around its last part."""
    parts: list[str] = []
    choices: list[type[BaseModel]] = [Config]
    section: type[BaseModel] | None = None
    for part in loc:
        tagged = [choice for choice in choices if part in (choice.__name__, _tag_of(choice))]
        if tagged and part not in choices[0].model_fields:
            choices = tagged
            continue
        section = choices[0] if choices else None
        fields = section.model_fields if section else {}
        if isinstance(part, str) and (
            part in fields or not part.startswith(("literal[", "constrained-", "float", "int", "tuple["))
        ):
            parts.append(part)
        elif isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        if part in fields:
            choices = list(_models_in(fields[str(part)].annotation))
    return ".".join(parts), section


def _tag_of(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation)[0] if kind is not None else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
