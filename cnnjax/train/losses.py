"""Losses of one example each; the step masks, sums and divides them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from cnnjax.config import CrossEntropyLoss, Loss

LossFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""(batch, classes) float32 logits and (batch,) integer labels to (batch,) losses."""


def make_loss(config: Loss) -> LossFunction:
    """The loss that a config names."""
    if isinstance(config, CrossEntropyLoss):
        smoothing = config.label_smoothing
        return lambda logits, labels: cross_entropy(logits, labels, smoothing)
    rubbish = config.rubbish
    return lambda logits, labels: lenet_map(logits, labels, rubbish)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy in nats, (batch,); `smoothing` of the target spread evenly over all classes."""
    classes = logits.shape[-1]
    targets = optax.smooth_labels(jax.nn.one_hot(labels, classes, dtype=logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def lenet_map(logits: jax.Array, labels: jax.Array, rubbish: float) -> jax.Array:
    """LeCun et al. 1998, equation 9, (batch,): y_label + log(exp(-j) + sum_i exp(-y_i)), where y = -logits.

    The second term pushes the penalties y of the wrong classes up, and stops once they are beyond j (`rubbish`).
    """
    penalties = -logits
    own = jnp.take_along_axis(penalties, labels[:, None], axis=-1)[:, 0]
    rubbish_class = jnp.full_like(logits[:, :1], -rubbish)
    return own + jax.nn.logsumexp(jnp.concatenate([logits, rubbish_class], axis=-1), axis=-1)
