"""What pydantic finds wrong with a config, in sentences for whoever wrote the file. Imports no JAX."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cnnjax.errors import shown
from cnnjax.registry import did_you_mean

# Faults that are told at once.
_MOST = 20


def sentences(error: ValidationError, root: type[BaseModel], prefix: str = "") -> list[str]:
    """One line for each fault in a value of `root`, of very many the first, begun with its dotted path.

    Args:
        prefix: what the paths begin with.
    """
    told = [
        shown(_sentence(fault, ".".join(part for part in (prefix, path) if part), section))
        for fault, path, section in _tellable(error, root)
    ]
    return told if len(told) <= _MOST else [*told[:_MOST], f"and {len(told) - _MOST} more faults like these"]


def _sentence(fault: Any, place: str, section: type[BaseModel] | None) -> str:
    where = f"{place}: " if place else ""
    if fault["type"] == "extra_forbidden":
        return f"{where}unknown key; {did_you_mean(str(fault['loc'][-1]), section.model_fields if section else ())}"
    if fault["type"] == "union_tag_invalid":
        tags = [tag.strip().strip("'") for tag in fault["ctx"]["expected_tags"].split(",")]
        return f"{where}unknown kind '{fault['ctx']['tag']}'; {did_you_mean(fault['ctx']['tag'], tags)}"
    if fault["type"] == "union_tag_not_found":
        return f"{where}expected a mapping with the key 'kind', got {kind_of(fault['input'])}"
    if fault["type"] == "json_invalid":
        return f"{where}nested too deeply, or text that is no Unicode: {fault['ctx']['error']}"
    if fault["type"] == "missing":
        return f"{where}is required and was not given"
    if fault["type"] == "value_error":
        return f"{where}{fault['ctx']['error']}"
    if fault["type"] == "literal_error" and isinstance(fault["input"], str):
        choices = fault["ctx"]["expected"]
        near = did_you_mean(fault["input"], re.findall(r"'([^']*)'", choices))
        return f"{where}expected {choices}, got '{fault['input']}'; {near}"
    return f"{where}{_plain(fault['msg'])}, got {kind_of(fault['input'])}"


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
