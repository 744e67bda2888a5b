"""Random bits that are the same on every machine and with every NumPy."""

import hashlib

import numpy as np


def random_stream(purpose: str, *numbers: int) -> np.random.Philox:
    """A stream of its own for each purpose and each tuple of numbers, such as a seed and an epoch.

    Draw from it with `random_raw` alone: NumPy keeps the stream of a bit generator over its versions, whereas the
    methods of `numpy.random.Generator` may change.
    """
    name = ":".join((purpose, *map(str, numbers)))
    return np.random.Philox(key=int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))


def uniform(stream: np.random.Philox, *shape: int) -> np.ndarray:
    """float64 in [0, 1), of the given shape."""
    words = stream.random_raw(int(np.prod(shape)))
    return (words >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53


def bell(stream: np.random.Philox, *shape: int) -> np.ndarray:
    """float32 of mean 0 and standard deviation 1 that are nearly normal, of the given shape.

    Each is the sum of the eight bytes of one word (Irwin-Hall): exact integers, so that no logarithm or cosine of some
    mathematics library decides the last bit. No value is beyond 4.9.
    """
    word_bytes = stream.random_raw(int(np.prod(shape))).view(np.uint8).reshape(*shape, 8)
    sums = word_bytes.sum(-1, dtype=np.int32)
    return ((sums - 8 * 127.5) / np.sqrt(8 * (256**2 - 1) / 12)).astype(np.float32)
