"""Image files into a folder of records: what a source names, byte for byte and in the source's order.

In that order, because an example keeps its number: a run on the folder is the run on the files, bit for bit. Training
shuffles anew in every epoch, and reads records in any order alike.
"""

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.config_base import expanded
from cnnjax.config_data import FolderSource, ManifestSource, MasksSource, Source
from cnnjax.data.examples import require_labels
from cnnjax.data.files import in_threads
from cnnjax.data.folders import Part, list_files
from cnnjax.data.image_files import Encoded, name_of, read_image, read_mask, upright_size
from cnnjax.data.records import (
    FORMAT,
    INFO,
    VERSION,
    Info,
    ShardInfo,
    SplitInfo,
    array_record,
    labels_name,
    open_records,
    pack,
    shard_name,
)
from cnnjax.errors import CnnjaxWarning, ConfigError, DataError

_BLOCK = 64
"""Files that are read and checked at once, before their records are written in order."""
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote."""

    path: Path
    info: Info
    skipped: dict[str, int]
    """Of `train` and `test`: files that cannot be read, and were left out."""


def convert(source: Source, out: Path, *, shard_megabytes: int = 256) -> Converted:
    """Writes the image files that a source names as a folder for `data.source.kind: arrayrecord`.

    Every file is decoded once to see that it can be, and then written as it is. The folder appears under its name when
    it is whole; until then it is called `OUT.partial`.

    Args:
        source: of image files; its `broken` says what becomes of those that cannot be read.
        out: a folder that is empty or not there yet.
        shard_megabytes: a file of records ends before it would become larger, in 10^6 bytes.

    Raises:
        ConfigError: the source is none of image files, or `out` is not such a folder.
        DataError: files are missing or, unless they are skipped, broken; or the folder cannot be written.
    """
    if not isinstance(source, FolderSource | ManifestSource | MasksSource):
        raise ConfigError(
            f"data.source.kind: {source.kind} is not converted; expected image files: folder, manifest or masks"
        )
    out = expanded(out)
    try:
        if out.is_symlink() or not out.name:  # what gets the folder's name at the end is no link, nor `.`
            out = out.resolve()
        partial = _require_empty(out)
    except OSError as error:
        raise DataError(f"'{out}' cannot be written: {error.strerror or error}") from error
    parts, names = list_files(source)
    try:
        partial.mkdir(parents=True)
        try:
            converted = _write(source, parts, names, partial, shard_megabytes * _MEGABYTE)
            partial.replace(out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise DataError(f"'{out}' cannot be written: {error.strerror or error}") from error
    return Converted(out, converted.info, converted.skipped)


def describe_converted(converted: Converted) -> dict[str, Any]:
    """A conversion as JSON, with the names that `cnnjax data show` uses."""
    sets = {"train": converted.info.train, "test": converted.info.test}
    return {
        "path": str(converted.path),
        "records": converted.info.records,
        "class_names": list(converted.info.class_names),
        "examples": {name: each.examples for name, each in sets.items()},
        "classes": {name: None if each.classes is None else list(each.classes) for name, each in sets.items()},
        "skipped": converted.skipped,
        "shards": {name: len(each.shards) for name, each in sets.items()},
        "bytes": {name: each.bytes for name, each in sets.items()},
    }


def _require_empty(out: Path) -> Path:
    """What the folder is called until it is whole."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"'{out}' is a file, expected the name of a folder to write")
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"'{out}' is not empty; name another folder, or empty it first")
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists():
        raise ConfigError(
            f"'{partial}' exists: another conversion writes it, or one was killed; in the second case remove it"
        )
    return partial


def _write(
    source: FolderSource | ManifestSource | MasksSource,
    parts: list[Part],
    names: tuple[str, ...],
    folder: Path,
    shard_bytes: int,
) -> Converted:
    written = {
        split: _write_split(source, split, part, len(names), folder, shard_bytes)
        for split, part in zip(("train", "test"), parts, strict=True)
    }
    info = Info(
        format=FORMAT,
        version=VERSION,
        records="mask" if isinstance(source, MasksSource) else "label",
        class_names=names,
        train=written["train"][0],
        test=written["test"][0],
    )
    (folder / INFO).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Converted(folder, info, {split: skipped for split, (_, skipped) in written.items()})


