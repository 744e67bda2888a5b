"""Image files kept in a few large ones: a folder of ArrayRecord files that can be read in any order.

A folder of version 1 holds, of each set (`train` and `test`):

    train-00000-of-00004.arrayrecord ...   the records in the order of the examples, each a group of its own
    train-labels.npy                       (N,) int32, so that labels are known without reading images
    info.json                              `Info`, of both sets

A record is the label as four bytes (int32, little-endian), and then the image file's bytes as they were. Where a mask
is the label, it is the length of the mask's file (uint32, little-endian), that file's bytes, and then the image's, and
there is no `train-labels.npy`.
"""

import bisect
import itertools
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt, ValidationError

from cnnjax.config_base import Section, expanded
from cnnjax.config_data import ArrayRecordSource
from cnnjax.data.crops import Crop
from cnnjax.data.examples import Datasets
from cnnjax.data.files import DecodedExamples, Decoding, as_datasets
from cnnjax.data.image_files import Encoded
from cnnjax.errors import ConfigError, DataError, first_line

VERSION = 1
INFO = "info.json"
FORMAT = "cnnjax arrayrecord"
_WRITTEN_BY = "expected a folder that `cnnjax data convert` wrote"
# Random access: nothing is read ahead, and no threads besides those that ask.
_READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READ_BUFFER = 1 << 15


class ShardInfo(Section):
    """One file of records."""

    examples: PositiveInt
    bytes: PositiveInt
    """Of the whole file."""


