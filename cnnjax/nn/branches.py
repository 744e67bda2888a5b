"""Inception modules as data: parallel branches of convolutions and pools whose outputs are concatenated."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.nn.layers import ConvNorm, Layers, Size, SqueezeExcite
from cnnjax.ops.padding import Padding
from cnnjax.ops.pooling import average_pool, max_pool


@dataclass(frozen=True)
class Conv:
    """A convolution with its normalisation and activation."""

    features: int
    kernel_size: Size = 1
    stride: int = 1
    padding: Padding | None = None
    """None for the network's."""


@dataclass(frozen=True)
class Pool:
    """A pool; by default one that keeps the size."""

    kind: Literal["max", "average"]
    window: int = 3
    stride: int = 1
    padding: Padding = "same"
    count_padding: bool = False
    """Whether an average counts the padding."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, smaller height, smaller width, channels)."""
        if self.kind == "max":
            return max_pool(x, self.window, self.stride, self.padding)
        return average_pool(x, self.window, self.stride, self.padding, count_padding=self.count_padding)


@dataclass(frozen=True)
class Fork:
    """Convolutions that all see the same input; their outputs are concatenated."""

    arms: tuple[Conv, ...]


Step: TypeAlias = Conv | Pool | Fork
Branch: TypeAlias = tuple[str, tuple[Step, ...]]
"""A name, and what follows what; no steps at all passes the input on."""


def rescale(steps: tuple[Step, ...], channels: Callable[[int], int]) -> tuple[Step, ...]:
    """The same steps with `channels(features)` in place of each convolution's features."""

    def wider(conv: Conv) -> Conv:
        return replace(conv, features=channels(conv.features))

    return tuple(
        wider(step)
        if isinstance(step, Conv)
        else Fork(tuple(wider(arm) for arm in step.arms))
        if isinstance(step, Fork)
        else step
        for step in steps
    )


class Branches(nn.Module):
    """Parallel branches of one input, concatenated along the channels in their order.

    The n-th convolution of a branch is `NAME/convN`, and arm m of a fork `NAME/convN_armM`: pools do not count.
    """

    layers: Layers
    branches: tuple[Branch, ...]
    se_ratio: int = 0
    """Squeeze-and-excitation of the result, its hidden width the channels divided by this; 0 for none."""

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, channels) to (batch, smaller height, smaller width, sum of the branches' channels).

        `drop_rate` is for `Stage`: there is no shortcut that would be left, so nothing is dropped.
        """
        x = jnp.concatenate(
            [Chain(self.layers, steps, name=name)(x) if steps else x for name, steps in self.branches], -1
        )
        if self.se_ratio:
            x = SqueezeExcite(self.layers, max(1, x.shape[-1] // self.se_ratio), name="squeeze_excite")(x)
        return x


class Chain(nn.Module):
    """Steps one after the other: one branch, or a stem. The n-th convolution is `convN`."""

    layers: Layers
    steps: tuple[Step, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, smaller height, smaller width, the last step's channels)."""
        number = 0
        for step in self.steps:
            if isinstance(step, Pool):
                x = step(x)
                continue
            number += 1
            if isinstance(step, Conv):
                x = self._conv(step, f"conv{number}", x)
            else:
                arms = enumerate(step.arms, 1)
                x = jnp.concatenate([self._conv(arm, f"conv{number}_arm{index}", x) for index, arm in arms], -1)
        return x

    def _conv(self, step: Conv, name: str, x: jax.Array) -> jax.Array:
        return ConvNorm(self.layers, step.features, step.kernel_size, step.stride, step.padding, name=name)(x)
