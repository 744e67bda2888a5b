"""Normalisation: the only place for BatchNorm's constants and for what it averages over."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from cnnjax.ops.normalise import normalise

# Flax's convention: new running = momentum * running + (1 - momentum) * batch. PyTorch's 0.1 is 0.9 here.
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5

# The constants of other libraries, as fields of a network; PyTorch's are the defaults.
PYTORCH_BATCH_NORM = {"norm_epsilon": BATCH_NORM_EPSILON, "norm_momentum": BATCH_NORM_MOMENTUM}
INCEPTION_BATCH_NORM = {"norm_epsilon": 1e-3, "norm_momentum": 0.9}  # torchvision's and timm's Inception networks
TF_SLIM_BATCH_NORM = {"norm_epsilon": 1e-3, "norm_momentum": 0.9997}
TF_BATCH_NORM = {"norm_epsilon": 1e-3, "norm_momentum": 0.99}  # Keras' default, and EfficientNet's release
KERAS_RESNET_BATCH_NORM = {"norm_epsilon": 1.001e-5, "norm_momentum": 0.99}  # its ResNet and DenseNet

# batch: over examples and positions. group: over positions and each of 32 groups of channels (Wu and He 2018).
# layer: over positions and all channels (Ba et al. 2016), with a scale and bias a channel. none: not at all.
NormKind = Literal["batch", "group", "layer", "none"]


@dataclass(frozen=True)
class BatchAveraging:
    """Over which examples BatchNorm averages in training."""

    groups: int = 1
    """The batch is cut into this many contiguous, equal groups with statistics of their own."""
    group_size: int | None = None
    """In place of `groups`: the examples in each group."""
    axis_name: str | None = None
    """A mapped axis whose parts are averaged over too (under pmap)."""
    frozen: bool = False
    """Use the running statistics in training as well, and leave them as they are."""

    def count_groups(self, batch: int) -> int:
        """How many groups a batch is cut into; ValueError where it cannot be cut evenly."""
        groups = self.groups if self.group_size is None else batch // self.group_size
        size = self.group_size if self.group_size is not None else batch // max(groups, 1)
        if groups < 1 or groups * size != batch:
            raise ValueError(f"a batch of {batch} cannot be cut into BatchNorm groups of {size}")
        return groups


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over all but the last axis, statistics in float32 (or float64).

    Running statistics are the biased ones. With several groups, the running statistics move towards the groups' mean,
    so that they are the same however many devices share the batch.
    """

    averaging: BatchAveraging = BatchAveraging()
    momentum: float = BATCH_NORM_MOMENTUM
    epsilon: float = BATCH_NORM_EPSILON
    use_scale: bool = True
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, ..., channels) to the same shape."""
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (channels,)) if self.use_scale else jnp.ones(channels)
        bias = self.param("bias", nn.initializers.zeros, (channels,)) if self.use_bias else jnp.zeros(channels)

        # Initialisation takes any batch size and needs no mapped axis, so it must not average over groups or devices.
        if not train or self.averaging.frozen or self.is_initializing():
            mean, var = running_mean.value, running_var.value
            return self._normalise(x, mean, var, scale, bias)

        grouped = _at_least_float32(x.reshape(self.averaging.count_groups(x.shape[0]), -1, *x.shape[1:]))
        axes = tuple(range(1, grouped.ndim - 1))
        mean, square = grouped.mean(axes, keepdims=True), jnp.square(grouped).mean(axes, keepdims=True)
        if self.averaging.axis_name is not None:
            mean, square = lax.pmean((mean, square), self.averaging.axis_name)
        var = jnp.maximum(square - jnp.square(mean), 0.0)
        for running, batch in ((running_mean, mean), (running_var, var)):
            batch = lax.stop_gradient(batch).reshape(-1, channels).mean(0)
            running.value = self.momentum * running.value + (1 - self.momentum) * batch
        return self._normalise(grouped, mean, var, scale, bias).reshape(x.shape)

    def _normalise(self, x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        factor = lax.rsqrt(var + self.epsilon) * scale
        return normalise(_at_least_float32(x), mean, factor, bias).astype(self.dtype)


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
