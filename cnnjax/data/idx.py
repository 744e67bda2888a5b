"""The IDX file format of the MNIST web page, gzip-compressed or not.

Two zero bytes, a byte for the type of the values, a byte for the number of dimensions; then each dimension as four
bytes and the values in C order, all big-endian.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from cnnjax.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 32


def read_idx(path: str | Path) -> np.ndarray:
    """Reads one IDX file; its first bytes tell whether it is compressed.

    Returns:
        An array of the file's shape in the machine's byte order, read-only where the file holds single bytes.

    Raises:
        DataError: the file cannot be read, is damaged, not IDX, empty, or not as long as its header says.
    """
    path = Path(path)
    content = _read(path)
    if len(content) < 4:
        raise DataError(f"'{path}' is truncated: {len(content)} bytes do not hold an IDX header")
    zeros, kind, dimensions = content[:2], content[2], content[3]
    if zeros != b"\0\0" or kind not in _TYPES or not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise DataError(
            f"'{path}' is not an IDX file: it begins with {content[:4].hex()}, expected 00000803 for images or "
            "00000801 for labels"
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"'{path}' is truncated: its header of {header} bytes is cut off at {len(content)}")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    dtype = np.dtype(_TYPES[kind])
    size = " x ".join(map(str, shape))
    expected, got = math.prod(shape) * dtype.itemsize, len(content) - header
    if not expected:
        raise DataError(f"'{path}' is empty: its header says {size}")
    if got < expected:
        raise DataError(f"'{path}' is truncated: its header says {size}, {expected} bytes, and {got} follow")
    if got > expected:
        raise DataError(f"'{path}' has {got - expected} bytes too many: its header says {size}, {expected} bytes")
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def find_idx(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder, or the one with `.gz` added or taken off; None where there is neither."""
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    return next((folder / each for each in (name, other) if os.path.exists(folder / each)), None)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}") from None
    if not content.startswith(_GZIP_MAGIC):
        if path.suffix == ".gz":
            raise DataError(
                f"'{path}' is not gzip-compressed although its name says so; was it decompressed on its way here?"
            )
        return content
    try:
        return gzip.decompress(content)
    except EOFError:
        raise DataError(f"'{path}' is truncated: its gzip data ends too early") from None
    except (zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise DataError(f"'{path}' holds damaged gzip data: {error}") from None