def _write_split(
    source: FolderSource | ManifestSource | MasksSource,
    split: str,
    part: Part,
    classes: int,
    folder: Path,
    shard_bytes: int,
) -> tuple[SplitInfo, int]:
    """What was written, and how many files were left out."""
    paths, labels = part
    shards = _Shards(folder, split, shard_bytes)
    kept = []
    for start in range(0, len(paths), _BLOCK):
        block = range(start, min(start + _BLOCK, len(paths)))
        for index, record in zip(block, _read_block(source, paths, labels, block, classes), strict=True):
            if record is not None:
                shards.write(record)
                kept.append(index)
    if not kept:
        raise DataError(f"none of the {len(paths)} images of the set {split} can be read")
    infos = shards.close()
    if not isinstance(labels, np.ndarray):
        return SplitInfo(classes=None, shards=infos), len(paths) - len(kept)
    own = labels[kept]
    np.save(folder / labels_name(split), own)
    counts = tuple(np.bincount(own, minlength=classes).tolist())
    return SplitInfo(classes=counts, shards=infos), len(paths) - len(kept)


def _read_block(
    source: FolderSource | ManifestSource | MasksSource,
    paths: Sequence[str],
    labels: np.ndarray | Sequence[str],
    block: range,
    classes: int,
) -> list[bytes | None]:
    """The records of some files; None for what cannot be read, where that is skipped."""
    records: list[bytes | None] = [None] * len(block)

    def read_one(place: int) -> None:
        index = block[place]
        try:
            image = _read_file(paths[index])
            read_image(image, size=None, channels=source.channels)
            if isinstance(labels, np.ndarray):
                records[place] = pack(int(labels[index]), image.content)
            else:
                mask = _read_file(labels[index])
                _require_mask(mask, image, classes)
                records[place] = pack(mask.content, image.content)
        except DataError as error:
            if source.broken == "error":
                raise
            warnings.warn(f"{error}; it is left out", CnnjaxWarning, stacklevel=2)

    in_threads(read_one, range(len(block)))
    return records


def _read_file(path: str) -> Encoded:
    try:
        return Encoded(Path(path).read_bytes(), f"image '{path}'")
    except OSError as error:
        raise DataError(f"image '{path}' cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of a name with a null byte
        raise DataError(f"image '{path}' cannot be read: {error}") from None


def _require_mask(mask: Encoded, image: Encoded, classes: int) -> None:
    size = upright_size(mask)
    if size != upright_size(image):
        raise DataError(f"{name_of(mask)} has another size than its {name_of(image)}")
    require_labels(read_mask(mask, size=size), classes, name_of(mask))


class _Shards:
    """Writes a set's records into files of at most so many bytes, which get their names once their number is known."""

    def __init__(self, folder: Path, split: str, most_bytes: int) -> None:
        self._folder, self._split, self._most_bytes = folder, split, most_bytes
        self._paths: list[Path] = []
        self._counts: list[int] = []
        self._writer: Any = None
        self._bytes = 0

    def write(self, record: bytes) -> None:
        """Adds a record."""
        if self._writer is not None and self._bytes + len(record) > self._most_bytes:
            self._finish()
        try:
            if self._writer is None:
                self._paths.append(self._folder / f"{self._split}-{len(self._paths):05d}")
                self._counts.append(0)
                self._bytes = 0
                # A group each, for access in any order; images are compressed already.
                self._writer = array_record().ArrayRecordWriter(str(self._paths[-1]), "group_size:1,uncompressed")
            self._writer.write(record)
        except RuntimeError as error:
            raise DataError(f"'{self._folder}' cannot be written: {error}") from error
        self._bytes += len(record)
        self._counts[-1] += 1

    def close(self) -> tuple[ShardInfo, ...]:
        """Ends the last file, and names all of them."""
        self._finish()
        infos = []
        for number, (path, count) in enumerate(zip(self._paths, self._counts, strict=True)):
            infos.append(ShardInfo(examples=count, bytes=os.path.getsize(path)))
            path.rename(self._folder / shard_name(self._split, number, len(self._paths)))
        return tuple(infos)

    def _finish(self) -> None:
        try:
            self._writer.close()
        except RuntimeError as error:
            raise DataError(f"'{self._folder}' cannot be written: {error}") from error
        self._writer = None
        # The writer may fail in silence, on a full disk for one.
        reader = open_records(str(self._paths[-1]))
        found = reader.num_records()
        reader.close()
        if found != self._counts[-1]:
            raise DataError(f"'{self._folder}' cannot be written: {found} of {self._counts[-1]} records arrived")
