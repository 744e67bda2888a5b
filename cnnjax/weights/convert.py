"""Variables of our networks to and from other libraries' names and layouts, bit for bit."""

import dataclasses
import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, cast

import jax
import numpy as np
from flax import traverse_util

from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import family_of
from cnnjax.weights.name_map import Layout, Library, NameMap, PeerTensor, translate
from cnnjax.weights.names import load_names

Arrays: TypeAlias = dict[str, np.ndarray]
Variables: TypeAlias = Mapping[str, Any]
"""{"params": tree, "batch_stats": tree}, as `Network.init` gives them."""

# PyTorch counts the batches that BatchNorm has seen; nothing here depends on it.
_IGNORED = re.compile(r"(.*\.)?num_batches_tracked")
_SIZED = re.compile(r"(flatten|window)(\d+)x(\d+)")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What did not go where it belongs."""

    missing: tuple[str, ...]
    """Parameters of ours that the weights do not have."""
    unexpected: tuple[str, ...]
    """Names in the weights that the network does not have."""
    mis_shaped: tuple[str, ...]
    """Parameters of ours whose shape there is another, with both shapes."""

    def refuse(self, source: str, allow: tuple[str, ...] = ()) -> None:
        """WeightsError unless each entry matches one of the shell-style patterns `allow`."""
        for kind in ("missing", "unexpected", "mis_shaped"):
            left = [
                entry
                for entry in getattr(self, kind)
                if not any(fnmatchcase(entry.partition(":")[0], pattern) for pattern in allow)
            ]
            if left:
                shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
                raise WeightsError(
                    f"{source} does not fit: {len(left)} {kind.replace('_', '-')} ({shown}); allow them by name or "
                    "pattern, or name the network that the weights are for"
                )


def name_map(peer: str) -> NameMap:
    """The names of a network of another library, such as `timm/resnet50`.

    Raises:
        ConfigError: no such network.
        WeightsError: its family has no names there.
    """
    for pattern, names in load_names(family_of(peer)).items():
        if fnmatchcase(peer, pattern):
            return names
    raise WeightsError(f"the names of '{peer}' are not known")


def peer_tensors(peer: str, variables: Variables) -> dict[str, PeerTensor]:
    """For each parameter and running statistic of ours (`module/path/leaf`) its name and layout in `peer`'s library."""
    return translate(name_map(peer).rules, flatten(variables), library_of(peer))


def library_of(peer: str) -> Library:
    """The library in a name such as `timm/resnet50`."""
    library, separator, _ = peer.partition("/")
    if not separator:
        raise ConfigError(f"expected LIBRARY/NAME such as timm/resnet50, got '{peer}'")
    return cast(Library, library)


def to_peer(peer: str, variables: Variables) -> Arrays:
    """Our variables under the names and in the layouts that `peer`'s library gives them."""
    arrays, keras = flatten(variables), library_of(peer) == "keras"
    return {
        tensor.name: _to_layout(np.asarray(arrays[path]), tensor.layout, keras)
        for path, tensor in peer_tensors(peer, variables).items()
    }


def from_peer(peer: str, arrays: Mapping[str, np.ndarray], like: Variables) -> tuple[dict[str, Any], LoadReport]:
    """Variables shaped as `like` with the values that `arrays` has, and the report of what it has not.

    Args:
        arrays: by their names in `peer`'s library.
        like: the network's own variables; what is missing or mis-shaped stays as it is there.
    """
    ours, keras = flatten(like), library_of(peer) == "keras"
    tensors = peer_tensors(peer, like)
    missing, mis_shaped, result = [], [], dict(ours)
    for path, tensor in tensors.items():
        if tensor.name not in arrays:
            missing.append(path)
            continue
        array = _from_layout(np.asarray(arrays[tensor.name]), tensor.layout, keras, len(ours[path].shape))
        if array is None or array.shape != ours[path].shape:
            there = tuple(arrays[tensor.name].shape)
            mis_shaped.append(f"{path}: {tuple(ours[path].shape)} here, {there} as '{tensor.name}' there")
        else:
            result[path] = array.astype(ours[path].dtype)
    known = {tensor.name for tensor in tensors.values()}
    unexpected = [name for name in arrays if name not in known and not _IGNORED.fullmatch(name)]
    return unflatten(result, like), LoadReport(tuple(missing), tuple(unexpected), tuple(mis_shaped))


def flatten(variables: Variables) -> dict[str, Any]:
    """Parameters and running statistics by `module/path/leaf`; their leaves have different names."""
    leaves: dict[str, Any] = {}
    for collection in ("params", "batch_stats"):
        leaves.update(traverse_util.flatten_dict(variables.get(collection, {}), sep="/"))
    return leaves


def unflatten(leaves: Mapping[str, Any], like: Variables) -> dict[str, Any]:
    """The inverse of `flatten`; `like` says which leaf is whose."""
    return {
        collection: traverse_util.unflatten_dict(
            {path: leaves[path] for path in traverse_util.flatten_dict(tree, sep="/")}, sep="/"
        )
        for collection, tree in like.items()
    }


def shapes_of(network: Any, input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """The shapes of a network's variables, without computing them."""
    images = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
    shapes: dict[str, Any] = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)
    return shapes


def _to_layout(array: np.ndarray, layout: Layout, keras: bool) -> np.ndarray:
    if array.ndim == 4:
        if not keras:
            return array.transpose(3, 2, 0, 1)
        return array.transpose(0, 1, 3, 2) if layout == "depthwise" else array
    if array.ndim == 2:
        if layout == "pointwise":
            return array[None, None] if keras else array.T[:, :, None, None]
        if keras:
            return array
        if sized := _SIZED.fullmatch(layout):
            height, width = int(sized[2]), int(sized[3])
            window = array.reshape(height, width, -1, array.shape[-1]).transpose(3, 2, 0, 1)
            return window if sized[1] == "window" else window.reshape(len(window), -1)
        return array.T
    return array


def _from_layout(array: np.ndarray, layout: Layout, keras: bool, ndim: int) -> np.ndarray | None:
    """None where the array cannot be ours whatever its sizes."""
    sized = None if keras or ndim != 2 else _SIZED.fullmatch(layout)
    if sized:
        size = (int(sized[2]), int(sized[3]))
        stored = array.shape[2:] == size if sized[1] == "window" else array.ndim == 2
        if not stored or array[0].size % math.prod(size):
            return None
        return array.reshape(len(array), -1, *size).transpose(2, 3, 1, 0).reshape(-1, len(array))
    if layout == "pointwise" and ndim == 2:  # its bias is stored as it is
        if array.ndim != 4 or (array.shape[:2] if keras else array.shape[2:]) != (1, 1):
            return None
        array = array[0, 0] if keras else array[:, :, 0, 0]
    if array.ndim != ndim:
        return None
    if keras:
        return array.transpose(0, 1, 3, 2) if layout == "depthwise" else array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T if array.ndim == 2 else array
