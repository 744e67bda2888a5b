"""What every network has in common: the fields that training sets, and what a call returns."""

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from cnnjax.nn.norm import BatchAveraging


@flax.struct.dataclass
class Outputs:
    """Everything a network computes, in training and evaluation alike; `jit` prunes what nobody uses."""

    logits: jax.Array
    """(batch, classes) float32; larger means more likely."""
    aux: dict[str, jax.Array]
    """Logits of auxiliary classifiers by name; empty in evaluation."""
    features: dict[str, jax.Array]
    """(batch, height, width, channels) by the name of the stage, from shallow to deep."""


class Network(nn.Module, kw_only=True):
    """Base of all networks: `__call__(images, *, train)` takes (batch, height, width, channels), gives `Outputs`.

    The fields of a subclass are its configuration: what `model.args` in a config may set, apart from `dtype` and
    `batch_averaging`, which training sets from `train.precision` and `train.batch_norm`.
    """

    num_classes: int = 1000
    dtype: DTypeLike = jnp.float32
    batch_averaging: BatchAveraging = BatchAveraging()
