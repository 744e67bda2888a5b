"""How long a step would take at least, by a chip's published peaks: an estimate, and never a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cnnjax.aot.chips import Chip
from cnnjax.aot.collectives import Collectives
from cnnjax.aot.programs import Program

Bound = Literal["compute", "memory", "interconnect"]


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


def estimate(program: Program, chip: Chip, devices: int, *, float32: bool) -> Estimate:
    """By arithmetic, by traffic with the chip's memory, and by what a ring of all devices passes on.

    Args:
        program: a compiled one.
        float32: whether the network computes in float32 rather than bfloat16.
    """
    peak = chip.flops * (chip.float32_share if float32 else 1)
    return Estimate(
        compute=(program.flops or 0) / peak,
        memory=(program.bytes_accessed or 0) / chip.memory_bandwidth,
        interconnect=ring_bytes(program.collectives or [], devices) / chip.link_bandwidth,
    )


def ring_bytes(collectives: Sequence[Collectives], devices: int) -> float:
    """Bytes that each of so many devices sends: a reduction to all goes around the ring twice, all else once."""
    share = (devices - 1) / devices
    return sum(each.bytes * share * (2 if each.kind == "all-reduce" else 1) for each in collectives)
