"""Devices and processes: the only place for meshes, pmap, shardings, axis names and `jax.distributed`."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnnjax.config import Config, ConvLowering, ParallelConfig
from cnnjax.config_base import expanded
from cnnjax.errors import ConfigError, RunError
from cnnjax.ops.onednn import CompilerOptions, compiler_options, resolve
from cnnjax.train.metrics import Batch, Metrics
from cnnjax.train.state import TrainState
from cnnjax.train.step import BatchAxis, EvalStep, TrainStep

_AXIS, _SEEDS = "data", "seeds"

# Environment variables by which a cluster tells the number of processes; jax.distributed finds the rest by itself.
_PROCESS_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES")
_WORKER_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


def join_processes(config: ParallelConfig) -> None:
    """Joins the other processes of the job, where there are any; must come before anything touches a device.

    Raises:
        RunError: the coordinator cannot be reached.
    """
    if jax.distributed.is_initialized() or config.distributed == "off":
        return
    given = config.coordinator is not None
    if not given and config.distributed == "auto" and not _cluster_has_several(os.environ):
        return
    try:
        if given:
            jax.distributed.initialize(config.coordinator, config.processes, config.process_id)
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"cannot join the job's processes: {error}; give parallel.coordinator, parallel.processes and "
            "parallel.process_id, or set parallel.distributed=off for a single process"
        ) from error


def _cluster_has_several(environment: Mapping[str, str]) -> bool:
    counts = [environment.get(name, "") for name in _PROCESS_COUNTS]
    workers = [environment.get(name, "").split(",") for name in _WORKER_LISTS]
    return any(count.isdigit() and int(count) > 1 for count in counts) or any(len(names) > 1 for names in workers)


@dataclass(frozen=True)
class Executor:
    """Runs a step over devices: jit over a mesh, or pmap. The step itself is the same function."""

    kind: Literal["jit", "pmap"]
    mesh: Mesh
    lowering: ConvLowering = "xla"
    """How the network's convolutions are to be written for it."""

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
        return BatchAxis(shards=self.devices) if self.kind == "jit" else BatchAxis(name=_AXIS)

    @property
    def _compiler_options(self) -> CompilerOptions:
        return compiler_options(self.lowering, _platform(self.mesh))

    @property
    def _replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def _split(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(_AXIS))

    @property
    def _local(self) -> NamedSharding:
        """One leading entry for each of this process's devices, as pmap takes and gives them."""
        return NamedSharding(Mesh(np.array(self.mesh.local_devices), (_AXIS,)), PartitionSpec(_AXIS))

    def compile_train(self, step: TrainStep) -> TrainStep:
        """The step over all devices, its state donated."""
        if self.kind == "pmap":
            return jax.pmap(step, axis_name=_AXIS, devices=self._pmap_devices(), donate_argnums=0)
        return jax.jit(
            step,
            in_shardings=(self._replicated, self._split),
            out_shardings=(self._replicated, self._replicated),
            donate_argnums=0,
            compiler_options=self._compiler_options,
        )

    def compile_eval(self, step: EvalStep) -> EvalStep:
        """The step over all devices."""
        if self.kind == "pmap":
            return jax.pmap(step, axis_name=_AXIS, devices=self._pmap_devices())
        return jax.jit(
            step,
            in_shardings=(self._replicated, self._replicated, self._split),
            out_shardings=self._replicated,
            compiler_options=self._compiler_options,
        )

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
            return jax.tree.map(self._replicate, state)
        local = len(self.mesh.local_devices)
        return jax.tree.map(
            lambda leaf: jax.device_put(np.broadcast_to(to_host(leaf), (local, *leaf.shape)), self._local), state
        )

    def copy_state(self, state: TrainState) -> TrainState:
        """A copy that outlives the donation of `state`, replicated over the mesh whatever the executor."""
        if self.kind == "jit":
            return jax.tree.map(jnp.copy, state)
        return jax.tree.map(lambda leaf: self._replicate(leaf.addressable_shards[0].data[0]), state)

    def read_metrics(self, metrics: Metrics) -> dict[str, tuple[float, float]]:
        """(sum, count) on the host; waits for the step that made them."""
        return {name: (_first(total), _first(count)) for name, (total, count) in metrics.items()}

    def _replicate(self, leaf: Any) -> jax.Array:
        if self.process_count == 1:
            return jax.device_put(leaf, self._replicated)
        return jax.make_array_from_process_local_data(self._replicated, to_host(leaf))

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
    """A replicated array, or one of this process's own, in host memory."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(leaf)


def _first(leaf: jax.Array) -> float:
    # One device's copy: replicated under jit, one of equal entries under pmap.
    return float(np.asarray(leaf.addressable_data(0)).reshape(-1)[0])


def keep_compiled(config: ParallelConfig) -> None:
    """Lets JAX keep what this process compiles from now on in the config's folder, if it names one.

    Raises:
        RunError: the folder cannot be made or written.
    """
    if config.compilation_cache is None:
        return
    folder = expanded(config.compilation_cache)
    try:
        os.makedirs(folder, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "not writable"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise RunError(
            f"parallel.compilation_cache: {folder} cannot be used ({reason}); choose another folder, or null"
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()  # or JAX would go on with the folder of an earlier run


def make_executor(config: Config) -> Executor:
    """The executor of a config on the devices that are there.

    Raises:
        ConfigError: more devices are asked for than there are, or a batch cannot be spread evenly over them.
    """
    available = jax.devices()
    count = config.parallel.devices or len(available)
    if count > len(available):
        raise ConfigError(
            f"parallel.devices: {count} asked for, and {len(available)} {available[0].platform} "
            f"device{'s are' if len(available) > 1 else ' is'} there"
        )
    if jax.process_count() > 1 and count != len(available):
        raise ConfigError(
            f"parallel.devices: {count} of {len(available)}; a job of several processes uses all their devices"
        )
    try:
        config.check_batches(count)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return _make_executor(config, available[:count])


def make_eval_executor(config: Config) -> Executor:
    """As many of the devices that are here as divide an evaluation batch, wherever the run was trained.

    Raises:
        ConfigError: a job of several processes, which uses all devices, cannot spread an evaluation batch evenly.
    """
    available = jax.devices()
    count = math.gcd(len(available), config.eval.batch_size)
    if jax.process_count() > 1 and count != len(available):
        raise ConfigError(
            f"eval.batch_size: {config.eval.batch_size} is not divisible by the job's {len(available)} devices; "
            "evaluate on a single process"
        )
    return _make_executor(config, available[:count])


def _make_executor(config: Config, devices: list[jax.Device]) -> Executor:
    mesh = jax.make_mesh((len(devices),), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    kind, wanted = config.parallel.executor, config.ops.conv
    # pmap takes no options for the compiler.
    lowering = wanted if kind == "pmap" else resolve(wanted, _platform(mesh), config.train.precision)
    return Executor(kind, mesh, lowering)


def _platform(mesh: Mesh) -> str:
    platform: str = mesh.devices.flat[0].platform
    return platform


def agree(failure: str | None) -> None:
    """Raises RunError in every process if process 0 brings a failure; a lone process simply raises its own."""
    failed = failure is not None
    if jax.process_count() > 1:
        failed = bool(multihost_utils.broadcast_one_to_all(np.asarray(failed)))
    if failed:
        raise RunError(failure or "process 0 of this job cannot use the run folder; its own message says why")


def broadcast(value: int) -> int:
    """Process 0's number in every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))


def should_stop(asked: bool, step: int) -> bool:
    """Whether to stop after this step: the same answer in every process, once any of them was told to."""
    if jax.process_count() == 1:
        return asked
    return multihost_utils.reached_preemption_sync_point(step)
