"""What a batch's outputs are worth: each example's loss, and sums over the examples that count."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cnnjax.nn.network import Outputs
from cnnjax.train.losses import LossFunction
from cnnjax.train.reporting import CLASS_IOU

Batch = Mapping[str, jax.Array]
"""image (batch, height, width, channels) uint8, label (batch,) or (batch, height, width) int32, mask (batch,) float32:
0 marks padding; epoch and index (batch,) int32 where `augment` needs them."""
Metrics = dict[str, tuple[jax.Array, jax.Array]]
"""name -> (sum, count), to be divided once, on the host."""


def batch_metrics(outputs: Outputs, batch: Batch, loss: LossFunction) -> Metrics:
    """Loss and accuracy, and of a segmentation each class's intersection and union; masked examples count nowhere."""
    logits, labels, count = outputs.logits, batch["label"], batch["mask"].sum()
    metrics = {"loss": (masked_sum(example_losses(logits, batch, loss), batch), count)}
    if "share" in batch:
        labels = jnp.where(batch["share"] < 0.5, batch["other_label"], labels)
    if logits.ndim == 4:
        labels = crop_labels(labels, logits.shape[1:3])
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)
    metrics["accuracy"] = (masked_sum(_per_example(correct), batch), count)
    if logits.ndim == 4:
        chosen = logits.argmax(-1)
        for index in range(logits.shape[-1]):
            found, true = chosen == index, labels == index
            both, either = (masked_sum(pixels.sum((1, 2)), batch) for pixels in (found & true, found | true))
            metrics[f"{CLASS_IOU}{index}"] = (both, either)
    return metrics


def example_losses(logits: jax.Array, batch: Batch, loss: LossFunction) -> jax.Array:
    """(batch,): each example's loss, the mean over its pixels where there is a label for each.

    Where labels are mixed, that of either label by its share.
    """
    labels = batch["label"]
    if logits.ndim == 4:
        labels = crop_labels(labels, logits.shape[1:3])
        return _per_example(loss(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)).reshape(labels.shape))
    if "share" not in batch:
        return loss(logits, labels)
    return batch["share"] * loss(logits, labels) + (1 - batch["share"]) * loss(logits, batch["other_label"])


def _per_example(values: jax.Array) -> jax.Array:
    return values.reshape(len(values), -1).mean(-1)


def masked_sum(values: jax.Array, batch: Batch) -> jax.Array:
    """() float32: the sum of (batch,) values over the examples that count."""
    # A masked example's value may be anything, NaN included: choose, do not multiply.
    return jnp.where(batch["mask"] > 0, values, 0).astype(jnp.float32).sum()


def crop_labels(labels: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """The middle of the labels, for a network without padding, whose output is smaller than its input."""
    top, left = ((whole - part) // 2 for whole, part in zip(labels.shape[1:], size, strict=True))
    return labels[:, top : top + size[0], left : left + size[1]]
