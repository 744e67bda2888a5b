"""Networks side by side with those of other libraries: each in a process of its own, taking turns."""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

from cnnjax.bench.contestants import Mode
from cnnjax.config import ConvLowering
from cnnjax.errors import ConfigError, RunError
from cnnjax.models import get_peer, get_variant, list_peers

# The networks by which a change of the convolutions is judged: one of each kind.
NETWORKS = (
    *("alexnet_owt", "vgg16", "googlenet_bn", "resnet18", "resnet50", "se_resnet50", "resnext50_32x4d", "densenet121"),
    *("inception_v3", "xception", "mobilenet_v1", "efficientnet_b0", "unet_same"),
)
TORCH = ("torchvision", "timm", "torch")
JAX = ("keras", "flax", "native")
LIBRARIES = (*TORCH, *JAX)
# What a library has without our table of peers knowing it: Keras has the stride of a bottleneck in its first
# convolution, the others are not compared number by number.
_AKIN = {
    "resnet18": ("flax/ResNet18",),
    "resnet50": ("keras/ResNet50", "flax/ResNet50"),
    "vgg16": ("flax/VGG16",),
    "unet_same": ("torch/unet_same",),
    "lenet5_modern": ("torch/lenet5_modern",),
}
# These libraries have a training loop here.
_LOOPS = ("cnnjax", "torch")


def contestants_of(name: str, libraries: Sequence[str], mode: Mode = "forward") -> list[tuple[str, ConvLowering]]:
    """Who computes a network of ours: we, we with XLA's own convolutions, and the libraries that have it."""
    get_variant(name)
    found: list[tuple[str, ConvLowering]] = [(f"cnnjax/{name}", "auto")]
    if "native" in libraries:
        found.append((f"cnnjax/{name}", "native"))
    for library in libraries:
        same = [peer for peer in list_peers() if peer.startswith(f"{library}/") and get_peer(peer)[0] == name]
        same += [peer for peer in _AKIN.get(name, ()) if peer.startswith(f"{library}/")]
        if same:
            plain = min(same, key=len)
            found.append((plain, "auto"))
            if library in TORCH:
                found.append((f"{plain}+nhwc", "auto"))
    if mode == "loop":
        found = [each for each in found if each[0].partition("/")[0] in _LOOPS]
    return found


def measure_models(
    name: str, libraries: Sequence[str] = LIBRARIES, *, mode: Mode = "forward", batch: int = 8, rounds: int = 7
) -> list[dict[str, Any]]:
    """Times a network of ours and of others, in turns.

    Args:
        name: of a network of ours.
        libraries: those to compare with; `native` is ours with XLA's own convolutions, which cost what any plain
            Linen network costs; `torch` are plain PyTorch modules for networks that no library has.
        mode: `forward`, `train` (a step on a batch that is there) or `loop` (training on a data set in memory).
        rounds: how many turns each takes; the median counts.

    Returns:
        For each, ours first: `name`, `lowering`, `images_per_second`, `seconds` (of a step, all turns) and
        `peak_bytes` (of its whole process); but for `loop`, `build_seconds` and `first_step_seconds`; of ours, also
        `trace_seconds`, `lower_seconds`, `compile_seconds`, `operations` and `temporary_bytes`.

    Raises:
        ConfigError: no such network or library.
        RunError: a contestant failed.
    """
    unknown = [library for library in libraries if library not in LIBRARIES]
    if unknown:
        raise ConfigError(f"--peers: expected some of {', '.join(LIBRARIES)}; got {unknown[0]}")
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        running = []
        for contestant, lowering in contestants_of(name, libraries, mode):
            # One after the other, so that none compiles while another warms up.
            ask, ready = stack.enter_context(_started(contestant, mode, batch, lowering))
            running.append(ask)
            rows.append(
                {"name": contestant, "lowering": lowering, "mode": mode, "batch": batch, **ready, "seconds": []}
            )
        for _ in range(rounds):
            for ask, row in zip(running, rows, strict=True):
                found = ask("\n")
                row["seconds"].append(found["seconds"])
                row["peak_bytes"] = found["peak_bytes"]
    for row in rows:
        row["images_per_second"] = batch / statistics.median(row["seconds"])
    return rows


def best_of(rows: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """The fastest PyTorch (`torch`) or other JAX contestant (`jax`) of a measurement; None where there is none."""
    libraries = TORCH if kind == "torch" else JAX
    peers = [row for row in rows[1:] if _library_of(row) in libraries]
    return max(peers, key=lambda row: row["images_per_second"], default=None)


def _library_of(row: Mapping[str, Any]) -> str:
    library = str(row["name"]).partition("/")[0]
    return "native" if library == "cnnjax" and row["lowering"] == "native" else library


def _why_it_ended(code: int, told: IO[str]) -> str:
    if code == -signal.SIGKILL:
        return "the system ended its process, most likely for want of memory; take a smaller --batch, or fewer peers"
    told.seek(0)
    lines = told.read().strip().splitlines()
    return lines[-1] if lines else f"its process ended with code {code}"


@contextmanager
def _started(
    name: str, mode: Mode, batch: int, lowering: ConvLowering
) -> Iterator[tuple[Callable[[str], dict[str, float]], dict[str, float]]]:
    words = [sys.executable, "-m", "cnnjax.bench.contestants", name, mode, str(batch), lowering]
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, text=True) as process,
    ):

        def ask(message: str) -> dict[str, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.poll() is None:
                process.stdin.write(message)
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise RunError(f"{name} cannot be timed: {_why_it_ended(process.wait(), told)}")
            found: dict[str, float] = json.loads(line)
            return found

        try:
            yield ask, ask("")
        finally:
            process.kill()
