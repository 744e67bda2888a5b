"""What a network binds once, at its top, and hands to its blocks: how a convolution and a normalisation are made."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from cnnjax.nn.activations import ACTIVATIONS, Activation
from cnnjax.nn.initializers import Initializer, dense_uniform_fan_in, he_normal_fan_out
from cnnjax.nn.norm import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchAveraging, BatchNorm, NormKind
from cnnjax.ops.conv import Lowering, for_linen, input_gradient
from cnnjax.ops.conv_forward_forms import turned
from cnnjax.ops.padding import Padding, pad_amounts

Size = int | tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The choices that all layers of a network share; its methods add one layer to the module that calls them."""

    train: bool
    dtype: DTypeLike = jnp.float32
    activation: Activation = "relu"
    padding: Padding = "symmetric"
    """Of convolutions that do not say otherwise."""
    norm: NormKind = "batch"
    norm_epsilon: float = BATCH_NORM_EPSILON
    norm_momentum: float = BATCH_NORM_MOMENTUM
    norm_scale: bool = True
    batch_averaging: BatchAveraging = BatchAveraging()
    lowering: Lowering = "auto"
    """How convolutions are written on a CPU."""
    conv_bias: bool | None = None
    """Of convolutions that do not say otherwise; None: exactly those that no normalisation follows."""
    kernel_init: Initializer = he_normal_fan_out
    bias_init: Initializer = nn.initializers.zeros

    def conv(
        self,
        x: jax.Array,
        features: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        *,
        name: str,
        padding: Padding | None = None,
        groups: int = 1,
        bias: bool = True,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> jax.Array:
        """A convolution: (batch, height, width, channels) to (batch, smaller height, smaller width, features).

        Args:
            padding: None for the network's.
            groups: the input and output channels are cut into that many parts that do not see each other.
        """
        kernel, strides = as_pair(kernel_size), as_pair(stride)
        return nn.Conv(
            features,
            kernel,
            strides,
            pad_amounts(self.padding if padding is None else padding, x.shape[1:3], kernel, strides),
            feature_group_count=groups,
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=kernel_init or self.kernel_init,
            bias_init=bias_init or self.bias_init,
            conv_general_dilated=for_linen(self.lowering),
            name=name,
        )(x)

    def depthwise(
        self,
        x: jax.Array,
        kernel_size: Size = 3,
        stride: Size = 1,
        *,
        name: str,
        multiplier: int = 1,
        padding: Padding | None = None,
        bias: bool = False,
        kernel_init: Initializer | None = None,
    ) -> jax.Array:
        """A convolution of each channel by itself, to `multiplier` channels each."""
        channels = x.shape[-1]
        return self.conv(
            x, channels * multiplier, kernel_size, stride, name=name, padding=padding, groups=channels, bias=bias,
            kernel_init=kernel_init,
        )  # fmt: skip

    def conv_transpose(
        self,
        x: jax.Array,
        features: int,
        kernel_size: Size = 2,
        stride: Size = 2,
        *,
        name: str,
        bias: bool = True,
        kernel_init: Initializer | None = None,
    ) -> jax.Array:
        """A transposed convolution without padding: (batch, height, width, channels) to `stride` times the size."""
        layer = ConvTranspose(
            features,
            as_pair(kernel_size),
            as_pair(stride),
            padding="VALID",
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=kernel_init or self.kernel_init,
            bias_init=self.bias_init,
            lowering=self.lowering,
            name=name,
        )
        return layer(x)

    def normalize(self, x: jax.Array, *, name: str, scale: bool | None = None) -> jax.Array:
        """The network's normalisation over its batch, groups of channels or all channels; x itself where it has none.

        Args:
            scale: whether it has a trained factor; None for the network's habit.
        """
        use_scale = self.norm_scale if scale is None else scale
        if self.norm == "none":
            return x
        if self.norm == "batch":
            layer = BatchNorm(
                self.batch_averaging, self.norm_momentum, self.norm_epsilon, use_scale, dtype=self.dtype, name=name
            )
            return layer(x, train=self.train)
        # GroupNorm's 32 groups (Wu and He 2018), fewer where they do not divide the channels; "layer" is one group.
        groups = 1 if self.norm == "layer" else next(n for n in range(32, 0, -1) if x.shape[-1] % n == 0)
        normalise: nn.Module = nn.GroupNorm(
            groups, epsilon=self.norm_epsilon, use_scale=use_scale, dtype=self.dtype, name=name
        )
        normalised: jax.Array = normalise(x)
        return normalised

    def activate(self, x: jax.Array) -> jax.Array:
        """The network's activation."""
        return ACTIVATIONS[self.activation](x)

    def dropout(self, x: jax.Array, rate: float, *, name: str = "dropout") -> jax.Array:
        """In training, zeros in place of that share of the values, the rest enlarged to match."""
        return nn.Dropout(rate, deterministic=not self.train, name=name)(x)

    def dense(
        self,
        x: jax.Array,
        features: int,
        *,
        name: str,
        bias: bool = True,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        dtype: DTypeLike | None = None,
    ) -> jax.Array:
        """(..., inputs) to (..., features)."""
        return nn.Dense(
            features,
            use_bias=bias,
            dtype=dtype or self.dtype,
            kernel_init=kernel_init or self.kernel_init,
            bias_init=bias_init or self.bias_init,
            name=name,
        )(x)

    def logits(
        self, x: jax.Array, num_classes: int, *, name: str = "head", kernel_init: Initializer | None = None
    ) -> jax.Array:
        """(batch, features) to (batch, num_classes), float32 whatever the network's precision (or float64).

        Its weights start as the network's, but never by fan-out, which is the number of classes: then by fan-in.
        """
        if kernel_init is None and self.kernel_init is he_normal_fan_out:
            kernel_init = dense_uniform_fan_in
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return self.dense(x, num_classes, name=name, kernel_init=kernel_init, dtype=dtype)

    def has_bias(self) -> bool:
        """Whether a convolution that is normalised next has a bias all the same."""
        return self.norm == "none" if self.conv_bias is None else self.conv_bias


class ConvTranspose(nn.ConvTranspose):
    """Linen's, without padding, in groups of one; lowered like `convolve`, whose gradient by the images it is."""

    lowering: Lowering = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, larger height, larger width, features)."""
        assert isinstance(self.kernel_size, tuple)
        assert isinstance(self.strides, tuple)
        window, (down, right) = self.kernel_size, self.strides
        kernel = self.param("kernel", self.kernel_init, (*window, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        height, width = (
            (count - 1) * step + length for count, step, length in zip(x.shape[1:3], (down, right), window, strict=True)
        )
        result = input_gradient(x, turned(kernel, 1), (height, width), (down, right), lowering=self.lowering)
        return result if bias is None else result + bias


class ConvNorm(nn.Module):
    """Convolution, normalisation, activation: `conv` and `norm`."""

    layers: Layers
    features: int
    kernel_size: Size = 1
    stride: Size = 1
    padding: Padding | None = None
    groups: int = 1
    activate: bool = True
    """Whether the network's activation follows."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, smaller height, smaller width, features)."""
        x = self.layers.conv(
            x, self.features, self.kernel_size, self.stride, name="conv", padding=self.padding, groups=self.groups,
            bias=self.layers.has_bias(),
        )  # fmt: skip
        x = self.layers.normalize(x, name="norm")
        return self.layers.activate(x) if self.activate else x


