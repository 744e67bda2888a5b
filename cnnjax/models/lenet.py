"""LeNet-5: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), section II-B; and the re-implementation that goes by that name today.

`lenet5` is the network as published: 60,000 trainable parameters, 340,908 connections. C1, C3 and C5 are 5x5
convolutions without padding; C3 sees S2 through Table I; S2 and S4 add 2x2 windows, then scale and shift each map by
two trainable numbers; F6 is dense; the squashing function 1.7159 tanh(2a/3) follows C1 to F6; the output is the squared
distance of F6 to ten fixed 7x12 bitmaps. The images are 32x32, background -0.1 and ink 1.175 (a matter of `data`).

Deliberate differences:
- `logits` are minus the paper's outputs, so that a larger one means a likelier class.
- Weights, biases among them, start uniform in +-2.4 / F, with F a unit's inputs without the constant one of the bias,
  which the paper does not say. F is 4 for a unit of S2 or S4.
- C5's kernels span whatever map S4 has, so that images from 16x16 fit; at the published 32x32 they are 5x5.
- The bitmaps of Figure 3 are those that public implementations share, which is one transcription; they were not
  compared with the printed figure pixel by pixel. 0, 2, 4 and 5 are drawn like o, z, y and s under a bar, which agrees
  with the paper's aim that confusable characters have similar codes.

`lenet5_modern` (61,706 parameters at 32x32) has what re-implementations have made of it: a full C3, max pooling, ReLU,
He initialisation and a linear output, for which softmax cross-entropy is the loss.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from pydantic import PositiveFloat, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.errors import ConfigError
from cnnjax.models.variant import Variant
from cnnjax.nn.digit_codes import RadialBasisOutput
from cnnjax.nn.initializers import Initialization, fan_in_biases, fan_in_weights
from cnnjax.nn.network import Network, Outputs
from cnnjax.nn.norm import BatchNorm
from cnnjax.nn.pooled_convolution import PooledConvolution
from cnnjax.nn.rounding import round_repeats
from cnnjax.nn.table_convolution import TableConvolution
from cnnjax.ops.conv import for_linen
from cnnjax.ops.pooling import average_pool, max_pool, sum_pool

Activation = Literal["scaled_tanh", "tanh", "sigmoid", "relu"]
Pooling = Literal["trainable", "average", "max"]

ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "scaled_tanh": lambda x: 1.7159 * jnp.tanh(2 / 3 * x),
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "relu": nn.relu,
}

# Table I: the maps of S2 that each map of C3 is connected to.
C3_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


class Subsampling(nn.Module):
    """2x2 windows to one value each: their sum times a coefficient plus a bias, both trained for each map, or a plain
    average or maximum without parameters."""

    pooling: Pooling
    initialization: Initialization
    dtype: DTypeLike = jnp.float32
    kernel_size: ClassVar[tuple[int, int]] = (2, 2)
    strides: ClassVar[tuple[int, int]] = (2, 2)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, maps) to (batch, height // 2, width // 2, maps)."""
        if self.pooling == "max":
            return max_pool(x, 2, 2)
        if self.pooling == "average":
            return average_pool(x, 2, 2)
        # Outside the paper's initialisation, the layer starts as an average.
        paper = self.initialization == "lecun_uniform"
        weights = fan_in_weights(self.initialization, 4) if paper else nn.initializers.constant(1 / 4)
        coefficient = self.param("coefficient", weights, x.shape[-1:], jnp.float32)
        bias = self.param("bias", fan_in_biases(self.initialization, 4), x.shape[-1:], jnp.float32)
        return sum_pool(x, 2, 2) * coefficient.astype(self.dtype) + bias.astype(self.dtype)

    @nn.nowrap
    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """None: by the papers' convention only convolutions and matrix products count."""
        return 0

    @nn.nowrap
    def connections(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Each unit's four inputs, and its bias where it has one."""
        return math.prod(output_shape) * (5 if self.pooling == "trainable" else 4)


class LeNet5(Network, kw_only=True):
    """LeNet-5. Its defaults are the published network; parameters are named after the paper's layers."""

    num_classes: PositiveInt = 10
    c3: Literal["table", "full"] = "table"
    """Whether C3's maps see S2's through the paper's Table I, or all of them."""
    pooling: Pooling = "trainable"
    """What S2 and S4 do; only the trainable sum is followed by the activation."""
    activation: Activation = "scaled_tanh"
    """After C1, C3, C5 and F6 (and trainable pooling)."""
    head: Literal["rbf", "linear"] = "rbf"
    """Distances to the digits' codes, or a dense layer."""
    initialization: Initialization = "lecun_uniform"
    """Of all weights, see `cnnjax.nn.initializers`; the paper's is lecun_uniform."""
    norm: Literal["none", "batch"] = "none"
    """Normalisation between C1, C3, C5 and their activations."""
    dropout: Fraction = 0.0
    """Probability that an output of C5 or F6 is dropped in training."""
    width: PositiveFloat = 1.0
    """Multiplies the maps of C1, C3 and C5 and the units of F6; needs a full C3 and a linear head unless it is 1."""
    depth: PositiveFloat = 1.0
    """How many convolutions C1 and C3 are, rounded up; those after the first keep the size of the map."""

    def __post_init__(self) -> None:
        if self.head == "rbf" and self.num_classes != 10:
            raise ConfigError(
                f"head 'rbf' has codes for the ten digits only, got num_classes {self.num_classes}; choose head: linear"
            )
        if self.width != 1 and (self.c3, self.head) != ("full", "linear"):
            raise ConfigError(
                f"width {self.width} does not go with c3 '{self.c3}' and head '{self.head}': Table I and the digits' "
                "codes have the published width; choose c3: full and head: linear"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits and the activated maps of c1 to f6; ConfigError below 16x16."""
        if images.ndim != 4 or min(images.shape[1:3]) < 16:
            raise ConfigError(
                "LeNet-5 takes images (batch, height, width, channels) of at least 16x16, 32x32 in the paper; "
                f"got {images.shape}"
            )
        activate = ACTIVATIONS[self.activation]
        drop = nn.Dropout(self.dropout, deterministic=not train, name="dropout")

        def weights_of(fan_in: int) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
            return fan_in_weights(self.initialization, fan_in), fan_in_biases(self.initialization, fan_in)

        def convolve(x: jax.Array, maps: int, size: tuple[int, int], name: str, padding: str = "VALID") -> jax.Array:
            kernel, bias = weights_of(math.prod(size) * x.shape[-1])
            layer = nn.Conv(
                maps, size, 1, padding, dtype=self.dtype, kernel_init=kernel, bias_init=bias,
                conv_general_dilated=for_linen(self.lowering), name=name,
            )  # fmt: skip
            return layer(x)

        def deepen(x: jax.Array, name: str) -> jax.Array:
            x = normalise(x, name)
            for index in range(2, round_repeats(1, self.depth) + 1):
                x = convolve(activate(x), x.shape[-1], (5, 5), f"{name}_{index}", "SAME")
                x = normalise(x, f"{name}_{index}")
            return x

        def connect(x: jax.Array, units: int, dtype: DTypeLike, name: str) -> jax.Array:
            kernel, bias = weights_of(x.shape[-1])
            return nn.Dense(units, dtype=dtype, kernel_init=kernel, bias_init=bias, name=name)(x)

        def normalise(x: jax.Array, name: str) -> jax.Array:
            if self.norm == "batch":
                x = BatchNorm(self.batch_averaging, dtype=self.dtype, name=f"{name}_norm")(x, train=train)
            return x

        def convolve_and_subsample(x: jax.Array, maps: int, name: str, pool: str) -> jax.Array:
            largest, dense = self.pooling == "max", name == "c1" or self.c3 == "full"
            alone = self.norm == "none" and round_repeats(1, self.depth) == 1
            # In one layer they are faster on a CPU; as two, which `native` keeps, each is seen by who counts them.
            if largest and dense and alone and self.lowering != "native":
                initializers = weights_of(25 * x.shape[-1])
                layer = PooledConvolution(maps, 5, 2, *initializers, self.dtype, self.lowering, name=name)
                x, pooled = layer(x)
                features[name] = activate(x)
            else:
                if dense:
                    x = convolve(x, maps, (5, 5), name)
                else:
                    x = TableConvolution(C3_TABLE, (5, 5), self.initialization, self.dtype, self.lowering, name=name)(x)
                x = deepen(x, name)
                features[name] = activate(x)
                subsample = Subsampling(self.pooling, self.initialization, self.dtype, name=pool)
                pooled = subsample(x if largest else features[name])
            # The activations never fall, so that the largest is chosen before them: then there are fewer to compute.
            features[pool] = pooled if self.pooling == "average" else activate(pooled)
            return features[pool]

        features: dict[str, jax.Array] = {}
        c1, c3, c5, f6 = (max(1, round(maps * self.width)) for maps in (6, 16, 120, 84))
        x = convolve_and_subsample(images, c1, "c1", "s2")
        x = convolve_and_subsample(x, c3, "c3", "s4")
        x = convolve(x, c5, (x.shape[1], x.shape[2]), "c5")
        x = features["c5"] = drop(activate(normalise(x, "c5")))
        x = features["f6"] = drop(activate(connect(x, f6, self.dtype, "f6")))
        x = x.reshape(-1, f6)
        if self.head == "rbf":
            logits = -RadialBasisOutput(name="output")(x)
        else:
            logits = connect(x, self.num_classes, jnp.float32, "output")
        return Outputs(logits=logits, aux={}, features=features)


_PAPER = (
    "LeCun, Bottou, Bengio, Haffner 1998, Gradient-Based Learning Applied to Document Recognition, "
    "Proceedings of the IEEE 86(11)"
)
_MODERN = {"c3": "full", "pooling": "max", "activation": "relu", "head": "linear", "initialization": "he_normal"}
VARIANTS = {
    "lenet5": Variant(LeNet5, (32, 32, 1), _PAPER),
    "lenet5_modern": Variant(LeNet5, (32, 32, 1), _PAPER, _MODERN),
}
