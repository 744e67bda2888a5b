"""Any optax optimizer by name, with its own arguments checked; schedules; which parameters decay."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from chex import ArrayTree

from cnnjax.config import OptimizerConfig
from cnnjax.config_schedule import ConstantSchedule, CosineSchedule, PolynomialSchedule, Schedule, StepSchedule
from cnnjax.errors import ConfigError
from cnnjax.registry import did_you_mean, unknown
from cnnjax.train.layerwise import LAYERWISE
from cnnjax.train.phases import Phases

# Functions of optax that take a learning rate, and cannot be used all the same.
_UNUSABLE = {
    "lbfgs": "it needs a line search over the whole training loss",
    "optimistic_adam": "optax has replaced it by optimistic_adam_v2",
}
# Those to which optax can give no schedule.
_CONSTANT_RATE = ("rprop", "sm3")
_DECAYS = ("weight_decay", "weight_decay_rate")
_MASKS = ("mask", "weight_decay_mask")
_HIDDEN = {"learning_rate", "seed", *_DECAYS, *_MASKS}  # optax calls the seed `key` now


def list_optimizers() -> list[str]:
    """The names that `optimizer.name` may take: optax's functions that make an optimizer from a learning rate."""
    return [
        name
        for name, thing in sorted(vars(optax).items())
        if inspect.isfunction(thing)
        and "learning_rate" in inspect.signature(thing).parameters
        and not name.startswith(("scale_by_", "_"))
        and name not in _UNUSABLE
    ]


def check_optimizer(config: OptimizerConfig) -> None:
    """ConfigError unless optax has such an optimizer and it takes such arguments."""
    if config.name in _UNUSABLE:
        raise ConfigError(f"optimizer.name: '{config.name}' cannot be used here, since {_UNUSABLE[config.name]}")
    if config.name not in list_optimizers():
        raise ConfigError(f"optimizer.name: {unknown('optax optimizer', config.name, list_optimizers())}")
    allowed = _settable(config.name)
    for name, value in config.args.items():
        if name in _DECAYS:
            raise ConfigError(f"optimizer.args.{name}: set optimizer.weight_decay instead")
        if name not in allowed:
            raise ConfigError(
                f"optimizer.args.{name}: optax.{config.name} has no such argument; {did_you_mean(name, allowed)}"
            )
        _check_argument(f"optimizer.args.{name}", value, allowed[name])


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule | float,
    layers: Sequence[str] = (),
    phases: Phases = Phases(),
    phase: int = 0,
) -> optax.GradientTransformation:
    """Clipping, then weight decay, then the named optimizer, then each layer's part of the learning rate.

    Weight decay is the optimizer's own where it has one with a mask (decoupled: adamw, lion, lamb...), else it is
    added to the gradient (L2 regularisation, as in SGD). lars and lamb are ours, see `cnnjax.train.layerwise`: what
    does not decay has no learning rate of its own under them.

    Args:
        schedule: learning rate by step, or a constant one.
        layers: names of the network's own modules from the images to the logits, for `layer_decay`.
        phases: when each parameter trains, by default always.
        phase: the one in which this optimizer works; its state is the same kind of tree in all of them.

    Raises:
        ConfigError: optax has no such optimizer, it takes no such arguments, or no learning rate that changes.
    """
    check_optimizer(config)
    if callable(schedule) and config.name in _CONSTANT_RATE:
        raise ConfigError(
            f"optimizer.name: optax.{config.name} takes a constant learning rate only; "
            "set schedule.kind=constant, schedule.warmup=null, and no learning_rate_factor in train.phases"
        )
    make = _function(config.name)
    parameters = inspect.signature(make).parameters
    decay = next((name for name in _DECAYS if name in parameters), None)
    mask = next((name for name in _MASKS if name in parameters), None)
    mask_function = None if config.decay_norm_and_bias else decayed
    args = {name: jnp.dtype(value) if "dtype" in name and value else value for name, value in config.args.items()}
    if "key" in parameters:  # of the noise of noisy_sgd; optax is about to require it
        args.setdefault("key", 0)
    before: list[optax.GradientTransformation] = []
    if config.clip_norm is not None:
        before.append(optax.clip_by_global_norm(config.clip_norm))
    if config.clip_value is not None:
        before.append(optax.clip(config.clip_value))
    if decay is not None and mask is not None:
        args |= {decay: config.weight_decay, mask: mask_function}
    else:
        if decay is not None:
            args[decay] = 0.0
        if config.weight_decay:
            before.append(optax.add_decayed_weights(config.weight_decay, mask=mask_function))
    after = [scale_by_layer(config.layer_decay, layers)] if config.layer_decay < 1 else []
    optimizer = phases.optimizer(lambda rate: make(rate, **args), schedule, phase)
    return optax.chain(*before, optimizer, *after)


def scale_by_layer(decay: float, layers: Sequence[str]) -> optax.GradientTransformation:
    """Layer-wise learning-rate decay (Howard and Ruder 2018, arXiv:1801.06146; Bao et al. 2021, arXiv:2106.08254).

    Multiplies the last layer's updates by 1, those of the one before by `decay`, of the one before that by its square.

    Args:
        layers: the top-level names of the parameters, first to last.
    """
    factors = {name: decay**distance for distance, name in enumerate(reversed(layers))}

    def scale(updates: ArrayTree, params: ArrayTree | None) -> ArrayTree:
        return {name: jax.tree.map(lambda leaf, by=factors[name]: leaf * by, tree) for name, tree in updates.items()}

    return optax.stateless(scale)


