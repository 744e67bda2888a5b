"""Optimizers for a training in phases, each of which freezes other parameters.

Where a parameter rests, its part of the optimizer rests too: it comes back as it was left, and counts its own updates.
By the run's steps, Adam would take the first gradients of a parameter for the averages of a long past, and let it move
several times too far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from chex import ArrayTree, Numeric

from cnnjax.train.freezing import frozen_by, map_by_name

Rate: TypeAlias = optax.Schedule | float
MakeOptimizer: TypeAlias = Callable[[Rate], optax.GradientTransformation]


@dataclass(frozen=True)
class Phases:
    """When each parameter trains."""

    freezes: tuple[Sequence[str], ...] = ((),)
    """Of each phase, the patterns of what rests; see `frozen_by`."""
    starts: tuple[int, ...] = ()
    """The step after which each phase but the first begins."""

    def of(self, name: str) -> tuple[int, ...]:
        """The phases in which the parameter of that name trains."""
        return tuple(number for number, patterns in enumerate(self.freezes) if not frozen_by(patterns)(name))

    def own(self, rate: Rate, trained: Sequence[int]) -> Rate:
        """The learning rate by the number of updates of what trains in those phases alone."""
        if not callable(rate):
            return rate
        bounds = (0, *self.starts)
        # The updates made before each of its phases, and how many steps the run is ahead of them by then.
        before, ahead = [0], []
        for number in trained:
            ahead.append(bounds[number] - before[-1])
            if number < len(self.starts):
                before.append(self.starts[number] - ahead[-1])
        changes, offsets = jnp.array(before[1 : len(ahead)], int), jnp.array(ahead)

        def scheduled(count: Numeric) -> Numeric:
            count = jnp.asarray(count)
            return rate(count + offsets[jnp.searchsorted(changes, count, side="right")])

        return scheduled

    def optimizer(self, make: MakeOptimizer, rate: Rate, phase: int) -> optax.GradientTransformation:
        """What moves the parameters in a phase.

        Args:
            make: from a learning rate to an optimizer that treats each parameter by itself.
            rate: by the step of the run.

        Returns:
            An optimizer whose state is the same kind of tree in all phases.
        """
        if not any(self.freezes):
            return make(rate)

        def parts(params: ArrayTree) -> optax.GradientTransformationExtraArgs:
            labels: dict[str, tuple[int, ...]] = {}

            def label(name: str, _: object) -> str:
                trained = self.of(name)
                key = "_".join(["phase", *map(str, trained)]) if trained else "never"
                labels[key] = trained
                return key

            tree = map_by_name(params, label)
            return optax.partition(
                {key: self._part(make, rate, trained, phase) for key, trained in labels.items()}, tree
            )

        def update(
            updates: ArrayTree, state: ArrayTree, params: ArrayTree | None = None, **extra: object
        ) -> tuple[ArrayTree, ArrayTree]:
            return parts(updates).update(updates, state, params, **extra)

        return optax.GradientTransformationExtraArgs(lambda params: parts(params).init(params), update)

    def _part(
        self, make: MakeOptimizer, rate: Rate, trained: tuple[int, ...], phase: int
    ) -> optax.GradientTransformation:
        if not trained:
            return optax.set_to_zero()
        optimizer = make(self.own(rate, trained))
        if phase in trained:
            return optimizer

        def rest(updates: ArrayTree, state: ArrayTree, params: ArrayTree | None = None) -> tuple[ArrayTree, ArrayTree]:
            return jax.tree.map(jnp.zeros_like, updates), state

        return optax.GradientTransformation(optimizer.init, rest)
