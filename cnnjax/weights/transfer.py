"""Weights in from other libraries' files and out to them."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import create_model, get_peer, get_variant, list_peers
from cnnjax.nn.network import Network
from cnnjax.registry import unknown
from cnnjax.weights.adapt import change_channels, change_classes, channels_in, classes_in, start_anew
from cnnjax.weights.bundle import Weights, save_weights
from cnnjax.weights.convert import (
    Arrays,
    LoadReport,
    Variables,
    flatten,
    from_peer,
    library_of,
    peer_tensors,
    shapes_of,
    to_peer,
)
from cnnjax.weights.files import WeightsFile, read_arrays, write_arrays
from cnnjax.weights.keras_layers import layers_by_class
from cnnjax.weights.preprocessing import Preprocessing
from cnnjax.weights.pretrained import fetch_pretrained
from cnnjax.weights.published import (
    IMAGENET_CLASSES,
    find_published,
    imagenet_labels,
    published,
    published_preprocessing,
)

Shape = tuple[int, int, int]

# Fields that change training alone: whatever they are, the same weights give the same answers.
_OF_TRAINING = ("*dropout*", "initialization", "stochastic_depth", "norm_momentum", "remat")
_NO_FIELDS = frozenset({"parent", "name", "dtype", "batch_averaging", "lowering", "num_classes"})
# Keras' published EfficientNets hold this as a variance; a further layer, without weights, divides by its root again.
_KERAS_DEVIATIONS = (0.229, 0.224, 0.225)
# Of published files, what their own library leaves out where the network has no auxiliary classifiers.
_AUXILIARY = ("aux?.*", "AuxLogits.*")
# torchvision renames so, too, what its own files of DenseNets hold.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")


@dataclass(frozen=True)
class Imported:
    """Weights from another library's file."""

    weights: Weights
    report: LoadReport
    """What was missing, unexpected or mis-shaped, and allowed."""
    notes: tuple[str, ...]
    """A sentence on each thing that is not as in the file, or that a reader must know."""


def import_weights(
    peer: str,
    path: str | Path | None = None,
    *,
    allow: Sequence[str] = (),
    fields: Mapping[str, Any] | None = None,
    classes: int | None = None,
    channels: int | None = None,
    prepared_as: str | None = None,
    labels: Sequence[str] = (),
    seed: int = 0,
) -> Imported:
    """Reads another library's file.

    Args:
        peer: the network that it is of, such as `timm/resnet50`, or the published weights that it holds, such as
            `timm/resnet50.a1_in1k`.
        path: the file; by default that of the published weights `peer` (without a tag, of the library's default), which
            is downloaded if it is not here yet: see `cnnjax.weights.pretrained`.
        allow: shell-style patterns of names that may be missing, unexpected or mis-shaped; parameters that the file
            does not give start anew.
        fields: of the network, where they are not the library's.
        classes: that the network shall have. The file may have as many, or the library's number: then the head starts
            anew.
        channels: of the images. The file may be for as many, or for the library's number: see
            `cnnjax.weights.adapt.change_channels`.
        prepared_as: published weights, such as `timm/resnet50.tv_in1k`, whose images were prepared as the file's; by
            default as the published weights `peer`, or those that the library itself takes for this network.
        labels: the names of the classes; by default ImageNet's, if the weights are of a published kind.
        seed: of what starts anew.

    Raises:
        ConfigError: no such network or field.
        WeightsError: no such file or published weights, they cannot be fetched, or do not fit.
    """
    peer, chosen = _split(peer, path is None)
    source = str(path) if path is not None else chosen
    ours, own_fields = get_peer(peer)
    given = {**own_fields, **(fields or {})}
    shape = get_variant(peer).input_shape
    with fetch_pretrained(chosen) if path is None else nullcontext(Path(path)) as file:
        arrays = _renamed(_read(peer, file, shapes_of(create_model(ours, **given), shape)).arrays)
    prepared_as = prepared_as or chosen
    preprocessing = published_preprocessing(prepared_as or peer) if prepared_as or published(peer) else None
    preprocessing = _with_normalisation(arrays, preprocessing)
    if classes is not None:
        given["num_classes"] = classes_in(arrays, peer, ours, given, shape)
    if channels is not None:
        shape = (*shape[:2], channels_in(arrays, peer, ours, given, shape))
    network = create_model(ours, **given)
    variables, report = from_peer(peer, arrays, shapes_of(network, shape))
    report.refuse(source, (*allow, *(_AUXILIARY if path is None else ())))
    new = (*report.missing, *(entry.partition(":")[0] for entry in report.mis_shaped))
    variables = start_anew(network, shape, variables, new, seed)
    weights = Weights(
        model=ours,
        fields=given,
        input_shape=shape,
        variables=variables,
        preprocessing=preprocessing and preprocessing.for_channels(shape[-1]),
        labels=imagenet_labels() if preprocessing and network.num_classes == IMAGENET_CLASSES else (),
        origin=f"{Path(path).name}, {chosen or peer}" if path is not None else chosen,
    )
    notes = [f"allowed: {kind} {entry}" for kind, entry in _entries(report, () if path else _AUXILIARY)]
    if not chosen or prepared_as != chosen:  # else images are prepared as these weights want it: nothing to tell
        notes += _on_preparation(peer, prepared_as)
    if channels is not None:
        weights, changed = change_channels(weights, channels)
        notes += changed
    if classes is not None:
        weights, changed = change_classes(weights, classes, seed)
        notes += changed
    if labels:
        if len(labels) != weights.network.num_classes:
            raise WeightsError(f"expected {weights.network.num_classes} labels, got {len(labels)}")
        weights = dataclasses.replace(weights, labels=tuple(labels))
    return Imported(weights, report, tuple(notes))