def decayed(params: ArrayTree) -> ArrayTree:
    """True for the parameters that weight decay pulls to zero: kernels, not biases and normalisation's scales."""

    def is_kernel(path: tuple[Any, ...], _: Any) -> bool:
        return str(getattr(path[-1], "key", "")).endswith("kernel")

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def make_schedule(config: Schedule, total_steps: int, steps_per_epoch: int, batch_size: int) -> optax.Schedule | float:
    """Learning rate by step (0 for the first update); a plain number where it never changes.

    Args:
        batch_size: of all devices together; the peak follows it where the config has a `reference_batch`.

    Raises:
        ConfigError: the warm-up, or a boundary, does not fit into the run.
    """
    peak = config.peak(batch_size)
    warmup = config.warmup.to_steps(steps_per_epoch, batch_size) if config.warmup else 0
    if warmup >= total_steps:
        raise ConfigError(f"schedule.warmup: {warmup} steps leave none of the run's {total_steps} for the schedule")
    rest = total_steps - warmup
    main: optax.Schedule
    if isinstance(config, ConstantSchedule):
        if not warmup:
            return peak
        main = optax.constant_schedule(peak)
    elif isinstance(config, CosineSchedule):
        main = optax.cosine_decay_schedule(peak, rest, alpha=config.end_factor)
    elif isinstance(config, PolynomialSchedule):
        main = optax.polynomial_schedule(peak, peak * config.end_factor, config.power, rest)
    else:
        main = _step_schedule(config, peak, warmup, steps_per_epoch, batch_size)
    if not warmup:
        return main
    if config.warmup_from == "reference":
        if peak < config.learning_rate:
            raise ConfigError(
                f"schedule.warmup_from: with data.batch_size {batch_size} below schedule.reference_batch "
                f"{config.reference_batch} the rate would fall to its peak; leave warmup_from out"
            )
        # The first update has the reference rate, the first after the warm-up the peak.
        return optax.join_schedules([optax.linear_schedule(config.learning_rate, peak, warmup), main], [warmup])
    # The first update already moves: peak / warmup, 2 * peak / warmup, ... peak.
    rise = optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1))
    return optax.join_schedules([rise, main], [warmup])


def describe_scaling(config: Schedule, batch_size: int) -> str | None:
    """What a batch of that size makes of the learning rate, in a sentence; None where the config does not scale it."""
    if config.reference_batch is None:
        return None
    law = "its square root" if config.batch_scaling == "sqrt" else "it"
    return (
        f"learning rate {config.peak(batch_size):g} for a batch of {batch_size}: {config.learning_rate:g} for one of "
        f"{config.reference_batch}, scaled with {law}"
    )


def in_phases(schedule: optax.Schedule | float, factors: Mapping[int, float]) -> optax.Schedule | float:
    """The schedule times the factor of the phase that a step is in.

    Args:
        factors: by the step with which a phase begins; before the first it is 1.
    """
    if all(factor == 1 for factor in factors.values()):
        return schedule
    starts = jnp.array(sorted(factors))
    values = jnp.array([1.0, *(factors[start] for start in sorted(factors))])

    def scaled(step: jax.Array | int) -> jax.Array:
        rate = schedule(step) if callable(schedule) else schedule
        return rate * values[jnp.searchsorted(starts, jnp.asarray(step), side="right")]

    return scaled


def _step_schedule(
    config: StepSchedule, peak: float, warmup: int, steps_per_epoch: int, batch_size: int
) -> optax.Schedule:
    boundaries = [duration.to_steps(steps_per_epoch, batch_size) - warmup for duration in config.boundaries]
    if boundaries != sorted(set(boundaries)) or boundaries[0] <= 0:
        raise ConfigError("schedule.boundaries: expected each to be later than the one before, and than the warm-up")
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(boundaries, config.factor))


def _settable(name: str) -> Mapping[str, inspect.Parameter]:
    """The optimizer's arguments that YAML can give: all but the learning rate, weight decay and functions."""
    parameters = inspect.signature(_function(name)).parameters
    return {key: parameter for key, parameter in parameters.items() if key not in _HIDDEN}


def _function(name: str) -> Callable[..., optax.GradientTransformation]:
    function: Callable[..., optax.GradientTransformation] = LAYERWISE.get(name) or getattr(optax, name)
    return function


def _check_argument(path: str, value: Any, parameter: inspect.Parameter) -> None:
    default = parameter.default
    if "dtype" in parameter.name:
        fits, expected = value in (None, "float32", "bfloat16"), "float32, bfloat16 or null"
    elif isinstance(default, bool):
        fits, expected = isinstance(value, bool), "true or false"
    elif default is None or "None" in str(parameter.annotation) or "Optional" in str(parameter.annotation):
        fits, expected = value is None or _is_number(value), "a number or null"
    else:
        fits, expected = _is_number(value), "a number"
    if not fits:
        raise ConfigError(f"{path}: expected {expected}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
