"""Batches of examples, through Grain: shuffled and endless for training, in order and once for evaluation.

A source hands Grain whole batches, each read by one call, since a Python call for every example would cost more than a
small network's step.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from cnnjax.config_augment import ResizedCrop
from cnnjax.data.crops import draw_crops
from cnnjax.data.examples import Examples, are_in_memory
from cnnjax.data.random_bits import random_stream
from cnnjax.data.workers import InProcesses, Source
from cnnjax.errors import ConfigError

Batch = dict[str, np.ndarray]
"""image (batch, height, width, channels) uint8, label (batch,) or (batch, height, width) int32, mask (batch,) float32:
1 for an example, 0 for padding. In training also epoch and index (batch,) int32: which example it is, and when."""


@dataclass(frozen=True)
class Shard:
    """Which part of every global batch this host loads: the `index`-th of `count` contiguous, equal blocks."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"host {self.index} of {self.count}: expected an index from 0 to the count less 1")

    def block(self, batch_size: int, name: str) -> slice:
        """This host's places in a global batch; ConfigError, with the batch size's `name`, where the hosts' differ."""
        if batch_size % self.count:
            raise ConfigError(f"{name} {batch_size} is not divisible by {self.count} hosts")
        local = batch_size // self.count
        return slice(self.index * local, (self.index + 1) * local)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Full batches in one pass over the training set; ConfigError where there is not even one."""
    if batch_size > examples:
        raise ConfigError(
            f"data.batch_size {batch_size} is larger than the training set of {examples} examples; "
            f"choose {examples} or less"
        )
    return examples // batch_size


def epoch_order(examples: int, *, seed: int, epoch: int) -> np.ndarray:
    """The training set's order in an epoch, counted from 0: (examples,) indices, a permutation."""
    return np.argsort(random_stream("order", seed, epoch).random_raw(examples), kind="stable")


def example_indices(step: int, *, examples: int, batch_size: int, seed: int) -> np.ndarray:
    """Which training examples a step, counted from 0, sees over all hosts: (batch_size,) indices in batch order.

    An epoch leaves out the last `examples % batch_size` of its order: others each time.
    """
    epoch, position = divmod(step, steps_per_epoch(examples, batch_size))
    return epoch_order(examples, seed=seed, epoch=epoch)[position * batch_size :][:batch_size]


class TrainBatches:
    """Grain's random access to this host's part of the training batch of each step, without end.

    The order depends on the seed and the epoch alone, not on the number of hosts.
    """

    def __init__(
        self, examples: Examples, *, batch_size: int, seed: int, shard: Shard, crop: ResizedCrop | None = None
    ) -> None:
        self._examples = examples
        self._crop = crop
        self._batch_size = batch_size
        self._seed = seed
        self._steps_per_epoch = steps_per_epoch(len(examples), batch_size)
        self._block = shard.block(batch_size, "data.batch_size")
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self._steps_per_epoch)
        start = position * self._batch_size
        indices = self._order_of(epoch)[start + self._block.start : start + self._block.stop]
        crops = draw_crops(self._crop, seed=self._seed, epoch=epoch, indices=indices)
        read = self._examples.read(indices, crops)
        numbers = {"epoch": np.full(len(indices), epoch, np.int32), "index": indices.astype(np.int32)}
        return {"image": read.images, "label": read.labels, "mask": read.mask, **numbers}

    def _order_of(self, epoch: int) -> np.ndarray:
        # Epoch and order change hands as one tuple: two threads may both compute an order, but never mix two.
        cached = self._order
        if cached is None or cached[0] != epoch:
            cached = (epoch, epoch_order(len(self._examples), seed=self._seed, epoch=epoch))
            self._order = cached
        return cached[1]


class EvalBatches:
    """Grain's random access to this host's part of each evaluation batch: all examples in order, the end padded."""

    def __init__(self, examples: Examples, *, batch_size: int, shard: Shard) -> None:
        self._examples = examples
        self._batch_size = batch_size
        self._block = shard.block(batch_size, "eval.batch_size")

    def __len__(self) -> int:
        return eval_steps(len(self._examples), self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        start = index * self._batch_size
        stop = min(start + self._block.stop, len(self._examples))
        read = self._examples.read(np.arange(start + self._block.start, stop))
        missing = self._block.stop - self._block.start - len(read.mask)
        return {
            name: np.pad(values, ((0, missing), *((0, 0),) * (values.ndim - 1)))
            for name, values in (("image", read.images), ("label", read.labels), ("mask", read.mask))
        }


def eval_steps(examples: int, batch_size: int) -> int:
    """Batches that hold all examples once, the last one padded where it is not full."""
    return -(-examples // batch_size)


class TrainStream(Iterator[Any]):
    """Batches without end; leaving a `with` of it ends the threads and processes that make them."""

    def __init__(self, batches: grain.DatasetIterator, processes: InProcesses | None) -> None:
        self._batches = batches
        self._processes = processes

    def __next__(self) -> Any:
        return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        """Where it stands, as JSON: it counts the batches handed out, not those made ahead."""
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from such a state as if never stopped."""
        self._batches.set_state(state)

    def close(self) -> None:
        self._batches.close()
        if self._processes is not None:
            self._processes.close()

    def __enter__(self) -> "TrainStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def train_batches(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    shard: Shard,
    put: Callable[[Batch], Any] | None = None,
    prefetch: int = 2,
    workers: int = 0,
    crop: ResizedCrop | None = None,
) -> TrainStream:
    """Endless shuffled batches of this host; each epoch has an order of its own and drops its remainder.

    Args:
        examples: the whole training set, on every host.
        batch_size: over all hosts.
        seed: of the order.
        shard: this host's part of each batch.
        put: applied to each batch ahead of time, in the prefetching thread: where a batch goes to the devices.
        prefetch: batches made ahead of their use by one thread; 0 makes each when asked for it, without a thread.
        workers: processes that read the batches, unless the examples are in memory; so many more are made ahead.
        crop: what is cut out of each image where it is read.

    Returns:
        An iterator over `Batch`es, or what `put` makes of them.

    Raises:
        ConfigError: the batch is larger than the training set, or does not divide by the hosts.
    """
    source = TrainBatches(examples, batch_size=batch_size, seed=seed, shard=shard, crop=crop)
    if not workers or are_in_memory(examples):
        return TrainStream(iter(_pipeline(source, put, prefetch)), None)
    processes = InProcesses(source, workers)
    return TrainStream(iter(_pipeline(processes, put, max(1, prefetch) + workers, threads=workers)), processes)


def eval_batches(
    examples: Examples,
    *,
    batch_size: int,
    shard: Shard,
    put: Callable[[Batch], Any] | None = None,
    prefetch: int = 2,
) -> grain.IterDataset:
    """Every example once and in order; what the last global batch lacks is zeros with mask 0.

    Arguments and errors are those of `train_batches`, but a batch may be larger than the set.

    Returns:
        An iterable over `eval_steps` batches, as many on every host; each `iter` of it is a new pass.
    """
    return _pipeline(EvalBatches(examples, batch_size=batch_size, shard=shard), put, prefetch)


def _pipeline(
    source: Source,
    put: Callable[[Batch], Any] | None,
    prefetch: int,
    threads: int = 1,
) -> grain.IterDataset:
    batches = grain.MapDataset.source(source)
    if put is not None:
        batches = batches.map(put)
    # One thread: the work is one gather and one transfer, and a second would only contend for the interpreter. Of
    # processes each is waited for by a thread of its own.
    options = grain.ReadOptions(num_threads=threads if prefetch else 0, prefetch_buffer_size=prefetch)
    return batches.to_iter_dataset(options)
