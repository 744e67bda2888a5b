"""From a config to the objects that train it: network, optimizer and the two pure steps."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import optax

from cnnjax.augment.batches import make_batch_change
from cnnjax.config import Config, ConvLowering
from cnnjax.config_augment import CutMix, Mixup
from cnnjax.data.examples import Datasets
from cnnjax.data.loader import steps_per_epoch
from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import check_args, create_model, get_variant
from cnnjax.nn.network import Network, layer_names
from cnnjax.train.freezing import check_frozen, frozen_by
from cnnjax.train.losses import make_loss
from cnnjax.train.optimizer import check_optimizer, in_phases, make_optimizer, make_schedule
from cnnjax.train.phases import Phases
from cnnjax.train.state import Initialize, TrainState, make_init
from cnnjax.train.step import BatchAxis, EvalStep, TrainStep, batch_averaging, make_eval_step, make_train_step
from cnnjax.weights.published import find_published


@dataclass(frozen=True)
class DataFacts:
    """What a network must know of the data; kept in the run folder, so that predicting needs no data set."""

    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    """(height, width, channels) of one image."""
    train_examples: int
    test_examples: int
    segmentation: bool = False
    """Whether there is a label for each pixel rather than each image."""

    @classmethod
    def of(cls, data: Datasets) -> "DataFacts":
        """Those of a loaded data set."""
        return cls(
            data.class_names,
            data.train.image_shape,
            len(data.train),
            len(data.test),
            segmentation=bool(data.train.label_shape),
        )


@dataclass(frozen=True)
class Task:
    """What a run is made of, before it meets a device."""

    config: Config
    facts: DataFacts
    network: Network
    schedule: optax.Schedule | float
    total_steps: int
    steps_per_epoch: int
    train_steps: tuple[TrainStep, ...]
    """One for each phase of the training."""
    phase_starts: tuple[int, ...]
    """The step after which each phase but the first begins."""
    eval_step: EvalStep
    initialize: Initialize
    """From a seed to the state before the first step."""

    def phase_after(self, step: int) -> int:
        """Which of `train_steps` makes the next update after that many."""
        return bisect.bisect_right(self.phase_starts, step)

    def with_seed(self, seed: int) -> "Task":
        """The same task with another seed; what is compiled for the one serves the other too."""
        return replace(self, config=self.config.model_copy(update={"seed": seed}))

    def init_state(self) -> TrainState:
        """The state before the first step."""
        return self.initialize(self.config.seed)

    def learning_rate(self, step: int) -> float:
        """That of the update which made step number `step` (the first is 1)."""
        return float(self.schedule(step - 1)) if callable(self.schedule) else self.schedule


def check_names(config: Config) -> None:
    """ConfigError unless the model, its fields, the optimizer, its arguments and published weights exist."""
    get_variant(config.model.name)
    check_args(config.model.name, config.model.args)
    check_optimizer(config.optimizer)
    if config.init_from is not None and config.init_from.pretrained is not None:
        try:
            find_published(config.init_from.pretrained)
        except WeightsError as error:
            raise ConfigError(f"init_from.pretrained: {error}") from None


def make_network(
    config: Config, classes: int, axis: BatchAxis = BatchAxis(), lowering: ConvLowering = "auto"
) -> Network:
    """The config's network for that many classes."""
    fields: dict[str, Any] = {"num_classes": classes, **config.model.args}
    if fields["num_classes"] < classes:
        raise ConfigError(
            f"model.args.num_classes: {fields['num_classes']} is fewer than the {classes} classes of the data"
        )
    return create_model(
        config.model.name,
        **fields,
        dtype=jnp.dtype(config.train.precision),
        batch_averaging=batch_averaging(config.train.batch_norm, axis),
        lowering=lowering,
    )


