"""Keras' HDF5 files of weights: the only place for h5py."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from cnnjax.errors import WeightsError
from cnnjax.weights.keras_layers import leaves_of

# Names that Keras gives in the order in which a process makes layers: they say nothing from one file to the next.
_AUTOMATIC = re.compile(r"(conv2d|batch_normalization|separable_conv2d|dense|normalization)(_\d+)?")
_Layer = tuple[str, dict[str, np.ndarray]]


def read_keras(path: Path, layers: Mapping[str, Sequence[str]] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file by `layer/weight`, layers with automatic names numbered from 0 within the model.

    Reads Keras 3's `.weights.h5`, and the older layout that the published weights of keras.applications have.

    Args:
        layers: names by class, as `layers_by_class` gives them. Early releases of Keras 3 left them out of the file;
            there, without `layers`, `conv2d_12` is the thirteenth of all convolutions.

    Raises:
        OSError: h5py cannot read it.
        WeightsError: an HDF5 file of something else.
    """
    with h5py.File(path, "r") as file:
        groups = (group for group in (file, file.get("model_weights")) if isinstance(group, h5py.Group))
        older = next((group for group in groups if "layer_names" in group.attrs), None)
        if older is not None:
            found = _older_layers(older)
        elif isinstance(file.get("layers"), h5py.Group):
            found = _layers(file["layers"], layers or {})
        else:
            raise WeightsError(f"{path} is an HDF5 file, but not one of Keras' weights")
        counts: dict[str, int] = {}
        arrays = {}
        for name, leaves in found:
            if automatic := _AUTOMATIC.fullmatch(name):
                kind = automatic[1]
                name = kind if kind == "normalization" else f"{kind}_{counts.get(kind, 0)}"
                counts[kind] = counts.get(kind, 0) + 1
            arrays.update({f"{name}/{leaf}": array for leaf, array in leaves.items()})
        return arrays


def write_keras(path: Path, layers: Mapping[str, Sequence[str]], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes what `keras.Model.load_weights` reads.

    Args:
        layers: names by class, as `layers_by_class` gives them.
        arrays: by `layer/weight`.

    Raises:
        OSError: it cannot be written.
    """
    with h5py.File(path, "w") as file:
        for keras_class, names in layers.items():
            for number, layer in enumerate(names):
                own = {name.removeprefix(f"{layer}/") for name in arrays if name.startswith(f"{layer}/")}
                group = file.create_group(f"layers/{keras_class}{f'_{number}' if number else ''}/vars")
                group.attrs["name"] = layer
                for index, leaf in enumerate(leaves_of(keras_class, len(own))):
                    group.create_dataset(str(index), data=arrays[f"{layer}/{leaf}"])


def _layers(file: h5py.Group, known: Mapping[str, Sequence[str]]) -> Iterator[_Layer]:
    """Keras 3's layers that have weights, each class in its order."""
    classes: dict[str, list[tuple[int, h5py.Group]]] = {}
    for name, layer in file.items():
        weights = layer.get("vars") if isinstance(layer, h5py.Group) else None
        if isinstance(weights, h5py.Group) and len(weights):
            numbered = re.fullmatch(r"(.+?)(?:_(\d+))?", name)
            assert numbered
            classes.setdefault(numbered[1], []).append((int(numbered[2] or 0), weights))
    for keras_class, groups in classes.items():
        for number, weights in sorted(groups, key=lambda each: each[0]):
            names = known.get(keras_class, ())
            unnamed = names[number] if number < len(names) else f"{keras_class}_{number}"
            leaves = leaves_of(keras_class, len(weights))
            name = str(weights.attrs.get("name", unnamed))
            yield name, {leaf: np.asarray(weights[str(index)]) for index, leaf in enumerate(leaves)}


def _older_layers(file: h5py.Group) -> Iterator[_Layer]:
    """The layers of Keras 2's files, in the model's order."""
    for name in _texts(file.attrs["layer_names"]):
        weights = {
            text.rpartition("/")[2].partition(":")[0]: np.asarray(file[name][text])
            for text in _texts(file[name].attrs["weight_names"])
        }
        if "depthwise_kernel" in weights and "pointwise_kernel" not in weights:  # what Keras 3 calls kernel
            weights["kernel"] = weights.pop("depthwise_kernel")
        if weights:
            yield name, weights


def _texts(values: Sequence[bytes | str]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
