"""Which image files a source names, and what their labels are."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from cnnjax.config_base import expanded
from cnnjax.config_data import FolderSource, ManifestSource, MasksSource
from cnnjax.data.examples import Datasets, split_by_class
from cnnjax.data.files import Decoding, FileExamples, as_datasets
from cnnjax.data.paths import is_special
from cnnjax.errors import DataError
from cnnjax.registry import did_you_mean

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Files of other names are no images."""
SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation"))

Listed = tuple[list[str], list[str]]
"""Paths, and the class of each."""
Part = tuple[Sequence[str], np.ndarray | Sequence[str]]
"""Paths, and what `FileExamples` takes as labels."""


def load_files(source: FolderSource | ManifestSource | MasksSource, decoding: Decoding) -> Datasets:
    """The data sets of a source of image files, which are read later unless it says `in_memory`.

    Raises:
        DataError: a folder or file is missing, or they do not fit each other.
        ConfigError: the set cannot be split as the source says.
    """
    parts, names = list_files(source)
    train, test = (
        FileExamples(
            paths, labels, classes=len(names), decoding=decoding,
        )
        for paths, labels in parts
    )  # fmt: skip
    return as_datasets(train, test, names, read_now=source.in_memory)


def list_files(source: FolderSource | ManifestSource | MasksSource) -> tuple[list[Part], tuple[str, ...]]:
    """The files of the training set and of the held-out one, and the classes' names; errors as of `load_files`."""
    return _masked(source) if isinstance(source, MasksSource) else _labelled(source)


def _labelled(source: FolderSource | ManifestSource) -> tuple[list[Part], tuple[str, ...]]:
    listed = _folders(source) if isinstance(source, FolderSource) else _lines(source)
    names = _ordered({label for _, labels in listed for label in labels})
    numbers = {name: number for number, name in enumerate(names)}
    parts = [(paths, np.array([numbers[label] for label in labels], np.int32)) for paths, labels in listed]
    if len(parts) == 2:
        return [*parts], names
    ((paths, labels),) = parts
    chosen = split_by_class(labels, source.test_fraction, source.split_seed)
    return [([paths[index] for index in part], labels[part]) for part in chosen], names


def _masked(source: MasksSource) -> tuple[list[Part], tuple[str, ...]]:
    paths, masks = _pairs(source)
    chosen = split_by_class(np.zeros(len(paths), np.int32), source.test_fraction, source.split_seed)
    return [([paths[index] for index in part], [masks[index] for index in part]) for part in chosen], source.class_names


def _folders(source: FolderSource) -> list[Listed]:
    """All images, or those of the training set and the held-out ones."""
    folder = _require_folder(source.path, "data.source.path")
    if source.train is None or source.test is None:
        return [_classes(folder)]
    train, test = (
        _classes(_require_folder(folder / name, f"data.source.{part}"))
        for part, name in (("train", source.train), ("test", source.test))
    )
    if unknown := _only_held_out(train, test):
        raise DataError(f"'{folder / source.test}' has a class that '{folder / source.train}' has not: '{unknown}'")
    return [train, test]


def _only_held_out(train: Listed, test: Listed) -> str | None:
    """The first class that is held out and never trained on, if there is one."""
    return min(set(test[1]) - set(train[1]), default=None)


def _classes(folder: Path) -> Listed:
    paths, labels = [], []
    for name in _sub_folders(folder):
        found = _images(folder / name)
        paths += found
        labels += [name] * len(found)
    classes = sorted(set(labels))
    if classes and SPLITS.issuperset(classes):
        raise DataError(
            f"'{folder}' has the sub-folders {', '.join(classes)}, which look like sets, not classes; name them with "
            "data.source.train and data.source.test"
        )
    if len(classes) < 2:
        raise DataError(
            f"'{folder}' holds images of {'one class' if classes else 'no class'}, expected a sub-folder of images for "
            "each of two classes or more"
        )
    return paths, labels


def _sub_folders(folder: Path) -> list[str]:
    """Their names, which become those of classes."""
    try:
        names = sorted(each for each in os.listdir(folder) if not each.startswith(".") and (folder / each).is_dir())
    except OSError as error:
        _refuse(error)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"sub-folder {name!a} of '{folder}' names a class, but not in UTF-8; rename it") from None
    return names