def make_task(
    config: Config,
    facts: DataFacts,
    *,
    axis: BatchAxis = BatchAxis(),
    lowering: ConvLowering = "auto",
    unroll_accumulation: bool = False,
) -> Task:
    """Binds everything that a config names.

    Args:
        axis, lowering: those of the executor that will run it.

    Raises:
        ConfigError: something is unknown, or does not fit the data.
    """
    check_names(config)
    per_epoch = steps_per_epoch(facts.train_examples, config.data.batch_size)
    total = config.train.duration.to_steps(per_epoch, config.data.batch_size)
    if config.train.profile is not None and config.train.profile.last > total:
        raise ConfigError(
            f"train.profile.last: {config.train.profile.last} is after the run's last step, {total}; give one within it"
        )
    starts = _phase_starts(config, total, per_epoch)
    schedule = in_phases(
        make_schedule(config.schedule, total, per_epoch, config.data.batch_size),
        {start: phase.learning_rate_factor for start, phase in zip(starts, config.train.phases, strict=True)},
    )
    network = make_network(config, len(facts.class_names), axis, lowering)
    layers = layer_names(network, facts.input_shape) if config.optimizer.layer_decay < 1 else ()
    phases = Phases((config.train.freeze, *(phase.freeze for phase in config.train.phases)), starts)
    optimizers = [
        make_optimizer(config.optimizer, schedule, layers, phases, number) for number in range(len(phases.freezes))
    ]
    if network.labels_pixels != facts.segmentation:
        given, wanted = ("pixel", "image") if network.labels_pixels else ("image", "pixel")
        raise ConfigError(
            f"model.name: {config.model.name} gives each {given} a class, and the data has one for each {wanted}; "
            "choose another model or another data.source"
        )
    if network.labels_pixels and any(isinstance(entry, Mixup | CutMix) for entry in config.data.augment):
        raise ConfigError("data.augment: mixup and cutmix blend images' labels, not those of pixels; leave them out")
    entries = ["train.freeze", *(f"train.phases.{number}.freeze" for number in range(len(starts)))]
    for entry, patterns in zip(entries, phases.freezes, strict=True):
        if patterns:
            check_frozen(patterns, network, facts.input_shape, entry)
    train_steps = tuple(
        make_step(config, network, optimizer, freeze=patterns, axis=axis, unroll_accumulation=unroll_accumulation)
        for optimizer, patterns in zip(optimizers, phases.freezes, strict=True)
    )
    loss = make_loss(config.train.loss)
    eval_step = make_eval_step(network, loss, mean=config.data.mean, std=config.data.std, axis=axis)
    initialize = make_init(network, optimizers[0], facts.input_shape, ema=config.train.ema_decay is not None)
    return Task(
        config, facts, network, schedule, total, per_epoch, train_steps, starts, eval_step, initialize
    )  # fmt: skip


def _phase_starts(config: Config, total_steps: int, steps_per_epoch: int) -> tuple[int, ...]:
    starts = [phase.start.to_steps(steps_per_epoch, config.data.batch_size) for phase in config.train.phases]
    bounds = [0, *starts, total_steps]
    for number, start in enumerate(starts):
        before, after = bounds[number], bounds[number + 2]
        if not before < start < after:
            raise ConfigError(
                f"train.phases.{number}.start: it is step {start}, expected one between {before} and {after}, where "
                "the phase before it began and the one after it begins, or the training ends"
            )
    return tuple(starts)


def make_step(
    config: Config,
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    freeze: Sequence[str] = (),
    axis: BatchAxis = BatchAxis(),
    unroll_accumulation: bool = False,
) -> TrainStep:
    """The config's training step for a network with any optimizer, in a phase that freezes what fits `freeze`."""
    return make_train_step(
        network,
        optimizer,
        make_loss(config.train.loss),
        mean=config.data.mean,
        std=config.data.std,
        accumulate=config.optimizer.accumulate,
        ema_decay=config.train.ema_decay,
        remat=config.train.remat,
        auxiliary_weight=config.train.auxiliary_weight,
        unroll_accumulation=unroll_accumulation,
        augment=make_batch_change(config.data.changes) if config.data.changes else None,
        is_frozen=frozen_by(freeze) if freeze else None,
        axis=axis,
    )
