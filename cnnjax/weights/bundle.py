"""Weights with all that is needed to use them, and the file that holds them.

The file is a `.safetensors` with our own names (`stage2/block1/conv2/conv/kernel`). Its metadata has under `cnnjax` a
JSON object: the network's name and fields, the shape of its images, their preparation, the classes, and where the
weights come from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, ValidationError

from cnnjax.config_base import Section
from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import create_model
from cnnjax.nn.network import Network
from cnnjax.version import __version__
from cnnjax.weights.convert import LoadReport, Variables, flatten, shapes_of, unflatten
from cnnjax.weights.files import kind_of, read_arrays, write_arrays
from cnnjax.weights.preprocessing import Preprocessing

_KEY, _FORMAT = "cnnjax", 1


class _Description(Section):
    """What the metadata says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    version: str
    model: str
    fields: dict[str, Any]
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    origin: str


@dataclass(frozen=True, eq=False)
class Weights:
    """A network's variables and what goes with them."""

    model: str
    """A name that `create_model` takes."""
    fields: Mapping[str, Any]
    """Those of its fields that differ from the variant's."""
    input_shape: tuple[int, int, int]
    """(height, width, channels) of the images it was trained on."""
    variables: Variables
    """{"params": tree, "batch_stats": tree}, for `network.apply`."""
    preprocessing: Preprocessing | None = None
    """How pictures become its input; None where nobody said."""
    labels: tuple[str, ...] = ()
    """The names of its classes, as far as they have some."""
    origin: str = ""
    """Where the weights come from."""
    network: Network = field(init=False, repr=False)
    """Built from `model` and `fields`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", create_model(self.model, **self.fields))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The variables by `module/path/leaf`."""
        return {path: np.asarray(array) for path, array in flatten(self.variables).items()}

    def describe(self) -> dict[str, Any]:
        """All but the arrays, as JSON has it."""
        return _Description(
            format=_FORMAT,
            version=__version__,
            model=self.model,
            fields=dict(self.fields),
            input_shape=self.input_shape,
            preprocessing=self.preprocessing,
            labels=self.labels,
            origin=self.origin,
        ).model_dump(mode="json")


def save_weights(path: str | Path, weights: Weights) -> None:
    """Writes our own file.

    Raises:
        WeightsError: its name does not end in .safetensors, or it cannot be written.
    """
    path = Path(path)
    if kind_of(path) != ".safetensors":
        raise WeightsError(f"{path}: our own weights are written as .safetensors; other files need --as")
    write_arrays(path, weights.arrays, metadata={_KEY: json.dumps(weights.describe())})


def load_weights(path: str | Path) -> Weights:
    """Reads our own file, as `save_weights` and `cnnjax weights import` write it.

    Raises:
        WeightsError: the file is missing, damaged or another library's, or its arrays are not the network's.
    """
    path = Path(path)
    file = read_arrays(path)
    description = read_description(path, file.metadata)
    if description is None:
        raise WeightsError(
            f"{path} does not say which network it is of; 'cnnjax weights import LIBRARY/NETWORK FILE' brings it in"
        )
    try:
        network = create_model(description.model, **description.fields)
    except ConfigError as error:
        raise WeightsError(f"{path} is of a network that is not here: {error}") from None
    shapes = shapes_of(network, description.input_shape)
    compare(file.arrays, flatten(shapes)).refuse(str(path))
    return Weights(
        model=description.model,
        fields=description.fields,
        input_shape=description.input_shape,
        variables=unflatten(file.arrays, shapes),
        preprocessing=description.preprocessing,
        labels=description.labels,
        origin=description.origin,
    )


def read_description(path: Path, metadata: Mapping[str, str]) -> _Description | None:
    """What a file says of itself; None where it is not ours.

    Raises:
        WeightsError: it is ours, but cannot be understood.
    """
    if _KEY not in metadata:
        return None
    try:
        found = json.loads(metadata[_KEY])
        if isinstance(found, dict) and found.get("format") != _FORMAT:
            raise WeightsError(f"{path} has format {found.get('format')}, this version reads {_FORMAT}; update cnnjax")
        return _Description.model_validate(found)
    except (ValueError, RecursionError) as error:  # among them pydantic's
        reason = f"{error.error_count()} faults" if isinstance(error, ValidationError) else str(error)
        raise WeightsError(f"{path}: its metadata cannot be understood ({reason})") from None


def compare(arrays: Mapping[str, Any], wanted: Mapping[str, Any]) -> LoadReport:
    """How arrays under our own names differ from a network's."""
    return LoadReport(
        missing=tuple(path for path in wanted if path not in arrays),
        unexpected=tuple(path for path in arrays if path not in wanted),
        mis_shaped=tuple(
            f"{path}: {tuple(wanted[path].shape)} here, {tuple(arrays[path].shape)} there"
            for path in wanted
            if path in arrays and tuple(arrays[path].shape) != tuple(wanted[path].shape)
        ),
    )