def export_weights(weights: Weights, path: str | Path, peer: str | None = None) -> None:
    """Writes weights under another library's names, or, without `peer`, as our own file.

    Args:
        path: for `peer`, ends in .safetensors, .pth or .pt, or for Keras in .safetensors or .weights.h5.

    Raises:
        ConfigError: no such network.
        WeightsError: it is another network than the library's, or the file cannot be written.
    """
    path = Path(path)
    if peer is None:
        save_weights(path, weights)
        return
    require_peer(peer)
    ours, fields = get_peer(peer)
    theirs = create_model(ours, **{**fields, "num_classes": weights.network.num_classes})
    if differing := differences(weights.network, theirs):
        raise WeightsError(f"the network is not that of {peer}: {', '.join(differing)}")
    arrays = to_peer(peer, weights.variables)
    if library_of(peer) != "keras":
        # By this entry the readers of some libraries know for whom the file is.
        write_arrays(path, arrays, metadata={"format": "pt"})
        return
    if _application(peer).startswith("EfficientNet"):
        arrays.update(_normalisation(weights.preprocessing))
    write_arrays(path, arrays, layers=keras_layers(peer, weights.variables))


def inspect_file(path: str | Path, peer: str | None = None) -> tuple[WeightsFile, LoadReport | None]:
    """A file's arrays, and how they differ from those of `peer`, if it is named."""
    path = Path(path)
    if peer is None:
        return read_arrays(path), None
    require_peer(peer)
    ours, fields = get_peer(peer)
    shapes = shapes_of(create_model(ours, **fields), get_variant(peer).input_shape)
    file = _read(peer, path, shapes)
    arrays = _renamed(file.arrays)
    _with_normalisation(arrays, None)
    return file, from_peer(peer, arrays, shapes)[1]


def require_peer(peer: str) -> None:
    """ConfigError unless another library's network is known by that name."""
    if peer not in list_peers():
        raise ConfigError(unknown("network of another library", peer, list_peers()))


def _split(name: str, fetched: bool) -> tuple[str, str]:
    """The network, and with its tag the published weights that `name` means; "" where it means a network alone."""
    if not fetched and (name in list_peers() or "." not in name):
        require_peer(name)
        return name, ""
    peer, tag, _ = find_published(name)
    return peer, f"{peer}.{tag}"


