"""The training and evaluation steps as pure functions; `parallel` decides how they run."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from chex import ArrayTree
from flax import linen as nn
from jax import lax

from cnnjax.augment.batches import ChangeBatch
from cnnjax.config import GhostBatchNorm
from cnnjax.nn.network import Network, Outputs
from cnnjax.nn.norm import BatchAveraging
from cnnjax.ops.conv import CONVOLUTION
from cnnjax.train.freezing import IsFrozen, frozen_norms, keep_frozen, stop_gradients
from cnnjax.train.losses import LossFunction
from cnnjax.train.metrics import Batch, Metrics, batch_metrics, example_losses, masked_sum
from cnnjax.train.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[ArrayTree, ArrayTree, Batch], Metrics]
Remat = Literal["none", "full", "keep_products"]

# One fold_in a purpose, so that adding a purpose leaves the others' draws as they are.
_DROPOUT = 0
# Beside the steps, since what becomes of an example depends on the epoch, not on the step.
_AUGMENT = 2**32 - 1


def _as_it_is(tree: ArrayTree) -> ArrayTree:
    return tree


@dataclass(frozen=True)
class BatchAxis:
    """How the batch that a step sees is spread over devices."""

    shards: int = 1
    """Contiguous, equal parts that lie on different devices (jit over a mesh)."""
    name: str | None = None
    """Mapped axis over which the rest of the global batch lies (pmap)."""
    gather: Callable[[ArrayTree], ArrayTree] = field(default=_as_it_is, compare=False)
    """Brings parameters together that lie in parts on the devices."""
    scatter: Callable[[ArrayTree], ArrayTree] = field(default=_as_it_is, compare=False)
    """Leaves gradients on the devices that hold the state which they change."""

    def sum(self, tree: Any) -> Any:
        """Sums over the mapped axis, if there is one."""
        return tree if self.name is None else lax.psum(tree, self.name)

    def mean(self, tree: Any) -> Any:
        """Averages over the mapped axis, if there is one."""
        return tree if self.name is None else lax.pmean(tree, self.name)


def batch_averaging(mode: str | GhostBatchNorm, axis: BatchAxis) -> BatchAveraging:
    """What `train.batch_norm` means where the batch lies along `axis`."""
    if isinstance(mode, GhostBatchNorm):
        return BatchAveraging(group_size=mode.ghost)
    return {
        "global": BatchAveraging(axis_name=axis.name),
        "local": BatchAveraging(groups=axis.shards),
        "frozen": BatchAveraging(frozen=True),
    }[mode]


def normalize(images: jax.Array, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> jax.Array:
    """uint8 images, or floats from 0 to 1, to float32: (value - mean) / std, each one number or one a channel."""
    values = images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images
    return (values - jnp.asarray(mean)) / jnp.asarray(std)


def make_train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    loss: LossFunction,
    *,
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    accumulate: int = 1,
    ema_decay: float | None = None,
    remat: Remat = "none",
    auxiliary_weight: float = 0.3,
    unroll_accumulation: bool = False,
    augment: ChangeBatch | None = None,
    is_frozen: IsFrozen | None = None,
    axis: BatchAxis = BatchAxis(),
) -> TrainStep:
    """A pure (state, batch) -> (state, metrics).

    The loss is the mean over the global batch's unmasked examples, and the gradient that of the whole batch whatever
    `accumulate` (micro-batches made one after the other) and the devices. BatchNorm's running statistics move once a
    step, towards the mean over all its groups.

    Args:
        auxiliary_weight: each auxiliary classifier adds its own loss times this; the metric `loss` is without them.
        unroll_accumulation: write the micro-batches out instead of looping: faster on CPU, longer to compile.
        augment: changes the batch, by the run's key, before all else.
        is_frozen: which parameters and running statistics stay as they are.
    """
    forward = _rematerialised(_make_forward(network, is_frozen), remat)

    def loss_of(
        params: ArrayTree, batch_stats: ArrayTree, batch: Batch, key: jax.Array, examples: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, ArrayTree]]:
        if is_frozen is not None:
            params = stop_gradients(params, is_frozen)
        outputs, new_stats = forward(params, batch_stats, _inputs(batch, mean, std), key)
        metrics = batch_metrics(outputs, batch, loss)
        objective = metrics["loss"][0]
        if outputs.aux:
            losses = sum((example_losses(logits, batch, loss) for logits in outputs.aux.values()), jnp.zeros(()))
            auxiliary = masked_sum(losses, batch)
            metrics["auxiliary_loss"] = (auxiliary, metrics["loss"][1])
            objective += auxiliary_weight * auxiliary
        return objective / examples, (metrics, new_stats)

    def differentiate(
        state: TrainState, batch: Batch, key: jax.Array, examples: jax.Array
    ) -> tuple[Metrics, ArrayTree, ArrayTree]:
        gradients, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(
            axis.gather(state.params), state.batch_stats, batch, key, examples
        )
        return metrics, batch_stats, axis.scatter(gradients)

    def accumulated(
        state: TrainState, batch: Batch, key: jax.Array, examples: jax.Array
    ) -> tuple[Metrics, ArrayTree, ArrayTree]:
        def micro_step(micro_batch: Batch, index: jax.Array) -> Any:
            metrics, stats, gradients = differentiate(state, micro_batch, jax.random.fold_in(key, index), examples)
            # Every part starts from the same running statistics, so the mean of all is one move towards their mean.
            return metrics, jax.tree.map(lambda leaf: leaf / accumulate, stats), gradients

        parts = (_micro_batches(batch, accumulate, network.batch_averaging.group_size or 1), jnp.arange(accumulate))
        shapes = jax.eval_shape(lambda all_parts: micro_step(*jax.tree.map(lambda leaf: leaf[0], all_parts)), parts)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total: Any, part: Any) -> Any:
            added = jax.tree.map(jnp.add, total, part)
            # Written out, it would be one long sum of products: see `cnnjax.ops.onednn`.
            return lax.optimization_barrier(added) if unroll_accumulation else added

        total, _ = lax.scan(
            lambda total, part: (add(total, micro_step(*part)), None),
            zeros,
            parts,
            unroll=unroll_accumulation,
        )
        return total

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        run_key = jax.random.wrap_key_data(state.key)
        if augment is not None:
            batch = augment(batch, augmentation_key(run_key))
        key = jax.random.fold_in(run_key, state.step)
        key = jax.random.fold_in(key, _DROPOUT)
        if axis.name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis.name))
        examples = jnp.maximum(axis.sum(batch["mask"].sum()), 1)  # all of a batch's files may be broken
        compute = differentiate if accumulate == 1 else accumulated
        metrics, batch_stats, gradients = compute(state, batch, key, examples)
        metrics, gradients = axis.sum((metrics, gradients))
        batch_stats = axis.mean(batch_stats)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if is_frozen is not None:
            params = keep_frozen(state.params, params, is_frozen)
            batch_stats = keep_frozen(state.batch_stats, batch_stats, is_frozen)
        metrics["grad_norm"] = (optax.tree.norm(gradients), jnp.ones(()))
        ema = None
        if ema_decay is not None:
            ema = _moved(state.ema, {"params": params, "batch_stats": batch_stats}, ema_decay, state.step)
        new_state = state.replace(
            step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema
        )
        return new_state, metrics

    return train_step


def augmentation_key(run_key: jax.Array) -> jax.Array:
    """Of all changes that a run makes to its images."""
    return jax.random.fold_in(run_key, _AUGMENT)


def make_eval_step(
    network: Network,
    loss: LossFunction,
    *,
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    axis: BatchAxis = BatchAxis(),
) -> EvalStep:
    """A pure (params, batch_stats, batch) -> metrics; masked examples count nowhere."""

    def eval_step(params: ArrayTree, batch_stats: ArrayTree, batch: Batch) -> Metrics:
        outputs = predict(network, axis.gather(params), batch_stats, _inputs(batch, mean, std))
        return axis.sum(batch_metrics(outputs, batch, loss))

    return eval_step


def predict(network: Network, params: ArrayTree, batch_stats: ArrayTree, images: jax.Array) -> Outputs:
    """The network in evaluation mode on normalised images."""
    outputs: Any = network.apply({"params": params, "batch_stats": batch_stats}, images, train=False)
    return outputs


def _inputs(batch: Batch, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> jax.Array:
    # Padding becomes zeros, whatever it holds: its gradient is multiplied by zero, which does not undo NaN or Inf.
    return jnp.where(batch["mask"][:, None, None, None] > 0, normalize(batch["image"], mean, std), 0.0)


def _make_forward(network: Network, is_frozen: IsFrozen | None) -> Callable[..., tuple[Outputs, ArrayTree]]:
    def forward(
        params: ArrayTree, batch_stats: ArrayTree, images: jax.Array, key: jax.Array
    ) -> tuple[Outputs, ArrayTree]:
        variables = {"params": params, "batch_stats": batch_stats}
        with nn.intercept_methods(frozen_norms(is_frozen)) if is_frozen else contextlib.nullcontext():
            outputs, changed = network.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
        return outputs, changed.get("batch_stats", {})

    return forward


def _rematerialised(forward: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    if remat == "none":
        return forward
    return jax.checkpoint(forward, policy=_keep_products if remat == "keep_products" else None)


def _keep_products(primitive: Any, *_: Any, **parameters: Any) -> bool:
    return primitive.name in ("conv_general_dilated", "dot_general") or parameters.get("name") == CONVOLUTION


def _micro_batches(batch: Batch, parts: int, unit: int) -> dict[str, jax.Array]:
    """(batch, ...) to (parts, batch / parts, ...): runs of `unit` examples dealt out in turn.

    Dealt out, not cut, so that each part takes the same share of every device's examples, and holds the same examples
    however many devices there are. A unit is a BatchNorm group where groups have a fixed size.
    """

    def deal(leaf: jax.Array) -> jax.Array:
        dealt = leaf.reshape(-1, parts, unit, *leaf.shape[1:])
        return dealt.swapaxes(0, 1).reshape(parts, -1, *leaf.shape[1:])

    return {name: deal(leaf) for name, leaf in batch.items()}


def _moved(average: Any, new: Any, decay: float, step: jax.Array) -> Any:
    # Forgets fast at first, or the random initial weights would linger for 1 / (1 - decay) steps.
    weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, leaf: weight * old + (1 - weight) * leaf, average, new)
