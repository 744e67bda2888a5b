"""TPU chips as published: memory, arithmetic and bandwidths, for what is only an estimate."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """What one device of a kind can do at most, by its vendor's numbers."""

    name: str
    flops: float
    """Multiplications and additions a second in bfloat16."""
    memory_bytes: int
    memory_bandwidth: float
    """Bytes a second between the chip and its memory."""
    link_bandwidth: float
    """Bytes a second between the chip and all its neighbours, one direction."""
    dimensions: int
    """Of the torus that the links make of many chips."""
    float32_share: float = 0.25
    """Of `flops` in float32, which takes several passes: an assumption, not a published number."""


# Google's Cloud TPU documentation, system architecture pages: bfloat16 peak, HBM, interchip bandwidth by chip (both
# directions together, so half of it is what one direction has).
CHIPS: dict[str, Chip] = {
    "v4": Chip("TPU v4", 275e12, 32 * GIB, 1200e9, 300e9 / 2, 3),
    "v5e": Chip("TPU v5e", 197e12, 16 * GIB, 819e9, 400e9 / 2, 2),
    "v5p": Chip("TPU v5p", 459e12, 95 * GIB, 2765e9, 1200e9 / 2, 3),
    "v6e": Chip("TPU v6e", 918e12, 32 * GIB, 1640e9, 800e9 / 2, 2),
}
