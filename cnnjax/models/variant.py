"""A named network: a row in its family's table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cnnjax.nn.network import Network


@dataclass(frozen=True)
class Variant:
    """A Linen module and the fields that make this variant of it."""

    network: type[Network]
    """The module's class."""
    input_shape: tuple[int, int, int]
    """(height, width, channels) of the images it was published with."""
    paper: str
    """Authors, year, title and where it appeared."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Fields that differ from the class's defaults."""


PeerRow: TypeAlias = tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], tuple[int, int, int]]
"""A variant of ours, the fields that make it another library's, and the images' shape where that differs too."""
Peers: TypeAlias = Mapping[str, PeerRow]
"""The networks of other libraries by `LIBRARY/NAME`, such as `timm/resnet50`."""
