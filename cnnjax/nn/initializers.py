"""The papers' initialisers, by a unit's fan-in: how many inputs it has, the constant one of its bias not among them."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

# lecun_uniform: within +-2.4 / fan-in, biases too (LeCun, Bottou, Bengio and Haffner 1998, appendix A).
# lecun_normal: variance 1 / fan-in, biases zero (LeCun, Bottou, Orr and Müller 1998, "Efficient BackProp").
# he_normal: variance 2 / fan-in, biases zero (He et al. 2015, "Delving Deep into Rectifiers").
Initialization = Literal["lecun_uniform", "lecun_normal", "he_normal"]

Initializer = Callable[..., jax.Array]
"""(key, shape, dtype) to an array."""

# Variance 2 / fan-out (He et al. 2015, "Delving Deep into Rectifiers", the backward condition), as in ResNet releases.
# A kernel is (height, width, inputs of a group, outputs), so that Flax counts fan-out over all groups.
he_normal_fan_out: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
he_normal_fan_in: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
glorot_uniform: Initializer = nn.initializers.glorot_uniform()
# Within +-1 / sqrt(fan-in), what PyTorch gives a dense layer: the head in the ResNet and DenseNet releases.
dense_uniform_fan_in: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def depthwise_he_normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Variance 2 / (height * width) for depthwise kernels (height, width, 1, channels), whose fan-out that is."""
    return jax.random.normal(key, shape, dtype) * math.sqrt(2 / math.prod(shape[:2]))


def dense_uniform_fan_out(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Uniform within +-1 / sqrt(outputs), the EfficientNet release's last layer, or He's +-sqrt(6 / inputs) if less.

    With the release's thousand classes that is no difference; ten would start with logits five times as large.
    """
    bound = min(1 / math.sqrt(shape[-1]), math.sqrt(6 / shape[0]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def fan_in_weights(initialization: Initialization, fan_in: int | np.ndarray) -> Callable[..., jax.Array]:
    """An initialiser of weights; `fan_in` is one number, or an array of one for each entry of the last axis."""

    def initialize(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        if initialization == "lecun_uniform":
            return jax.random.uniform(key, shape, dtype, -1, 1) * jnp.asarray(2.4 / fan_in, dtype)
        gain = 2 if initialization == "he_normal" else 1
        return jax.random.normal(key, shape, dtype) * jnp.asarray(np.sqrt(gain / fan_in), dtype)

    return initialize


def fan_in_biases(initialization: Initialization, fan_in: int | np.ndarray) -> Callable[..., jax.Array]:
    """The initialiser of the biases that goes with `fan_in_weights`."""
    return fan_in_weights(initialization, fan_in) if initialization == "lecun_uniform" else nn.initializers.zeros
