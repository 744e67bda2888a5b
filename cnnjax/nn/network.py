"""What every network has in common: the fields that training sets, and what a call returns."""

from typing import Any, ClassVar, Self

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from pydantic import PositiveFloat, PositiveInt

from cnnjax.errors import ConfigError
from cnnjax.nn.activations import Activation
from cnnjax.nn.layers import Layers
from cnnjax.nn.norm import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchAveraging, NormKind
from cnnjax.nn.rounding import round_channels, round_repeats
from cnnjax.ops.conv import Lowering
from cnnjax.ops.onednn import CompilerOptions, compiler_options, resolve


@flax.struct.dataclass
class Outputs:
    """Everything a network computes, in training and evaluation alike; `jit` prunes what nobody uses."""

    logits: jax.Array
    """(batch, classes) float32, larger means more likely; (batch, height, width, classes) of a segmentation network."""
    aux: dict[str, jax.Array]
    """Logits of auxiliary classifiers by name; empty in evaluation."""
    features: dict[str, jax.Array]
    """(batch, height, width, channels) by the name of the stage. JAX's transformations return it sorted by name:
    `cnnjax.analysis.feature_pyramid` has the order and the strides."""


class Network(nn.Module, kw_only=True):
    """Base of all networks: `__call__(images, *, train)` takes (batch, height, width, channels), gives `Outputs`.

    The fields of a subclass are its configuration: what `model.args` in a config may set, apart from `dtype`,
    `batch_averaging` and `lowering`, which training sets from `train.precision`, `train.batch_norm` and `ops.conv`.
    """

    labels_pixels: ClassVar[bool] = False
    """Whether it gives each pixel a class (segmentation) rather than each image."""

    num_classes: PositiveInt = 1000
    dtype: DTypeLike = jnp.float32
    batch_averaging: BatchAveraging = BatchAveraging()
    lowering: Lowering = "auto"

    @nn.nowrap
    def on(self, platform: str) -> tuple[Self, CompilerOptions]:
        """The network with its convolutions as they are fastest there, and what `jax.jit` then needs for it.

        Args:
            platform: "cpu", "gpu" or "tpu", as `jax.default_backend()` tells.

        Returns:
            A network that computes the same, and `compiler_options` for `jax.jit` of what calls it.
        """
        lowering = resolve(self.lowering, platform, jnp.dtype(self.dtype).name)
        return self.clone(lowering=lowering), compiler_options(lowering, platform)

    @nn.nowrap
    def require_size(self, images: jax.Array, smallest: int) -> None:
        """ConfigError unless images are (batch, height, width, channels) with both sides at least `smallest` pixels."""
        if images.ndim != 4 or min(images.shape[1:3]) < smallest:
            smaller = "; stem: small takes smaller ones" if getattr(self, "stem", "small") != "small" else ""
            raise ConfigError(
                f"{type(self).__name__} takes images (batch, height, width, channels) of at least "
                f"{smallest}x{smallest}; got {images.shape}{smaller}"
            )


class ConvNetwork(Network, kw_only=True):
    """Base of the networks that are made of `Layers`: the switches that all of them have."""

    activation: Activation = "relu"
    norm: NormKind = "batch"
    """What normalises a convolution's output; without any, convolutions have biases instead."""
    norm_epsilon: PositiveFloat = BATCH_NORM_EPSILON
    norm_momentum: PositiveFloat = BATCH_NORM_MOMENTUM
    """Of BatchNorm's running statistics, what stays of the old: Flax's convention; PyTorch's 0.1 is 0.9 here."""
    width: PositiveFloat = 1.0
    """Multiplies every layer's channels, rounded to multiples of 8."""
    depth: PositiveFloat = 1.0
    """Multiplies how often each stage repeats its block, rounded up."""
    remat: bool = False
    """Keep only the input of each block for the backward pass: less memory, about a third more time."""

    @nn.nowrap
    def layers(self, train: bool) -> Layers:
        """What the fields say of all layers; `dataclasses.replace` adds what a family fixes."""
        return Layers(
            train=train,
            dtype=self.dtype,
            activation=self.activation,
            norm=self.norm,
            norm_epsilon=self.norm_epsilon,
            norm_momentum=self.norm_momentum,
            batch_averaging=self.batch_averaging,
            lowering=self.lowering,
        )

    @nn.nowrap
    def channels(self, published: int) -> int:
        """A published width times `width`."""
        return round_channels(published, self.width)

    @nn.nowrap
    def repeats(self, published: int) -> int:
        """A published number of blocks times `depth`."""
        return round_repeats(published, self.depth)


def layer_names(network: Network, input_shape: tuple[int, int, int]) -> list[str]:
    """The network's own modules that have parameters (stem, stage1, ..., head), from the images to the logits.

    Args:
        input_shape: (height, width, channels) of one image.
    """
    called: dict[str, None] = {}

    def note(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.path:
            called[context.module.path[0]] = None
        return call(*arguments, **keywords)

    def init() -> Any:
        return network.init(jax.random.key(0), jnp.zeros((1, *input_shape)), train=False)

    with nn.intercept_methods(note):
        params = jax.eval_shape(init)["params"]
    return [name for name in called if name in params]