def _renamed(arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {_OLD_DENSENET.sub(r"\1", name): array for name, array in arrays.items()}


def _read(peer: str, path: Path, shapes: Variables) -> WeightsFile:
    return read_arrays(path, keras_layers(peer, shapes) if library_of(peer) == "keras" else None)


def differences(network: Network, other: Network) -> list[str]:
    """In which fields two networks compute differently from equal weights: `padding is 'same', there 'symmetric'`."""
    if type(network) is not type(other):
        return [f"it is a {type(network).__name__}, there it is a {type(other).__name__}"]
    return [
        f"{field.name} is {getattr(network, field.name)!r}, there {getattr(other, field.name)!r}"
        for field in dataclasses.fields(network)
        if field.name not in _NO_FIELDS
        and not any(fnmatchcase(field.name, pattern) for pattern in _OF_TRAINING)
        and getattr(network, field.name) != getattr(other, field.name)
    ]


def _entries(report: LoadReport, silent: Sequence[str]) -> list[tuple[str, str]]:
    """All but those that fit one of the patterns `silent`."""
    kinds = ("missing", "unexpected", "mis_shaped")
    entries = [(kind.replace("_", "-"), entry) for kind in kinds for entry in getattr(report, kind)]
    return [each for each in entries if not any(fnmatchcase(each[1], pattern) for pattern in silent)]


def _on_preparation(peer: str, prepared_as: str) -> list[str]:
    rows = published(peer)
    if prepared_as:
        return [f"images are prepared as for {prepared_as}"]
    if not rows:
        return [f"how images are prepared for {peer} is not known, so that nothing can be predicted; see --prepared-as"]
    others = [tag for row in rows[1:] for tag in row.tags]
    if not others:
        return []
    return [
        f"images are prepared as for {peer}.{rows[0].tags[0]}; of its other published weights {', '.join(others)} want "
        "another preparation: see --prepared-as"
    ]


def _application(peer: str) -> str:
    return peer.partition("/")[2].partition("+")[0]


def keras_layers(peer: str, variables: Variables) -> dict[str, list[str]]:
    """The layers of a Keras application by class and in order."""
    leaves, tensors = flatten(variables), peer_tensors(peer, variables)
    # Our dense layer may be a 1x1 convolution there.
    dimensions = {
        tensor.name: 4 if tensor.layout == "pointwise" else len(leaves[path].shape) for path, tensor in tensors.items()
    }
    depthwise = {tensor.name for tensor in tensors.values() if tensor.layout == "depthwise"}
    if _application(peer).startswith("EfficientNet"):
        dimensions["normalization/count"] = 0
    return layers_by_class(
        _application(peer), dimensions, frozenset(name.removesuffix("/kernel") for name in depthwise)
    )


def _with_normalisation(arrays: Arrays, preprocessing: Preprocessing | None) -> Preprocessing | None:
    """Takes the layer that normalises the images out of `arrays`, and into the preparation."""
    found = {leaf: arrays.pop(f"normalization/{leaf}", None) for leaf in ("mean", "variance", "count")}
    if preprocessing is None or found["mean"] is None or found["variance"] is None:
        return preprocessing
    variance = found["variance"].reshape(-1)
    published_file = variance.shape == (3,) and np.allclose(variance, _KERAS_DEVIATIONS, atol=1e-4)
    statistics = {"mean": found["mean"].reshape(-1), "std": variance if published_file else np.sqrt(variance)}
    rounded = {name: tuple(round(float(value), 6) for value in values) for name, values in statistics.items()}
    return preprocessing.model_copy(update={"order": "rgb", "scale": 255.0, **rounded})


def _normalisation(preprocessing: Preprocessing | None) -> Arrays:
    """The weights of Keras' layer, which gets pictures of 0..1."""
    if preprocessing is None:
        preprocessing = Preprocessing(size=(1, 1))
    if preprocessing.order != "rgb":
        raise WeightsError("this network of Keras takes red, green, blue; the weights want blue, green, red")
    scale = preprocessing.scale / 255
    mean, std = (np.broadcast_to(np.asarray(v, np.float32) * scale, 3) for v in (preprocessing.mean, preprocessing.std))
    values = {"mean": mean, "variance": std**2, "count": np.zeros((), np.int32)}
    return {f"normalization/{leaf}": value.astype(value.dtype) for leaf, value in values.items()}
