"""A stage: residual blocks one after the other, rematerialised or scanned where asked."""

import functools
import operator
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.errors import ConfigError

_STACK = re.compile(r"block(\d+)to(\d+)")


class Block(Protocol):
    """What a stage is made of: a Linen module that is called with its input and its stochastic depth."""

    def __call__(self, x: jax.Array, drop_rate: jax.Array | None) -> jax.Array:
        """(batch, height, width, channels) likewise; `drop_rate` is the probability that its branch is dropped."""


class Stage(nn.Module):
    """Blocks named block1, block2, ...; a scanned run of equal blocks is one module, such as block2to6."""

    blocks: tuple["functools.partial[Any]", ...]
    """For each block its class with its fields, `functools.partial(Class, field=value, ...)`."""
    drop_rates: tuple[float, ...] | None = None
    """For each block the probability that its branch is dropped in training; None for no stochastic depth."""
    remat: bool = False
    """Keep only each block's input for the backward pass, and compute the rest again: less memory, more time."""
    scan: bool = False
    """Compile a run of equal blocks once. Its parameters are stacked along a new first axis."""
    keeps_channels: bool = True
    """Whether all blocks but the first have as many output as input channels, as residual blocks do. If not, the first
    of each run of equal blocks is not scanned."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to the shape of the last block's output."""
        rates = None if self.drop_rates is None else jnp.asarray(self.drop_rates, jnp.float32)
        first = 0
        for count in self._runs():
            last, block = first + count, self.blocks[first]
            module = nn.remat(block.func, prevent_cse=count == 1) if self.remat else block.func
            run_rates = None if rates is None else rates[first:last]
            if count == 1:
                rate = None if run_rates is None else run_rates[0]
                x = module(**block.keywords, name=f"block{last}")(x, rate)
            else:
                repeat = nn.scan(
                    lambda block, x, rate: (block(x, rate), None),
                    variable_axes={"params": 0, "batch_stats": 0},
                    split_rngs={"params": True, "dropout": True},
                    length=count,
                )
                x, _ = repeat(module(**block.keywords, name=f"block{first + 1}to{last}"), x, run_rates)
            first = last
        return x

    def _runs(self) -> list[int]:
        """How many blocks each module stands for."""
        if not self.scan:
            return [1] * len(self.blocks)
        # The first block changes the shape, or makes the shortcut that later ones do without.
        rest = groupby(self.blocks[1:], key=lambda block: (block.func, block.keywords))
        runs = [len(list(run)) for _, run in rest]
        if not self.keeps_channels:
            runs = [count for run in runs for count in (1, run - 1) if count]
        return [1, *runs]


def require_stages(sizes: tuple[int, ...], widths: tuple[int, ...]) -> None:
    """ConfigError unless both are of the same stages, one at least."""
    if not 0 < len(sizes) == len(widths):
        raise ConfigError(f"expected as many stage_sizes as stage_widths, got {sizes} and {widths}")


def require_shortcut(shortcut: str, stochastic_depth: float, otherwise: str) -> None:
    """ConfigError where stochastic depth drops all that there is; `otherwise` is the shortcut to propose."""
    if shortcut == "none" and stochastic_depth:
        raise ConfigError(
            f"stochastic_depth {stochastic_depth} drops residuals, but shortcut 'none' leaves nothing else; "
            f"choose shortcut: {otherwise} or stochastic_depth: 0"
        )


def linear_drop_rates(last: float, stage_sizes: tuple[int, ...]) -> list[tuple[float, ...] | None]:
    """Stochastic depth that grows with the depth, for each stage: from 0 at the first block of all to `last`."""
    if not last:
        return [None] * len(stage_sizes)
    count = sum(stage_sizes)
    rates = [last * index / max(count - 1, 1) for index in range(count)]
    ends = [sum(stage_sizes[: index + 1]) for index in range(len(stage_sizes))]
    return [tuple(rates[end - size : end]) for size, end in zip(stage_sizes, ends, strict=True)]


def is_stacked(names: Iterable[str]) -> bool:
    """Whether a variable, given by the names that lead to it, has the blocks of a scanned run along its first axis."""
    return any(_STACK.fullmatch(name) for name in names)


def unstack_blocks(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a scanned network (`block2to6`) as those of the same one without `scan` (`block2` ... `block6`)."""
    result: dict[str, Any] = {}
    for name, subtree in tree.items():
        match = _STACK.fullmatch(name)
        if match is not None:
            first, last = map(int, match.groups())
            for index in range(last - first + 1):
                result[f"block{first + index}"] = jax.tree.map(operator.itemgetter(index), subtree)
        else:
            result[name] = unstack_blocks(subtree) if isinstance(subtree, Mapping) else subtree
    return result


def stack_blocks(tree: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a network without `scan` in the form of the same network's with it, whose names `like` has."""
    result: dict[str, Any] = {}
    for name, subtree in like.items():
        match = _STACK.fullmatch(name)
        if match is not None:
            first, last = map(int, match.groups())
            parts = [tree[f"block{index}"] for index in range(first, last + 1)]
            result[name] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
        else:
            result[name] = stack_blocks(tree[name], subtree) if isinstance(subtree, Mapping) else tree[name]
    return result
