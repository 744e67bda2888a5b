"""How a run's state lies on the devices: whole on each, or with its large arrays cut into a part for each.

Rajbhandari et al. 2019 (ZeRO, arXiv:1910.02054): what only the update reads need not be on every device, and parameters
can be brought together for a step. The step is the same function; these constraints are all that differs.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax.config_parallel import ShardState
from cnnjax.train.state import TrainState

AXIS = "data"


@dataclass(frozen=True)
class Layout:
    """Where each array of a state lies."""

    mesh: Mesh
    shard_state: ShardState = "none"
    shard_from: int = 1
    """Numbers that an array must have to be cut."""

    @property
    def whole(self) -> NamedSharding:
        """All of an array on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def of(self, state: TrainState) -> TrainState:
        """The same tree with a sharding for each array, or for each array's shape."""
        params = self._cut(state.params) if self.shard_state == "all" else self._whole(state.params)
        apart = self._whole if self.shard_state == "none" else self._cut
        shardings: TrainState = state.replace(
            step=self.whole,
            key=self.whole,
            params=params,
            batch_stats=self._whole(state.batch_stats),
            opt_state=apart(state.opt_state),
            ema=apart(state.ema),
        )
        return shardings

    def constrain(self, state: TrainState) -> TrainState:
        """The state, within a step, laid out so."""
        laid: TrainState = lax.with_sharding_constraint(state, self.of(state))
        return laid

    def gather(self, params: Any) -> Any:
        """The parameters, within a step, whole on each device, as a pass over a part of the batch needs them."""
        return lax.with_sharding_constraint(params, self._whole(params))

    def scatter(self, gradients: Any) -> Any:
        """Gradients, within a step, summed where the part of the state lies that they change."""
        return lax.with_sharding_constraint(gradients, self._cut(gradients))

    def _whole(self, tree: Any) -> Any:
        return jax.tree.map(lambda _: self.whole, tree)

    def _cut(self, tree: Any) -> Any:
        return jax.tree.map(self._sharding, tree)

    def _sharding(self, leaf: Any) -> NamedSharding:
        """Cut along its longest dimension that the devices divide, the last one of equals."""
        fitting = [place for place, size in enumerate(leaf.shape) if size % self.mesh.size == 0]
        if not fitting or math.prod(leaf.shape) < self.shard_from:
            return self.whole
        longest = max(fitting, key=lambda place: (leaf.shape[place], place))
        return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, AXIS))
