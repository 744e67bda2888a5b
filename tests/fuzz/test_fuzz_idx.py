"""IDX files that are damaged in any way are refused in a sentence, or read as another reader reads these very bytes."""

import gzip
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from campaign import QUICK, THOROUGH, refused, run
from mutations import mutate_bytes

from cnnjax.config_data import DataConfig
from cnnjax.data.idx import read_idx
from cnnjax.data.sources import load
from cnnjax.errors import DataError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def encode(code: int, values: np.ndarray) -> bytes:
    """An IDX file of a type of values."""
    header = bytes((0, 0, code, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(f">{TYPES[code]}").tobytes()


def by_hand(content: bytes, compressed: bool) -> np.ndarray | None:
    """What an IDX file holds, where it is one: no more and no less than its header says, and not empty."""
    if content[:2] == b"\x1f\x8b":
        packed, content = content, b""
        while packed:
            member = zlib.decompressobj(wbits=31)
            try:
                content += member.decompress(packed)
            except zlib.error:
                return None
            if not member.eof:
                return None
            packed = member.unused_data.lstrip(b"\0")
    elif compressed:
        return None
    if len(content) < 4:
        return None
    rank = content[3]
    if content[:2] != b"\0\0" or content[2] not in TYPES or not 1 <= rank <= 32 or len(content) < 4 + 4 * rank:
        return None
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank)]
    rest, size = content[4 + 4 * rank :], int(TYPES[content[2]][1])
    for side in shape:
        size *= side
    if not size or len(rest) != size:
        return None
    return np.ndarray(shape, f">{TYPES[content[2]]}", rest)


FILES = [
    encode(code, np.random.default_rng(code).integers(0, 100, shape))
    for code in TYPES
    for shape in ((7,), (3, 5, 4), (2, 1, 2, 3))
]


@pytest.mark.parametrize("total", [QUICK, pytest.param(THOROUGH, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_mutated_idx_files(total, tmp_path):
    def mutation(random: random.Random) -> str:
        return random.choice((_file, _file, _data_set))(random, tmp_path)

    run("idx", total, mutation)


def _file(random: random.Random, folder: Path) -> str:
    path = folder / random.choice(("values", "values.gz"))
    path.write_bytes(_mutated(random, random.choice(FILES), path.suffix == ".gz"))
    expected = by_hand(path.read_bytes(), path.suffix == ".gz")
    if expected is None:
        with pytest.raises(DataError) as caught:
            read_idx(path)
        return refused(caught.value, str(path))
    found = read_idx(path)
    assert (found.shape, found.dtype.newbyteorder(">")) == (expected.shape, expected.dtype)
    assert found.astype(expected.dtype).tobytes() == expected.tobytes()
    return "read"


def _data_set(random: random.Random, folder: Path) -> str:
    contents = [
        encode(8, np.random.default_rng(number).integers(0, 10, shape))
        for number, shape in enumerate(((20, 6, 6), (20,), (10, 6, 6), (10,)))
    ]
    damaged = random.randrange(4)
    contents[damaged] = _mutated(random, contents[damaged], False)
    if random.random() < 0.1:
        contents[damaged] = contents[random.randrange(4)]
    for name, content in zip(NAMES, contents, strict=True):
        (folder / name).write_bytes(content)
    arrays = [by_hand(content, False) for content in contents]
    try:
        data = load(DataConfig.model_validate({"source": {"kind": "idx", "path": folder}, "image_size": None}))
    except DataError as error:
        return f"of a set, {refused(error, *(str(folder / name) for name in NAMES), 'training and test images')}"
    for examples, images, labels in ((data.train, *arrays[:2]), (data.test, *arrays[2:])):
        read = examples.read(np.arange(len(examples)))
        np.testing.assert_array_equal(read.images[..., 0], images)
        np.testing.assert_array_equal(read.labels, labels)
        assert read.labels.max() < 10
    return "of a set, read"


def _mutated(random: random.Random, content: bytes, compressed: bool) -> bytes:
    order = random.randrange(4)
    if order == 0:
        return mutate_bytes(random, content)
    if order == 1:
        return mutate_bytes(random, gzip.compress(content, mtime=0))
    content = mutate_bytes(random, content)
    return gzip.compress(content, mtime=0) if compressed or order == 2 else content
