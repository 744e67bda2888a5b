"""How long a step would take by a chip's published peaks: an estimate, and never a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cnnjax.aot.chips import Chip
from cnnjax.aot.collectives import Collectives

Bound = Literal["compute", "memory", "interconnect"]


@dataclass(frozen=True)
class Work:
    """What one device does in one run of a program."""

    flops: float
    bytes_accessed: float
    """Between it and its memory."""
    collectives: Sequence[Collectives]
    float32: bool
    """Whether it computes in float32 rather than bfloat16."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that each part of a step takes if nothing holds it up, and all overlap perfectly."""

    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """Of the step: those of its longest part."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound(self) -> Bound:
        """Which part that is."""
        parts: dict[Bound, float] = {
            "compute": self.compute,
            "memory": self.memory,
            "interconnect": self.interconnect,
        }
        return max(parts, key=parts.__getitem__)


def estimate(work: Work, chip: Chip, devices: int) -> Estimate:
    """By arithmetic, by traffic with the chip's memory, and by what a ring of all devices passes on."""
    peak = chip.flops * (chip.float32_share if work.float32 else 1)
    return Estimate(
        compute=work.flops / peak,
        memory=work.bytes_accessed / chip.memory_bandwidth,
        interconnect=ring_bytes(work.collectives, devices) / chip.link_bandwidth,
    )


def ring_bytes(collectives: Sequence[Collectives], devices: int) -> float:
    """Bytes that each of so many devices sends: a reduction to all goes around the ring twice, all else once."""
    share = (devices - 1) / devices
    return sum(each.bytes * share * (2 if each.kind == "all-reduce" else 1) for each in collectives)


# A message's way from chip to chip: an assumption, of the order that vendors and papers give.
SECONDS_A_HOP = 1e-6


@dataclass(frozen=True)
class Prediction:
    """A step on so many chips, each with the same share of the batch as in the program that was compiled."""

    devices: int
    at_best: float
    """Seconds, if what is sent hides behind what is computed."""
    at_worst: float
    """Seconds, if nothing does: the chip waits for each collective's bytes and for its hops."""


def predict(work: Work, chip: Chip, devices: int) -> Prediction:
    """Weak scaling by a model: the program of any number of chips is the same but for the ring that it sends around.

    A collective takes 2 (n - 1) / n of its bytes over a chip's links if it is a sum for all, half of it if not, and one
    hop for each step along each side of the torus, there and back.

    Args:
        work: of a program for several devices, so that its collectives are known.
        devices: a power of two.
    """
    alone = estimate(work, chip, devices)
    hops = 2 * sum(side - 1 for side in torus(devices, chip.dimensions))
    waiting = sum(each.count for each in work.collectives) * hops * SECONDS_A_HOP
    computing = max(alone.compute, alone.memory)
    return Prediction(devices, max(computing, alone.interconnect), computing + alone.interconnect + waiting)


def torus(devices: int, dimensions: int) -> tuple[int, ...]:
    """Sides that are as equal as powers of two can be, such as (16, 8) for 128 chips in two dimensions."""
    power = devices.bit_length() - 1
    return tuple(2 ** (power // dimensions + (place < power % dimensions)) for place in range(dimensions))
