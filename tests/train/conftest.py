"""A network small enough to follow by hand, and what trains it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from cnnjax.nn.network import Network, Outputs
from cnnjax.nn.norm import BatchNorm

SHAPE = (5, 5, 2)


class TinyNetwork(Network):
    """Convolution, BatchNorm if asked for, tanh, dropout, dense."""

    norm: bool = False
    dropout: float = 0.0
    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to `Outputs`."""
        x = nn.Conv(4, (3, 3), use_bias=not self.norm, dtype=self.dtype, name="conv")(images)
        if self.norm:
            x = BatchNorm(self.batch_averaging, dtype=self.dtype, name="norm")(x, train=train)
        x = nn.tanh(x).reshape(len(x), -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="dense")(x).astype(jnp.float32)
        return Outputs(logits=logits, aux={}, features={})


@pytest.fixture(scope="session")
def tiny():
    """A function that builds the network."""
    return TinyNetwork


@pytest.fixture(scope="session")
def make_batch():
    """A function that makes a batch of random images."""

    def make_batch(size: int = 8, masked: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        return {
            "image": random.integers(0, 256, (size, *SHAPE), np.uint8),
            "label": random.integers(0, 3, size, np.int32),
            "mask": (np.arange(size) < size - masked).astype(np.float32),
        }

    return make_batch


@pytest.fixture(scope="session")
def recorder():
    """An optimizer that leaves the parameters alone and keeps the gradient as its state."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradients, state, params=None: (jax.tree.map(jnp.zeros_like, gradients), gradients),
    )