def _images(folder: Path) -> list[str]:
    """The image files in a folder and below it, in the order of their paths; links to folders are followed."""
    found = []
    for here, below, files in os.walk(folder, onerror=_refuse, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        for path in (os.path.join(here, name) for name in below):
            if os.path.islink(path) and _leads_back(path, folder):
                raise DataError(f"'{path}' is a link to a folder that it lies in; remove it")
        found += [os.path.join(here, name) for name in files if _is_image(name)]
    return sorted(found)


def _leads_back(link: str, folder: Path) -> bool:
    """Whether it leads to one of the folders through which it was reached, or to one above them."""
    target, here = Path(os.path.realpath(link)), Path(link).parent
    through = [here, *here.parents]
    return any(Path(os.path.realpath(each)).is_relative_to(target) for each in through[: through.index(folder) + 1])


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _lines(source: ManifestSource) -> list[Listed]:
    """All images of a CSV file, or those of the training set and the held-out ones."""
    path = expanded(source.path)
    root = path.parent if source.folder is None else _require_folder(source.folder, "data.source.folder")
    parts: dict[str, Listed] = {"train": ([], [])}
    if source.split_column:
        parts["test"] = ([], [])
    for number, image, label, part in _rows(path, source):
        if part not in parts:
            raise DataError(f"line {number} of '{path}': {source.split_column} is '{part}', expected train or test")
        parts[part][0].append(os.path.join(root, image))
        parts[part][1].append(label)
    for part, (paths, _) in parts.items():
        if not paths:
            which = f" whose {source.split_column} is {part}" if source.split_column else ""
            raise DataError(f"'{path}' names no image{which}")
    if source.split_column and (unknown := _only_held_out(parts["train"], parts["test"])):
        raise DataError(f"'{path}' has a class in {source.split_column} test that train has not: '{unknown}'")
    return list(parts.values())


def _rows(path: Path, source: ManifestSource) -> Iterator[tuple[int, str, str, str]]:
    """Of each line its number, its image, its class, and `train` or what its column of splits says."""
    if is_special(path):
        raise DataError(f"'{path}' is a pipe or a device, expected a file")
    columns = [name for name in (source.path_column, source.label_column, source.split_column) if name]
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for column in columns:
                if column not in (known := reader.fieldnames or ()):
                    raise DataError(
                        f"the first line of '{path}' has no column '{column}'; {did_you_mean(column, known)}"
                    )
            for row in reader:
                if any(row.get(None, ())):  # what lies beyond the last column
                    raise DataError(
                        f"line {reader.line_num} of '{path}' has more fields than the first line has columns; put "
                        "quotes around a field with a comma"
                    )
                for column in columns:
                    if not row[column]:
                        raise DataError(f"line {reader.line_num} of '{path}' has no {column}")
                image, label, *part = (row[column] for column in columns)
                yield reader.line_num, image, label, part[0] if part else "train"
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' is no CSV file in UTF-8: {error}") from None
    except ValueError as error:  # a path that no file can have
        raise DataError(f"'{path}' cannot be read: {error}") from None


def _pairs(source: MasksSource) -> tuple[list[str], list[str]]:
    """Images and their masks."""
    images = _by_stem(_require_folder(source.images, "data.source.images"))
    masks = _by_stem(_require_folder(source.masks, "data.source.masks"))
    if not images:
        raise DataError(f"'{expanded(source.images)}' holds no image")
    lonely = sorted(set(images) ^ set(masks))
    if lonely:
        which = "mask" if lonely[0] in images else "image"
        path = (images | masks)[lonely[0]]
        raise DataError(f"'{path}' has no {which}: expected a file of that name, but for the ending")
    return [images[stem] for stem in sorted(images)], [masks[stem] for stem in sorted(images)]


def _by_stem(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _images(folder):
        stem = os.path.splitext(os.path.relpath(path, folder))[0]
        if stem in found:
            raise DataError(f"'{found[stem]}' and '{path}' have the same name but for the ending; which is it?")
        found[stem] = path
    return found


def _require_folder(path: Path, name: str) -> Path:
    folder = expanded(path)
    if not os.path.isdir(folder):
        raise DataError(f"{name} '{folder}' {'is not a folder' if os.path.exists(folder) else 'does not exist'}")
    return folder


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"'{error.filename}' cannot be read: {error.strerror or error}")


def _ordered(labels: set[str]) -> tuple[str, ...]:
    """In the order of their numbers, where they are all numbers; otherwise by their names' letters."""
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=_by_number))
    return tuple(sorted(labels))


def _by_number(label: str) -> tuple[int, str, str]:
    """By the number, however long it is; then by the name, since `1` and `01` are two classes of one number."""
    digits = label.lstrip("0")
    return len(digits), digits, label
