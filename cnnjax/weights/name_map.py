"""The language in which a family says what other libraries call its parameters.

A rule is (ours, theirs) or (ours, theirs, layout). `ours` is a module's path such as `stage{s}/block{b}/conv1/conv`, or
that of one parameter (`.../depthwise/kernel`). `{s}` stands for a number and `{x:left|right}` for one of some words;
`theirs` repeats them, numbers also as `{s-1}` or `{s+2}`. The first rule that fits a path counts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cnnjax.errors import WeightsError

# What a kernel is stored as in the other library, where its shape does not tell:
# pointwise: our dense layer is a 1x1 convolution there. depthwise: Keras' (height, width, channels, multiplier).
# flattenHxW: rows of our dense layer are (height, width, channels), those of PyTorch's (channels, height, width).
# windowHxW: our dense layer after such a map is a convolution with that kernel there.
Layout: TypeAlias = str
Rule: TypeAlias = tuple[str, str] | tuple[str, str, Layout]
Library = Literal["torchvision", "timm", "keras", "pytorchcv", "efficientnet-lite-pytorch"]

_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^}]*))?\}")
_REFERENCE = re.compile(r"\{(\w+)([+-]\d+)?\}")
_LEAVES: dict[bool, dict[str, str]] = {
    False: {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"},
    True: {"kernel": "kernel", "scale": "gamma", "bias": "bias", "mean": "moving_mean", "var": "moving_variance"},
}


@dataclass(frozen=True)
class PeerTensor:
    """Where another library keeps one of our parameters."""

    name: str
    layout: Layout = ""


@dataclass(frozen=True)
class NameMap:
    """A family's names in one library."""

    rules: tuple[Rule, ...]
    features: Mapping[str, str] = field(default_factory=dict)
    """For a stage of ours the module of theirs (in Keras the layer) whose output it equals."""


def translate(rules: tuple[Rule, ...], paths: Mapping[str, object], library: Library) -> dict[str, PeerTensor]:
    """What a library calls each of our parameters.

    Args:
        paths: of the parameters and running statistics, `module/path/leaf`; only the keys count.

    Raises:
        WeightsError: a path that no rule fits, or two with the same name there.
    """
    keras = library == "keras"
    kernels = {path.rpartition("/")[0] for path in paths if path.endswith("/kernel")}
    compiled = [(_pattern(rule[0]), rule[1], rule[2] if len(rule) == 3 else "") for rule in rules]
    names: dict[str, PeerTensor] = {}
    for path in paths:
        module, _, leaf = path.rpartition("/")
        theirs = _LEAVES[keras][leaf]
        if keras and leaf == "bias" and module not in kernels:
            theirs = "beta"
        for pattern, replacement, kernel_layout in compiled:
            layout = kernel_layout if leaf == "kernel" else ""
            if match := pattern.fullmatch(path):
                names[path] = PeerTensor(_fill(replacement, match), layout)
                break
            if match := pattern.fullmatch(module):
                names[path] = PeerTensor(f"{_fill(replacement, match)}{'/' if keras else '.'}{theirs}", layout)
                break
        else:
            raise WeightsError(f"no rule for {library} names '{path}'; the network is not one that it has")
    owners: dict[str, str] = {}
    for path, tensor in names.items():
        if tensor.name in owners:
            raise WeightsError(f"{library}'s '{tensor.name}' would be both '{owners[tensor.name]}' and '{path}'")
        owners[tensor.name] = path
    return names


def _pattern(ours: str) -> re.Pattern[str]:
    parts, end = [], 0
    for match in _PLACEHOLDER.finditer(ours):
        name, words = match.groups()
        parts += [re.escape(ours[end : match.start()]), f"(?P<{name}>{words or r'[0-9]+'})"]
        end = match.end()
    return re.compile("".join([*parts, re.escape(ours[end:])]))


def _fill(theirs: str, found: re.Match[str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, offset = match.groups()
        return str(int(found[name]) + int(offset)) if offset else str(found[name])

    return _REFERENCE.sub(value, theirs)
