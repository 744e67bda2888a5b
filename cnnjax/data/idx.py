"""The IDX file format of the MNIST web page, gzip-compressed or not.

Two zero bytes, a byte for the type of the values, a byte for the number of dimensions; then each dimension as four
bytes and the values in C order, all big-endian.
"""

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data.paths import is_special
from cnnjax.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 32
# Of what gzip compresses best, one byte holds 1032.
_MOST_GROWTH = 1100


class _Header(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    length: int
    """In bytes."""

    @property
    def values_length(self) -> int:
        """Of what must follow it, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_idx(path: str | Path) -> np.ndarray:
    """Reads one IDX file; its first bytes tell whether it is compressed.

    Returns:
        An array of the file's shape in the machine's byte order, read-only where the file holds single bytes.

    Raises:
        DataError: the file cannot be read, is damaged, not IDX, empty, or not as long as its header says.
    """
    path = Path(path)
    content, compressed = _read(path)
    header = _header_of(content)
    if isinstance(header, str):
        raise DataError(f"'{path}' {header}")
    dtype, shape, length = header
    size = " x ".join(map(str, shape))
    expected, got = header.values_length, len(content) - length
    if not expected:
        raise DataError(f"'{path}' is empty: its header says {size}")
    if got < expected:
        raise DataError(f"'{path}' is truncated: its header says {size}, {expected} bytes, and {got} follow")
    if got > expected:
        more = "bytes" if compressed else f"{got - expected} bytes"  # compressed, they were not all read
        raise DataError(f"'{path}' has {more} too many: its header says {size}, {expected} bytes")
    return np.frombuffer(content, dtype, offset=length).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def find_idx(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder, or the one with `.gz` added or taken off; None where there is neither."""
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    return next((folder / each for each in (name, other) if os.path.exists(folder / each)), None)


def _header_of(content: bytes) -> _Header | str:
    """The header with which a file begins, or what is wrong with it."""
    if len(content) < 4:
        return f"is truncated: {len(content)} bytes do not hold an IDX header"
    zeros, kind, dimensions = content[:2], content[2], content[3]
    if zeros != b"\0\0" or kind not in _TYPES or not 1 <= dimensions <= _MOST_DIMENSIONS:
        return (
            f"is not an IDX file: it begins with {content[:4].hex()}, expected 00000803 for images or 00000801 for "
            "labels"
        )
    length = 4 + 4 * dimensions
    if len(content) < length:
        return f"is truncated: its header of {length} bytes is cut off at {len(content)}"
    return _Header(np.dtype(_TYPES[kind]), struct.unpack(f">{dimensions}I", content[4:length]), length)


def _read(path: Path) -> tuple[bytes, bool]:
    """What a file holds, and whether it was compressed."""
    if is_special(path):
        raise DataError(f"'{path}' is a pipe or a device, expected a file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}") from None
    if not content.startswith(_GZIP_MAGIC):
        if path.suffix == ".gz":
            raise DataError(
                f"'{path}' is not gzip-compressed although its name says so; was it decompressed on its way here?"
            )
        return content, False
    try:
        return _decompress(content), True
    except EOFError:
        raise DataError(f"'{path}' is truncated: its gzip data ends too early") from None
    except (zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise DataError(f"'{path}' holds damaged gzip data: {error}") from None


def _decompress(content: bytes) -> bytes:
    """As much as the header says and a byte more: a small file may grow to any size."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        start = file.read(4 + 4 * _MOST_DIMENSIONS)
        header = _header_of(start)
        if isinstance(header, str):
            return start
        rest = header.length + header.values_length + 1 - len(start)
        return start + file.read(max(0, min(rest, _MOST_GROWTH * len(content))))