class SplitInfo(Section):
    """One set."""

    classes: tuple[int, ...] | None
    """How many examples of each class; null where the labels are masks."""
    shards: tuple[ShardInfo, ...]

    @property
    def examples(self) -> int:
        """How many in all."""
        return sum(shard.examples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Of all files of records."""
        return sum(shard.bytes for shard in self.shards)


class Info(Section):
    """What `info.json` says."""

    format: Literal["cnnjax arrayrecord"]
    version: int
    records: Literal["label", "mask"]
    """What stands before the image's file in a record."""
    class_names: tuple[str, ...]
    train: SplitInfo
    test: SplitInfo


def shard_name(split: str, number: int, count: int) -> str:
    """Of the file with the `number`-th part of a set, counted from 0."""
    return f"{split}-{number:05d}-of-{count:05d}.arrayrecord"


def labels_name(split: str) -> str:
    """Of the file with a set's labels."""
    return f"{split}-labels.npy"


def pack(label: int | bytes, image: bytes) -> bytes:
    """A record, of an image file's bytes and the class or the mask file's bytes."""
    if isinstance(label, int):
        return struct.pack("<i", label) + image
    return struct.pack("<I", len(label)) + label + image


def unpack_label(record: bytes) -> tuple[int, bytes]:
    """The class and the image file's bytes; struct.error where the record is too short."""
    return struct.unpack_from("<i", record)[0], record[4:]


def unpack_mask(record: bytes) -> tuple[bytes, bytes]:
    """The mask file's bytes and the image file's; struct.error where the record is too short."""
    (length,) = struct.unpack_from("<I", record)
    if 4 + length > len(record):
        raise struct.error(f"a mask of {length} bytes in a record of {len(record)}")
    return record[4 : 4 + length], record[4 + length :]


class Records:
    """Random access to a set's records, for any number of threads; each process opens the files that it reads."""

    def __init__(self, paths: Sequence[str], counts: Sequence[int]) -> None:
        self._paths = tuple(paths)
        self._ends = tuple(itertools.accumulate(counts))
        # With its process, because what is open does not survive a fork; one tuple, so that threads never mix two.
        self._open: tuple[int, dict[int, Any]] = (os.getpid(), {})

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> bytes:
        shard, place = self._locate(index)
        try:
            record: bytes = self._reader(shard).read([place])[0]
        except RuntimeError as error:
            raise DataError(f"{self.name(index)} is damaged: {error}") from error
        return record

    def name(self, index: int) -> str:
        """How a message tells of a record."""
        shard, place = self._locate(index)
        return f"record {place} of '{self._paths[shard]}'"

    def _locate(self, index: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _reader(self, shard: int) -> Any:
        process, readers = self._open
        if process != os.getpid():
            process, readers = self._open = (os.getpid(), {})
        reader = readers.get(shard)
        if reader is None:
            # Two threads may both open it; one of the two is kept, and both read.
            reader = readers.setdefault(shard, open_records(self._paths[shard]))
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_ends": self._ends, "_open": (0, {})}


@dataclass(frozen=True, eq=False)
class RecordExamples(DecodedExamples):
    """A set's records as examples."""

    records: Records
    labels: np.ndarray | None
    """(N,) int32; None where the records hold masks."""

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one example's label: () or (height, width)."""
        return self.image_shape[:2] if self.labels is None else ()

    @property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; None where each pixel has one."""
        return self.labels

    def __len__(self) -> int:
        return len(self.records)

    def _load(self, index: int, crop: Crop | None) -> tuple[np.ndarray, int | np.ndarray]:
        record, name = self.records[index], self.records.name(index)
        try:
            if self.labels is None:
                mask, content = unpack_mask(record)
                image = Encoded(content, name)
                labels = self.decoding.mask(Encoded(mask, f"the mask in {name}"), image, self.classes, crop)
                return self.decoding.image(image, crop), labels
            label, content = unpack_label(record)
        except struct.error as error:
            raise DataError(f"{name} is damaged: {error}") from None
        if label != self.labels[index]:
            raise DataError(
                f"{name} has the label {label}, and the set's file of labels says {self.labels[index]}: the files are "
                "damaged, or of two conversions"
            )
        return self.decoding.image(Encoded(content, name), crop), label


def load_records(source: ArrayRecordSource, decoding: Decoding) -> Datasets:
    """The data sets of a folder of records, which are read later unless it says `in_memory`.

    Raises:
        DataError: the folder or a file in it is missing or damaged, or they do not fit each other.
        ConfigError: this platform cannot read records.
    """
    folder = expanded(source.path)
    info = read_info(folder)
    train, test = (
        RecordExamples(
            _open_split(folder, split, part), _read_labels(folder, split, part, info),
            classes=len(info.class_names), decoding=decoding,
        )
        for split, part in (("train", info.train), ("test", info.test))
    )  # fmt: skip
    return as_datasets(train, test, info.class_names, read_now=source.in_memory)


def read_info(folder: Path) -> Info:
    """What a folder of records says it holds; DataError where it says nothing, or nothing that is understood."""
    path = folder / INFO
    if not os.path.isdir(folder):
        state = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise DataError(f"data.source.path '{folder}' {state}; {_WRITTEN_BY}")
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
        version = values["version"] if isinstance(values, dict) and values.get("format") == FORMAT else VERSION
        if version != VERSION:
            raise DataError(f"'{path}' is of version {version}, and this cnnjax reads version {VERSION}; convert again")
        return Info.model_validate_json(text)
    except FileNotFoundError:
        raise DataError(f"'{folder}' has no {INFO}; {_WRITTEN_BY}") from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"'{path}' is damaged, or not of `cnnjax data convert`: {where}: {first['msg']}") from None
    except (ValueError, KeyError, RecursionError) as error:
        raise DataError(f"'{path}' is damaged, or not of `cnnjax data convert`: {error}") from None


def open_records(path: str) -> Any:
    """array_record's reader of one file.

    Raises:
        DataError: the file is missing, or damaged where it says how much it holds.
        ConfigError: this platform has no array_record.
    """
    module = array_record()
    if not os.path.isfile(path):
        raise DataError(f"'{path}' does not exist; its folder is not whole, convert again")
    reader = module.ArrayRecordReader(path, options=_READ_OPTIONS, file_reader_buffer_size=_READ_BUFFER)
    if not reader.ok():
        raise DataError(f"'{path}' is damaged, or no ArrayRecord file")
    return reader


def array_record() -> Any:
    """The library's module of readers and writers; ConfigError where the platform has none."""
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise ConfigError(
            f"ArrayRecord files need the package array-record, which cannot be imported here ({error}); install it "
            'with "pip install array-record", or use data.source.kind: folder where it has no build for the platform'
        ) from None
    return array_record_module


def _open_split(folder: Path, split: str, info: SplitInfo) -> Records:
    """A set whose files are all there and have the sizes that they should have."""
    count = len(info.shards)
    if not count:
        raise DataError(f"'{folder / INFO}' is damaged: it names no records of {split}")
    paths = [str(folder / shard_name(split, number, count)) for number in range(count)]
    for path, shard in zip(paths, info.shards, strict=True):
        reader = open_records(path)
        found = (reader.num_records(), os.path.getsize(path))
        reader.close()
        if found != (shard.examples, shard.bytes):
            raise DataError(
                f"'{path}' has {found[0]} records in {found[1]} bytes, and {INFO} says {shard.examples} in "
                f"{shard.bytes}: it is damaged, or of another conversion; convert again"
            )
    return Records(paths, [shard.examples for shard in info.shards])


def _read_labels(folder: Path, split: str, part: SplitInfo, info: Info) -> np.ndarray | None:
    if info.records == "mask":
        return None
    path = folder / labels_name(split)
    try:
        labels = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"'{path}' does not exist; its folder is not whole, convert again") from None
    except Exception as error:  # On damaged headers NumPy raises whatever their parsing meets.
        raise DataError(f"'{path}' is damaged, or no file of labels: {first_line(error)}") from error
    counts = None if part.classes is None else list(part.classes)
    whole = isinstance(labels, np.ndarray) and labels.dtype == np.int32 and labels.shape == (part.examples,)
    classes = len(info.class_names)
    if not whole or labels.min() < 0 or np.bincount(labels, minlength=classes).tolist() != counts:
        raise DataError(f"'{path}' does not fit {INFO}: it is damaged, or of another conversion; convert again")
    checked: np.ndarray = labels
    return checked
