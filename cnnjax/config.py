"""The typed experiment: every field, its type and its default. Imports no JAX.

A YAML file in `configs/` holds only what differs from these defaults. `config_files.py` reads, merges and
checks files; this module says what they may contain.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cnnjax.config_augment import CutMix, Mixup
from cnnjax.config_base import Fraction, Section
from cnnjax.config_data import DataConfig
from cnnjax.config_parallel import ParallelConfig
from cnnjax.config_schedule import CosineSchedule, Duration, Schedule


class InitFrom(Section):
    """Weights to start from, in place of random ones."""

    path: Path | None = None
    """A run folder, or a file of `cnnjax weights import` or `export`; `~` and environment variables are expanded."""
    pretrained: str | None = None
    """In place of `path`, published weights such as timm/resnet50.a1_in1k or torchvision/resnet50, fetched by the
    library that published them; the first layer is adapted to the number of the images' channels."""
    checkpoint: Literal["last", "best"] | NonNegativeInt = "last"
    """Of a run: last, best or a step."""
    new: tuple[str, ...] = ()
    """Patterns of parameters that start anew all the same, such as `head/*` where the classes are others."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.pretrained is None):
            came = "neither" if self.path is None else "both"
            raise ValueError(f"expected exactly one of path and pretrained; got {came}")
        if self.pretrained is not None and self.checkpoint != "last":
            raise ValueError("checkpoint: it is of a run in path; published weights have none to choose from")
        return self


class ModelConfig(Section):
    """Which network, and the fields of its Linen module that differ from the variant's defaults."""

    name: str = "lenet5_modern"
    """A name that `cnnjax models` lists."""
    args: dict[str, Any] = Field({})
    """Fields of the network's Linen module; checked against it."""


class OptimizerConfig(Section):
    """Any optax optimizer by its name, with its own arguments."""

    name: str = "sgd"
    """The function's name in optax; lars and lamb are as in their papers (`cnnjax.train.layerwise`)."""
    args: dict[str, Any] = Field({})
    """Its arguments, but for learning_rate and weight decay; checked against its signature."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled where the optimizer itself decays weights (adamw, lion, lamb, ...), else added to the gradient."""
    decay_norm_and_bias: bool = False
    """Whether weight decay touches biases and normalisation scales too; under lars and lamb also whether these have a
    learning rate of their own, as each kernel has."""
    clip_norm: PositiveFloat | None = None
    """Largest global gradient norm; larger gradients are scaled down to it."""
    clip_value: PositiveFloat | None = None
    """Largest absolute value of a gradient's entry."""
    accumulate: PositiveInt = 1
    """Micro-batches that one step's batch is cut into; the gradient is that of the whole batch."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The learning rate of each layer (stem, stage1, ..., head) times that of the one after it; the last has all."""


class GhostBatchNorm(Section):
    """BatchNorm over groups of `ghost` examples, as one small batch each (Hoffer et al. 2017)."""

    ghost: PositiveInt


class CrossEntropyLoss(Section):
    """Softmax cross-entropy."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Fraction = 0.0
    """Probability that is spread evenly over all classes."""


class LenetMapLoss(Section):
    """LeNet-5's maximum a posteriori criterion (LeCun 1998, equation 9), for its RBF output."""

    kind: Literal["lenet_map"]
    rubbish: PositiveFloat = 0.1
    """The constant j: the penalty that a "rubbish class" of images that are no character would have."""


Loss = Annotated[CrossEntropyLoss | LenetMapLoss, Field(discriminator="kind")]


class Phase(Section):
    """What is trained, and how fast, from some point of the training; the optimizer's state goes on."""

    start: Duration
    freeze: tuple[str, ...] = ()
    """Patterns as of `train.freeze`, in their place; by default everything trains."""
    learning_rate_factor: PositiveFloat = 1.0
    """Of what the schedule says."""


class Profile(Section):
    """A span of the run's steps, counted from 1."""

    first: PositiveInt
    last: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"last: {self.last} is before first: {self.first}; give a later step")
        return self


