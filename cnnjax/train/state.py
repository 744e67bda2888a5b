"""Everything that a run carries from step to step: arrays only."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from chex import ArrayTree
from flax import struct

from cnnjax.nn.network import Network


class TrainState(struct.PyTreeNode):
    """The whole state of a run between two steps; with the data iterator's position, all a checkpoint needs."""

    step: jax.Array
    """() int32: optimizer updates made so far."""
    key: jax.Array
    """(2,) uint32 key data; each step folds its number into it, so a resumed run draws the same."""
    params: ArrayTree
    batch_stats: ArrayTree
    """BatchNorm's running statistics; empty for a network without it."""
    opt_state: ArrayTree
    ema: dict[str, ArrayTree] | None
    """Moving averages of "params" and "batch_stats", or None."""


def keys_of(seed: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The key of the first weights, and the one that a run's state carries."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    return init_key, run_key


def init_state(
    network: Network, optimizer: optax.GradientTransformation, seed: int, input_shape: tuple[int, int, int], ema: bool
) -> TrainState:
    """The state before the first step; a pure function of its arguments, which are those of `make_init`."""
    return make_init(network, optimizer, input_shape, ema)(seed)


@dataclass(frozen=True)
class Initialize:
    """A function from a seed, below 2**32, to the state before the first step; it is compiled once for all seeds."""

    _init: Callable[[jax.Array], TrainState]
    _compiled: Callable[[np.uint32], TrainState]

    def __call__(self, seed: int) -> TrainState:
        """The state before the first step."""
        return self._compiled(np.uint32(seed))

    def shapes(self) -> TrainState:
        """Its arrays' shapes and types alone; nothing is computed."""
        shapes: TrainState = jax.eval_shape(self._init, np.uint32(0))
        return shapes


def make_init(
    network: Network, optimizer: optax.GradientTransformation, input_shape: tuple[int, int, int], ema: bool
) -> Initialize:
    """How a run begins.

    Args:
        input_shape: (height, width, channels) of one image.
        ema: whether moving averages are kept.
    """

    def init(seed: jax.Array) -> TrainState:
        init_key, run_key = keys_of(seed)
        variables = network.init(init_key, jnp.zeros((1, *input_shape)), train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=jax.random.key_data(run_key),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            ema={"params": params, "batch_stats": batch_stats} if ema else None,
        )

    # XLA's CPU back end takes half a second to optimise each random draw of a program that runs once a seed.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    return Initialize(init, jax.jit(init, compiler_options=options))
