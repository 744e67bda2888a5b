"""The papers' initialisers, by a unit's fan-in: how many inputs it has, the constant one of its bias not among them."""

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