class TrainConfig(Section):
    """How long, with which loss and in which arithmetic."""

    duration: Duration = Duration(epochs=60)
    loss: Loss = CrossEntropyLoss()
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of activations and gradients of activations; parameters are float32 always."""
    remat: Literal["none", "full", "keep_products"] = "none"
    """Rematerialisation: recompute everything in the backward pass, or all but convolutions and matrix products."""
    batch_norm: Literal["global", "local", "frozen"] | GhostBatchNorm = "global"
    """Over which examples BatchNorm averages: all, each device's own, none (running statistics), or groups of n."""
    auxiliary_weight: NonNegativeFloat = 0.3
    """What each auxiliary classifier's loss counts beside the main one (GoogLeNet's 0.3)."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that stay as they are; the last that fits decides, and `!` lets a name train again:
    ["*", "!head/*"] trains the head alone. BatchNorm that is frozen uses its running statistics, and keeps them."""
    phases: tuple[Phase, ...] = ()
    """Changes of what is frozen, one after the other: [{start: {epochs: 5}, learning_rate_factor: 0.05}]."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the moving average of weights and batch statistics; null for none."""
    profile: Profile | None = None
    """Steps whose trace goes into the run folder's `profile`, for TensorBoard and XProf: {first: 10, last: 12}."""


class EvalConfig(Section):
    """When, and in which batches, the held-out set is evaluated. It is always evaluated at the end."""

    every: Duration | None = Duration(epochs=1)
    batch_size: PositiveInt = 256


class CheckpointConfig(Section):
    """When the state is saved, besides at the end and on SIGTERM, and what is kept."""

    every: Duration = Duration(epochs=1)
    keep_last: PositiveInt = 2
    keep_best: NonNegativeInt = 1
    """How many with the highest evaluation accuracy are kept besides the last ones."""


class LogConfig(Section):
    """What is written while training runs."""

    every: Duration = Duration(epochs=1)
    """One line of training metrics in metrics.jsonl for each such span."""
    tensorboard: bool = False
    """Write TensorBoard events too; needs the extra `tensorboard`."""


# All are XLA's own convolutions but on CPUs. There,
# auto: onednn where it is available, else xla (a network by itself cannot know how it will be compiled: xla).
# xla: a table of measurements chooses among ways of writing them. onednn: another does, for programs that are compiled
# to oneDNN's routines. native: XLA's own here too. The others: that one, wherever it is possible.
ConvLowering = Literal[
    "auto",
    "xla",
    "onednn",
    "native",
    "phases",
    "tiles",
    "pieces",
    "taps",
    "patches",
    "winograd",
    "shifts",
    "columns",
    "strips",
    "images",
    "blocks16",
    "blocks32",
]


class OpsConfig(Section):
    """How operations are written for the compiler; the results are the same."""

    conv: ConvLowering = "auto"


class Config(Section):
    """One run: everything that decides what it computes."""

    name: str = "run"
    """Names the run folder; by default the config file's name."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the initial weights, the order of the examples and dropout."""
    model: ModelConfig = ModelConfig()
    init_from: InitFrom | None = None
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = CosineSchedule()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    parallel: ParallelConfig = ParallelConfig()
    ops: OpsConfig = OpsConfig()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        self.check_batches(self.parallel.devices or 1)
        if self.ops.conv == "onednn" and self.parallel.executor == "pmap":
            raise ValueError("ops.conv: onednn needs parallel.executor=jit; choose that, or ops.conv=auto")
        if self.parallel.shard_state != "none" and self.parallel.executor == "pmap":
            raise ValueError("parallel.shard_state: it needs parallel.executor=jit; choose that, or shard_state=none")
        return self

    def check_batches(self, devices: int) -> None:
        """ValueError unless the batches can be spread evenly over that many devices."""
        pieces = devices * self.optimizer.accumulate
        _divides(self.data.batch_size, pieces, "data.batch_size", "devices times optimizer.accumulate")
        if isinstance(self.train.batch_norm, GhostBatchNorm):
            examples = self.data.batch_size // pieces
            _divides(examples, self.train.batch_norm.ghost, "a device's micro-batch", "train.batch_norm.ghost")
        if any(isinstance(entry, Mixup | CutMix) for entry in self.data.augment):
            _divides(self.data.batch_size, 2 * devices, "data.batch_size", "two for mixup or cutmix on each device")
        _divides(self.eval.batch_size, devices, "eval.batch_size", "devices")


def _divides(whole: int, part: int, whole_name: str, part_name: str) -> None:
    if whole % part:
        nearest = max(part, round(whole / part) * part)
        raise ValueError(f"{whole_name}: {whole} is not divisible by {part_name} = {part}; {nearest} would be")
