"""The IDX reader: what it reads, and that every fault is one sentence that names the file."""

import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnnjax.data.idx import find_idx, read_idx
from cnnjax.errors import DataError

TYPES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def encode(values: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, TYPES[values.dtype.name], values.ndim, *values.shape)
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(7,), (3, 2, 5), (2, 1, 2, 3)])
@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_was_written(tmp_path, dtype, shape, compressed):
    values = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    # No .gz in the name: the content alone tells.
    path = tmp_path / "values"
    path.write_bytes(gzip.compress(encode(values)) if compressed else encode(values))
    read = read_idx(path)
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype
    assert read.dtype.isnative


GOOD = encode(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", "truncated"),
        ("a", GOOD[:3], "truncated: 3 bytes"),
        ("a", GOOD[:9], "truncated: its header of 16 bytes is cut off at 9"),
        ("a", GOOD[:-1], "truncated: its header says 3 x 2 x 2, 12 bytes, and 11 follow"),
        ("a", GOOD + b"x", "1 bytes too many: its header says 3 x 2 x 2"),
        ("a", b"\1" + GOOD[1:], "not an IDX file: it begins with 01000803, expected 00000803"),
        ("a", b"\0\0\7" + GOOD[3:], "not an IDX file"),
        ("a", b"\0\0\x08\0abcd", "not an IDX file"),
        ("a", b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x", "not an IDX file"),
        ("a", b"<!DOCTYPE html>", "not an IDX file"),
        ("a", b"\0\0\x08\3" + b"\xff" * 12 + b"abc", "truncated: its header says 4294967295 x 4294967295 x 4294967295"),
        ("a", b"\0\0\x08\3" + b"\xff" * 8 + b"\0" * 4, "is empty: its header says 4294967295 x 4294967295 x 0"),
        ("a", encode(np.zeros((0, 28, 28), np.uint8)), "is empty: its header says 0 x 28 x 28"),
        ("a.gz", GOOD, "not gzip-compressed although its name says so"),
        ("a.gz", PACKED[:-9], "truncated: its gzip data ends too early"),
        ("a.gz", PACKED[:12], "truncated"),
        ("a.gz", PACKED[:5], "gzip"),
        ("a.gz", PACKED[:10] + b"\xff" * 8 + PACKED[18:], "damaged gzip data"),
        ("a.gz", PACKED[:-6] + b"\0\0" + PACKED[-4:], "damaged gzip data: CRC"),
        ("a.gz", PACKED + b"trailing", "damaged gzip data"),
        ("a.gz", gzip.compress(GOOD[:-1], mtime=0), "truncated: its header says 3 x 2 x 2, 12 bytes, and 11 follow"),
        ("a.gz", gzip.compress(b"text", mtime=0), "not an IDX file: it begins with 74657874"),
    ],
)
def test_faults_are_one_sentence_with_the_file(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_idx(path)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"absent' cannot be read: No such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_idx(tmp_path)


def test_a_small_file_that_grows_without_end_is_not_read_to_it(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(1 << 28)))
    tracemalloc.start()
    with pytest.raises(DataError, match="has bytes too many: its header says 3 x 2 x 2, 12 bytes"):
        read_idx(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 22
    path.write_bytes(gzip.compress(b"\0\0\x08\3" + b"\xff" * 12 + bytes(100)))
    with pytest.raises(DataError, match="is truncated: its header says 4294967295 x 4294967295 x 4294967295"):
        read_idx(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe' is a pipe or a device, expected a file"):
        read_idx(tmp_path / "pipe")


@given(st.binary(max_size=64), st.sampled_from([b"", b"\0\0", b"\0\0\x08\3", b"\x1f\x8b\x08\0", PACKED[:20]]))
@example(b"", PACKED)
def test_any_bytes_give_an_array_or_a_data_error(tmp_path_factory, content, start):
    path = tmp_path_factory.getbasetemp() / "any_bytes"
    path.write_bytes(start + content)
    fault = None
    try:
        assert read_idx(path).size
    except DataError as error:
        fault = str(error)
    assert fault is None or str(path) in fault


@pytest.mark.parametrize(
    ("present", "asked", "found"),
    [
        (["x"], "x", "x"),
        (["x.gz"], "x", "x.gz"),
        (["x"], "x.gz", "x"),
        (["x", "x.gz"], "x", "x"),
        (["x", "x.gz"], "x.gz", "x.gz"),
        (["y"], "x", None),
    ],
)
def test_finds_the_file_with_or_without_gz(tmp_path, present, asked, found):
    for name in present:
        (tmp_path / name).touch()
    assert find_idx(tmp_path, asked) == (tmp_path / found if found else None)