class DepthwiseNorm(nn.Module):
    """Depthwise convolution, normalisation, activation: `conv` and `norm`."""

    layers: Layers
    kernel_size: Size = 3
    stride: Size = 1
    padding: Padding | None = None
    activate: bool = True
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, smaller height, smaller width, channels)."""
        x = self.layers.depthwise(
            x, self.kernel_size, self.stride, name="conv", padding=self.padding, bias=self.layers.has_bias(),
            kernel_init=self.kernel_init,
        )  # fmt: skip
        x = self.layers.normalize(x, name="norm")
        return self.layers.activate(x) if self.activate else x


class SqueezeExcite(nn.Module):
    """Squeeze and excitation (Hu et al. 2017): each channel times a gate in 0..1 that sees all channels' means."""

    layers: Layers
    reduced: int
    """Width of the hidden layer."""
    activation: Activation = "relu"
    """Of the hidden layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to the same shape."""
        means = x.mean((1, 2))
        hidden = ACTIVATIONS[self.activation](self.layers.dense(means, self.reduced, name="reduce"))
        gate = nn.sigmoid(self.layers.dense(hidden, x.shape[-1], name="expand"))
        return x * gate[:, None, None, :]


def drop_path(x: jax.Array, rate: float | jax.Array | None, key: Callable[[], jax.Array]) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): zeros for a share `rate` of the examples, the others divided by 1 - rate.

    Args:
        x: a residual branch, (batch, ...).
        rate: None or the probability that an example's branch is dropped.
        key: gives the key, called only if it is needed.
    """
    if rate is None:
        return x
    keep = 1 - jnp.asarray(rate, x.dtype)
    kept = jax.random.bernoulli(key(), keep.astype(jnp.float32), (x.shape[0], *(1,) * (x.ndim - 1)))
    return jnp.where(kept, x / keep, jnp.zeros((), x.dtype))


def as_pair(size: Size) -> tuple[int, int]:
    """One number for height and width, or both."""
    return (size, size) if isinstance(size, int) else size
