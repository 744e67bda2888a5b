"""Runs the same pure step over devices: under jit over a mesh, or under pmap."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnnjax.config import ConvLowering
from cnnjax.config_parallel import ShardState
from cnnjax.ops.onednn import CompilerOptions, compiler_options
from cnnjax.parallel.layout import AXIS, Layout
from cnnjax.train.metrics import Batch, Metrics
from cnnjax.train.state import TrainState
from cnnjax.train.step import BatchAxis, EvalStep, TrainStep

_SEEDS = "seeds"


@dataclass(frozen=True)
class Executor:
    """Runs a step over devices: jit over a mesh, or pmap. The step itself is the same function."""

    kind: Literal["jit", "pmap"]
    mesh: Mesh
    lowering: ConvLowering = "xla"
    """How the network's convolutions are to be written for it."""
    shard_state: ShardState = "none"
    shard_from: int = 1
    """As in the config, under jit alone."""

    @property
    def devices(self) -> int:
        """Devices in use, over all processes."""
        return self.mesh.size

    @property
    def process_index(self) -> int:
        """This process, counted from 0."""
        return jax.process_index()

    @property
    def process_count(self) -> int:
        """All processes of the job."""
        return jax.process_count()

    @property
    def axis(self) -> BatchAxis:
        """How a step sees the batch."""
        if self.kind == "pmap":
            return BatchAxis(name=AXIS)
        if self.shard_state == "none":
            return BatchAxis(shards=self.devices)
        return BatchAxis(shards=self.devices, gather=self.layout.gather, scatter=self.layout.scatter)

    @property
    def layout(self) -> Layout:
        """Where the arrays of a state lie, under jit."""
        return Layout(self.mesh, self.shard_state, self.shard_from)

    @property
    def _compiler_options(self) -> CompilerOptions:
        return compiler_options(self.lowering, platform_of(self.mesh))

    @property
    def _replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def _split(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def _local(self) -> NamedSharding:
        """One leading entry for each of this process's devices, as pmap takes and gives them."""
        return NamedSharding(Mesh(np.array(self.mesh.local_devices), (AXIS,)), PartitionSpec(AXIS))

    def compile_train(self, step: TrainStep) -> TrainStep:
        """The step over all devices, its state donated."""
        if self.kind == "pmap":
            return jax.pmap(step, axis_name=AXIS, devices=self._pmap_devices(), donate_argnums=0)
        # None: as the arguments lie, and as they are laid out within the step.
        state = self._replicated if self.shard_state == "none" else None
        return jax.jit(
            step if self.shard_state == "none" else self._laid_out(step),
            in_shardings=(state, self._split),
            out_shardings=(state, self._replicated),
            donate_argnums=0,
            compiler_options=self._compiler_options,
        )

    def _laid_out(self, step: TrainStep) -> TrainStep:
        def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            new_state, metrics = step(state, batch)
            return self.layout.constrain(new_state), metrics

        return train_step

    def compile_eval(self, step: EvalStep) -> EvalStep:
        """The step over all devices."""
        if self.kind == "pmap":
            return jax.pmap(step, axis_name=AXIS, devices=self._pmap_devices())
        params = self._replicated if self.shard_state == "none" else None
        return jax.jit(
            step,
            in_shardings=(params, params, self._split),
            out_shardings=self._replicated,
            compiler_options=self._compiler_options,
        )

    def state_shapes(self, state: TrainState) -> TrainState:
        """The shapes of a state's arrays as the step takes them; the state may itself be of shapes."""
        if self.kind == "pmap":
            return jax.tree.map(self._one_each, state)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            self.layout.of(state),
        )

    def batch_shapes(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The shapes of a whole batch's arrays as the step takes them."""
        return {name: self._dealt(leaf) if self.kind == "pmap" else leaf for name, leaf in batch.items()}

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """This process's part of a batch, from host memory to its devices."""
        if self.kind == "pmap":
            local = len(self.mesh.local_devices)
            return jax.device_put(
                {name: leaf.reshape(local, -1, *leaf.shape[1:]) for name, leaf in batch.items()}, self._local
            )
        if self.process_count == 1:
            return jax.device_put(dict(batch), self._split)
        return {name: jax.make_array_from_process_local_data(self._split, leaf) for name, leaf in batch.items()}

    def put_state(self, state: TrainState) -> TrainState:
        """A state, equal in every process, to the form in which the step takes it."""
        if self.kind == "jit":
            return jax.tree.map(self._lay, state, self.layout.of(state))
        local = len(self.mesh.local_devices)
        return jax.tree.map(
            lambda leaf: jax.device_put(np.broadcast_to(to_host(leaf), (local, *leaf.shape)), self._local), state
        )

    def copy_state(self, state: TrainState) -> TrainState:
        """A copy that outlives the donation of `state`, as it lies under jit, whatever the executor."""
        if self.kind == "jit":
            return jax.tree.map(jnp.copy, state)
        return jax.tree.map(lambda leaf: self._lay(leaf.addressable_shards[0].data[0], self._replicated), state)

    def read_metrics(self, metrics: Metrics) -> dict[str, tuple[float, float]]:
        """(sum, count) on the host; waits for the step that made them."""
        return {name: (_first(total), _first(count)) for name, (total, count) in metrics.items()}

    def _one_each(self, leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.devices, *leaf.shape), leaf.dtype)

    def _dealt(self, leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.devices, leaf.shape[0] // self.devices, *leaf.shape[1:]), leaf.dtype)

    def _lay(self, leaf: Any, sharding: NamedSharding) -> jax.Array:
        if self.process_count == 1:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        host = to_host(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    def _pmap_devices(self) -> list[jax.Device] | None:
        # Naming devices is for a subset in one process; over several processes pmap takes all of each.
        return None if self.process_count > 1 else list(self.mesh.devices.flat)


def over_devices(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """`function` of arrays with the same leading axis, on equal parts of it on the first `count` devices.

    Nothing passes between the devices.
    """
    split = PartitionSpec(_SEEDS)
    mesh = _mesh_of_seeds(count)
    parted: Callable[..., Any] = jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return parted


def put_stacked(tree: Any, count: int) -> Any:
    """Arrays with the same leading axis, in equal parts to the first `count` devices."""
    return jax.device_put(tree, NamedSharding(_mesh_of_seeds(count), PartitionSpec(_SEEDS)))


def _mesh_of_seeds(count: int) -> Mesh:
    return jax.make_mesh((count,), (_SEEDS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def to_host(leaf: Any) -> np.ndarray:
    """The whole of an array in host memory; where processes hold parts of it, all must call this, and get all of it."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _first(leaf: jax.Array) -> float:
    # One device's copy: replicated under jit, one of equal entries under pmap.
    return float(np.asarray(leaf.addressable_data(0)).reshape(-1)[0])


def platform_of(mesh: Mesh) -> str:
    """cpu, gpu or tpu."""
    platform: str = mesh.devices.flat[0].platform
    return platform
