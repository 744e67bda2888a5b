"""Data sets of Hugging Face `datasets` as examples; needs the extra `hf`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.config_base import expanded
from cnnjax.config_data import HfSource
from cnnjax.data.crops import Crop
from cnnjax.data.examples import Datasets
from cnnjax.data.files import DecodedExamples, Decoding, as_datasets
from cnnjax.data.image_files import Encoded
from cnnjax.errors import ConfigError, DataError, first_line
from cnnjax.registry import did_you_mean


@dataclass(frozen=True, eq=False)
class HfExamples(DecodedExamples):
    """A split as examples; images that are kept encoded are decoded as files are."""

    rows: Any
    """The split's column of images, not decoded."""
    column: str
    labels: np.ndarray
    """(N,) int32."""
    where: str
    """The split, as messages name it."""

    @property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class."""
        return self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def _load(self, index: int, crop: Crop | None) -> tuple[np.ndarray, int | np.ndarray]:
        name = f"row {index} of {self.where}"
        value = self.rows[index][self.column]
        if isinstance(value, list):
            image = self.decoding.pixels(np.array(value, np.uint8), name, crop)
        elif value is not None and value["bytes"] is not None:
            image = self.decoding.image(Encoded(value["bytes"], name), crop)
        elif value is not None and value["path"] is not None:
            image = self.decoding.image(value["path"], crop)
        else:
            raise DataError(f"{name} holds no image")
        return image, int(self.labels[index])


def load_hf(source: HfSource, decoding: Decoding) -> Datasets:
    """The data sets of a folder or a name, which are read later unless the source says `in_memory`.

    Raises:
        ConfigError: the extra is missing, or the data set has no such split or column, or none of the kind needed.
        DataError: the data set is not there, cannot be read or downloaded, or has rows without a label.
    """
    library = _library()
    splits = _splits(library, source)
    where = f"'{source.name}'" if source.path is None else f"'{expanded(source.path)}'"
    parts = []
    for field, name in (("train", source.train), ("test", source.test)):
        if name not in splits:
            raise ConfigError(f"data.source.{field}: {where} has no split '{name}'; {did_you_mean(name, splits)}")
        parts.append((splits[name], f"split {name} of {where}"))
    names = _class_names(library, source, *parts[0])
    if _class_names(library, source, *parts[1]) != names:
        raise DataError(f"{where} has other classes in split {source.test} than in split {source.train}")
    train, test = (
        HfExamples(
            _images(library, source, rows, told), source.image, _labels(rows, source.label, len(names), told), told,
            classes=len(names), decoding=decoding,
        )
        for rows, told in parts
    )  # fmt: skip
    return as_datasets(train, test, names, read_now=source.in_memory)


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError("data.source.kind: hf needs the extra `hf`: pip install 'cnnjax[hf]'") from None
    return datasets


def _splits(library: Any, source: HfSource) -> dict[str, Any]:
    """All splits by their names."""
    if source.path is not None:
        return _folder(library, expanded(source.path), source.configuration)
    assert source.name is not None
    try:
        if source.download:
            return dict(library.load_dataset(source.name, source.configuration))
        # The builder that the library itself takes without a network, and that looks nowhere else.
        from datasets.packaged_modules.cache.cache import Cache

        builder = Cache(
            dataset_name=source.name.split("/")[-1], repo_id=source.name, config_name=source.configuration,
            version="auto", hash="auto",
        )  # fmt: skip
        builder.download_and_prepare()
        return dict(builder.as_dataset())
    except Exception as error:  # Networks, disks and other people's files: all of it is told, none is ours.
        if source.download:
            raise DataError(f"data.source.name '{source.name}' could not be loaded: {first_line(error)}") from error
        raise DataError(
            f"data.source.name '{source.name}' is not in the cache of Hugging Face datasets ({first_line(error)}); set "
            "data.source.download: true to download it, or name a folder in data.source.path"
        ) from error


def _folder(library: Any, folder: Path, configuration: str | None) -> dict[str, Any]:
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"data.source.path '{folder}' {state}; expected a folder of save_to_disk, or of Parquet or image files"
        )
    if (folder / "state.json").is_file():
        raise DataError(f"'{folder}' holds a single data set, expected splits, as DatasetDict.save_to_disk writes them")
    try:
        if (folder / "dataset_dict.json").is_file():
            return dict(library.load_from_disk(str(folder)))
        return dict(library.load_dataset(str(folder), configuration))
    except Exception as error:  # Disks and other people's files: all of it is told, none is ours.
        raise DataError(f"'{folder}' cannot be read as a data set of Hugging Face: {first_line(error)}") from error


def _class_names(library: Any, source: HfSource, rows: Any, where: str) -> tuple[str, ...]:
    for field, name in (("image", source.image), ("label", source.label)):
        if name not in rows.features:
            raise ConfigError(
                f"data.source.{field}: {where} has no column '{name}'; {did_you_mean(name, rows.features)}"
            )
    label = rows.features[source.label]
    if not isinstance(label, library.ClassLabel):
        raise ConfigError(f"data.source.label: column '{source.label}' of {where} is {label}, expected ClassLabel")
    return tuple(label.names)


def _images(library: Any, source: HfSource, rows: Any, where: str) -> Any:
    """The column of images alone, as it is kept."""
    feature = rows.features[source.image]
    images = rows.with_format(None).select_columns([source.image])
    if isinstance(feature, library.Image):
        return images.cast_column(source.image, library.Image(decode=False))
    if isinstance(feature, library.Array2D | library.Array3D) and feature.dtype == "uint8":
        return images
    raise ConfigError(
        f"data.source.image: column '{source.image}' of {where} is {feature}, expected Image, or Array2D or Array3D of "
        "uint8"
    )


def _labels(rows: Any, column: str, classes: int, where: str) -> np.ndarray:
    values = rows.with_format(None).select_columns([column])[:][column]
    for row, label in enumerate(values):
        if label is None or not 0 <= label < classes:
            raise DataError(
                f"row {row} of {where} has {'no label' if label is None else f'the label {label}'}, expected 0 to "
                f"{classes - 1}; a split without labels cannot be used"
            )
    if not values:
        raise DataError(f"{where} is empty")
    return np.array(values, np.int32)
