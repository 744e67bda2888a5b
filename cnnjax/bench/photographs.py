"""How fast photographs are decoded, cut, flipped and normalised: ours beside PyTorch's loader, in turns."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, TypedDict

import jax
import numpy as np
from PIL import Image

from cnnjax.augment.batches import make_batch_change
from cnnjax.bench.pages import Row, add_row
from cnnjax.config import Config
from cnnjax.data.loader import Shard, train_batches
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError
from cnnjax.parallel import make_executor
from cnnjax.train.step import normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90  # ImageNet's commonest size
_FILES = 512
# Until the reader before has made ahead what it may, and leaves the cores alone.
_SETTLE_SECONDS = 2.0


class Reader(TypedDict):
    """One way of reading, and how fast it was."""

    library: str
    workers: int
    scaled_decoding: bool
    images_per_second: float
    rounds: list[float]


def measure_photographs(
    workers: Sequence[int], *, with_torch: bool, size: int = 224, batch: int = 64, batches: int = 8, rounds: int = 5
) -> dict[str, Any]:
    """Times the training input of ImageNet: a random-resized crop, a flip, and floats of mean 0 and deviation 1.

    The files are JPEGs of 500x375, cut out of scikit-learn's two photographs. Ours end on the device.

    Args:
        workers: numbers of reading processes to try, for each library; 0 is ours with threads, PyTorch's without any.
        with_torch: whether to try PyTorch's too.
        batches: of one turn.

    Returns:
        `size`, `batch`, and `readers`: the median and all of the rounds, in each of which all take their turn.

    Raises:
        ConfigError: PyTorch or torchvision is not installed.
    """
    if with_torch and not all(find_spec(name) for name in ("torch", "torchvision")):
        raise ConfigError("--torch needs torch and torchvision; install them, or leave it out")
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), _FILES)
        turns: list[tuple[Reader, Callable[[int], float]]] = []
        children: list[subprocess.Popen[str]] = []
        try:
            for count in workers:
                for scaled in (False, True):
                    turns.append((_reader("cnnjax", count, scaled), _ours(folder, size, batch, count, scaled)))
                if with_torch:
                    children.append(_start_torch(folder, size, batch, count))
                    turns.append((_reader("torch", count, False), _asks(children[-1])))
            for _ in range(rounds):
                for reader, turn in turns:
                    sleep(_SETTLE_SECONDS)
                    reader["rounds"].append(turn(batches))
        finally:
            for child in children:
                child.kill()
                child.wait()
    for reader, _ in turns:
        reader["images_per_second"] = statistics.median(reader["rounds"])
    return {"size": size, "batch": batch, "readers": [reader for reader, _ in turns]}


def write_photographs(folder: Path, count: int) -> None:
    """JPEGs in two classes' folders: parts of scikit-learn's photographs, each at a place of its own, some mirrored."""
    from sklearn.datasets import load_sample_image

    random = np.random.default_rng(0)
    for name in ("china", "flower"):
        photograph = load_sample_image(f"{name}.jpg")  # (427, 640, 3)
        (folder / name).mkdir()
        for number in range(count // 2):
            top = random.integers(photograph.shape[0] - _HEIGHT)
            left = random.integers(photograph.shape[1] - _WIDTH)
            part = photograph[top : top + _HEIGHT, left : left + _WIDTH][:, :: random.choice((-1, 1))]
            Image.fromarray(np.ascontiguousarray(part)).save(folder / name / f"{number}.jpg", quality=_QUALITY)


def _reader(library: str, workers: int, scaled: bool) -> Reader:
    return {"library": library, "workers": workers, "scaled_decoding": scaled, "images_per_second": 0.0, "rounds": []}


def _ours(folder: str, size: int, batch: int, workers: int, scaled: bool) -> Callable[[int], float]:
    source = {"kind": "folder", "path": folder, "test_fraction": 0.1, "scaled_decoding": scaled}
    changes = [{"kind": "resized_crop"}, {"kind": "flip"}]
    data = {"source": source, "image_size": size, "batch_size": batch, "augment": changes, "workers": workers}
    config = Config.model_validate({"data": data, "parallel": {"devices": 1}})
    put, change, key = make_executor(config).put_batch, make_batch_change(config.data.changes), jax.random.key(0)
    prepare = jax.jit(lambda images: normalize(change(images, key)["image"], MEAN, STD))
    read = train_batches(
        load(config.data).train,
        batch_size=batch,
        seed=0,
        shard=Shard(),
        put=put,
        workers=workers,
        crop=config.data.crop,
    )
    prepare(next(read))

    def turn(count: int) -> float:
        for _ in range(config.data.prefetch + workers):  # made while others had their turn
            next(read)
        start = perf_counter()
        for _ in range(count):
            jax.block_until_ready(prepare(next(read)))
        return count * batch / (perf_counter() - start)

    return turn


def _start_torch(folder: str, size: int, batch: int, workers: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cnnjax.bench.torch_loader", folder, *map(str, (size, batch, workers))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _asks(child: "subprocess.Popen[str]") -> Callable[[int], float]:
    stdin, stdout = child.stdin, child.stdout
    assert stdin is not None
    assert stdout is not None
    assert stdout.readline() == "ready\n"

    def turn(count: int) -> float:
        print(count, file=stdin, flush=True)
        return float(stdout.readline())

    return turn


def add_to_report(row: Row, folder: Path) -> Path:
    """Adds a measurement to a folder's page; an earlier one of the same size and JAX gives way."""
    return add_row(row, folder, lambda row: (row["size"], row["environment"]["packages"]["jax"]), _page)


def _page(rows: Sequence[Row], folder: Path) -> list[str]:
    lines = [
        "# How fast do photographs come?",
        "",
        "JPEGs of 500x375 pixels, decoded, cut at random, resized, flipped at random and normalised, as for ImageNet;",
        "all readers take turns on the same cores, and the median of each one's turns counts. Ours end on the device,",
        "PyTorch's in the host's memory. With 0 workers ours decode in threads, PyTorch's in one process.",
    ]
    for row in rows:
        peers = [each["images_per_second"] for each in row["readers"] if each["library"] == "torch"]
        lines += ["", f"## To {row['size']}x{row['size']}, batch {row['batch']}", ""]
        lines += ["| reader | workers | scaled decoding | images/s | of PyTorch's best |", "|---|---|---|---|---|"]
        for each in row["readers"]:
            rate, scaled = each["images_per_second"], "yes" if each["scaled_decoding"] else "no"
            ratio = f"{rate / max(peers):.2f}" if peers else ""
            lines.append(f"| {each['library']} | {each['workers']} | {scaled} | {rate:,.0f} | {ratio} |")
    return lines
