"""Which devices a config gets: those that are here, or those of a topology that is not."""

import importlib.util
import math
import os

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType

from cnnjax.config import Config
from cnnjax.config_base import expanded
from cnnjax.config_parallel import ParallelConfig
from cnnjax.errors import ConfigError, RunError, first_line
from cnnjax.ops.onednn import resolve
from cnnjax.parallel.executor import Executor, platform_of
from cnnjax.parallel.layout import AXIS


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


def make_absent_executor(config: Config, topology: str) -> Executor:
    """The executor of a config on devices that need not be here: what it compiles cannot be run.

    Args:
        topology: such as v5e:4x4 of TPUs, or cpu:8 of this machine's own devices; cuda:8 has those stand for GPUs,
            which programs are lowered for without them.

    Raises:
        ConfigError: there is no such topology, or a batch cannot be spread evenly over it.
        RunError: the compiler for TPUs is not installed.
    """
    devices = _devices_of(topology)
    try:
        config.check_batches(len(devices))
    except ValueError as error:
        raise ConfigError(f"{topology}: {error}") from None
    return _make_executor(config, devices)


def count_devices(topology: str) -> int:
    """How many devices a topology has; errors are those of `make_absent_executor`."""
    return len(_devices_of(topology))


def _devices_of(topology: str) -> list[jax.Device]:
    kind, _, sizes = topology.partition(":")
    if kind in ("cpu", "cuda"):
        available = jax.devices("cpu")
        if not (sizes.isdigit() and 0 < int(sizes) <= len(available)):
            raise ConfigError(
                f"--topology: expected {kind}:1 to {kind}:{len(available)}, got '{topology}'; XLA_FLAGS="
                "--xla_force_host_platform_device_count=8 makes eight devices of this machine"
            )
        return available[: int(sizes)]
    if not kind.startswith("v"):
        raise ConfigError(
            f"--topology: expected a TPU and its shape, such as v5e:4x4, cpu:8 or cuda:8, got '{topology}'"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise RunError("to compile for TPUs needs libtpu; install it: pip install 'cnnjax[tpu-aot]'")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:  # by what is wrong, and by JAX's version
        raise ConfigError(
            f"--topology: expected a TPU and its shape, such as v5e:4x4; of '{topology}' libtpu says: "
            f"{first_line(error)}"
        ) from None


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
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    kind, wanted = config.parallel.executor, config.ops.conv
    # pmap takes no options for the compiler.
    lowering = wanted if kind == "pmap" else resolve(wanted, platform_of(mesh), config.train.precision)
    return Executor(kind, mesh, lowering, config.parallel.shard_state, config.parallel.shard_from)
