"""What pydantic finds wrong with a config, in sentences for whoever wrote the file. Imports no JAX."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cnnjax.registry import did_you_mean


def sentences(error: ValidationError, root: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One sentence for each fault in a value of `root`, begun with its dotted path, which begins with `prefix`."""
    for fault, path, section in _tellable(error, root):
        place = ".".join(part for part in (prefix, path) if part)
        where = f"{place}: " if place else ""
        if fault["type"] == "extra_forbidden":
            yield f"{where}unknown key; {did_you_mean(str(fault['loc'][-1]), section.model_fields if section else ())}"
        elif fault["type"] == "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in fault["ctx"]["expected_tags"].split(",")]
            yield f"{where}unknown kind '{fault['ctx']['tag']}'; {did_you_mean(fault['ctx']['tag'], tags)}"
        elif fault["type"] == "union_tag_not_found":
            yield f"{where}expected a mapping with the key 'kind', got {kind_of(fault['input'])}"
        elif fault["type"] == "json_invalid":
            yield f"{where}nested too deeply, or text that is no Unicode: {fault['ctx']['error']}"
        elif fault["type"] == "missing":
            yield f"{where}is required and was not given"
        elif fault["type"] == "value_error":
            yield f"{where}{fault['ctx']['error']}"
        elif fault["type"] == "literal_error" and isinstance(fault["input"], str):
            choices = fault["ctx"]["expected"]
            near = did_you_mean(fault["input"], re.findall(r"'([^']*)'", choices))
            yield f"{where}expected {choices}, got '{fault['input']}'; {near}"
        else:
            yield f"{where}{_plain(fault['msg'])}, got {kind_of(fault['input'])}"


def kind_of(value: Any) -> str:
    """What a value is, in the words of someone who writes YAML."""
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "nothing" if value is None else f"{names.get(type(value), type(value).__name__)} ({value!r:.60})"


def _tellable(error: ValidationError, root: type[BaseModel]) -> list[tuple[Any, str, type[BaseModel] | None]]:
    """The faults, without those of a union's other branches than the one that the user meant."""
    located = [(fault, *_locate(fault["loc"], root, fault["type"] == "extra_forbidden")) for fault in error.errors()]
    paths = [path for _, path, _ in located]
    literals = {path for fault, path, _ in located if fault["type"] == "literal_error"}

    def from_another_branch(fault: Any, path: str) -> bool:
        deeper = any(other.startswith((f"{path}.", f"{path}[")) for other in paths)
        return (path != "" and deeper) or (fault["type"] == "model_type" and path in literals)

    return [entry for entry in located if not from_another_branch(entry[0], entry[1])]


def _plain(message: str) -> str:
    return re.sub(r"^Input should be ", "expected ", message).replace("an object", "a mapping")


def _locate(
    loc: Sequence[str | int], root: type[BaseModel], ends_in_unknown: bool
) -> tuple[str, type[BaseModel] | None]:
    """The dotted path as the user wrote it (pydantic's names of union branches taken out) and the section around its
    last part, which no section knows if `ends_in_unknown`."""
    parts: list[str] = []
    choices: list[type[BaseModel]] = [root]
    section: type[BaseModel] | None = None
    for index, part in enumerate(loc):
        section = choices[0] if choices else None
        fields = section.model_fields if section else {}
        if ends_in_unknown and index == len(loc) - 1:
            parts.append(str(part))
        elif isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        elif part in fields:
            parts.append(str(part))
            choices = list(_models_in(fields[str(part)].annotation))
        else:
            choices = [choice for choice in choices if part in (choice.__name__, _tag_of(choice))] or choices
    return ".".join(parts), section


def _tag_of(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation)[0] if kind is not None else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
