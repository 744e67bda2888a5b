"""What a trained network looks like inside: gradients by stage, activations around normalisation, dead units."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from cnnjax.analysis.summary import summarize
from cnnjax.data.examples import Datasets
from cnnjax.data.loader import EvalBatches, Shard, TrainBatches
from cnnjax.nn.network import Network
from cnnjax.ops.local_response import AFTER, BEFORE
from cnnjax.parallel import Executor, to_host
from cnnjax.train.init_from import first_state
from cnnjax.train.metrics import Batch
from cnnjax.train.state import TrainState
from cnnjax.train.step import normalize, predict
from cnnjax.train.task import Task, make_step

_EXAMPLES = 256
"""Of the held-out set, whose activations are looked at."""

GradientNorms = Callable[[TrainState, Batch], Mapping[str, jax.Array]]
Statistics = Callable[[TrainState, Any], Any]


def make_gradient_norms(task: Task, executor: Executor) -> GradientNorms:
    """A compiled function to the gradient's norm by top-level module (stem, stage1, ..., head) over one batch.

    It is the gradient that training follows: of the whole loss, auxiliary classifiers' among it, in training mode.
    """
    step = executor.compile_train(make_step(task.config, task.network, _recorder(), axis=executor.axis))

    def norms(state: TrainState, batch: Batch) -> Mapping[str, jax.Array]:
        # The step takes its state away, and the caller keeps this one.
        own = jax.tree.map(jnp.copy, state.replace(opt_state=state.params))
        recorded, _ = step(executor.put_state(own), batch)
        gradients = executor.copy_state(recorded).opt_state
        return {name: optax.tree.norm(part) for name, part in gradients.items()}

    return norms


def _recorder() -> optax.GradientTransformation:
    """An optimizer that changes nothing and keeps the gradient as its state."""

    def update(gradients: Any, _: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(jnp.zeros_like, gradients), gradients

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def make_statistics(task: Task) -> Statistics:
    """A compiled function to statistics of each feature map and around each local response normalisation."""
    mean, std = task.config.data.mean, task.config.data.std

    @jax.jit
    def statistics(state: TrainState, batch: Batch) -> Any:
        images = normalize(batch["image"], mean, std)
        maps = feature_maps(task.network, {"params": state.params, "batch_stats": state.batch_stats}, images)
        return {name: _of_map(values) for name, values in maps.items()}

    return statistics


def feature_maps(network: Network, variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    """A network's feature maps in evaluation mode by name; around each local response normalisation, in their order,
    `response_norm1_before`, `response_norm1_after`, ...

    Args:
        images: normalised, (batch, height, width, channels).
    """

    def features(params: Any, batch_stats: Any, images: jax.Array) -> dict[str, jax.Array]:
        return predict(network, params, batch_stats, images).features

    args = (variables["params"], variables.get("batch_stats", {}), images)
    closed, shapes = jax.make_jaxpr(features, return_shape=True)(*args)
    marked: list[tuple[str, Any]] = []
    for equation in closed.jaxpr.eqns:
        name = equation.params["name"] if equation.primitive.name == "name" else None
        if name in (BEFORE, AFTER):
            side = "before" if name == BEFORE else "after"
            number = 1 + sum(other.endswith(side) for other, _ in marked)
            marked.append((f"response_norm{number}_{side}", equation.outvars[0]))
    jaxpr = closed.jaxpr.replace(outvars=[*closed.jaxpr.outvars, *(variable for _, variable in marked)])
    outputs = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*jax.tree.leaves(args))
    found: dict[str, jax.Array] = jax.tree.unflatten(jax.tree.structure(shapes), outputs[: len(closed.jaxpr.outvars)])
    return found | dict(zip((name for name, _ in marked), outputs[len(closed.jaxpr.outvars) :], strict=True))


def _of_map(values: jax.Array) -> dict[str, jax.Array]:
    dead = (values <= 0).all(axis=(0, 1, 2))
    return {
        "mean": values.mean(),
        "deviation": values.std(),
        "largest": jnp.abs(values).max(),
        "zeros": (values <= 0).mean(),
        "dead": dead.mean(),
    }


def gradient_batch(task: Task, data: Datasets, shard: Shard) -> Mapping[str, Any]:
    """The first batch that a run with this seed sees, of it a process's part."""
    batches = TrainBatches(
        data.train, batch_size=task.config.data.batch_size, seed=task.config.seed, shard=shard,
        crop=task.config.data.crop,
    )  # fmt: skip
    return batches[0]


def diagnose(
    task: Task, data: Datasets, executor: Executor, state: TrainState, asked: tuple[str, ...], tools: "Tools"
) -> dict[str, Any]:
    """The diagnostics that a study asks for, as plain numbers.

    Returns:
        "gradient_norm": {"start": by module from the image on, "end": the same}; "activations": by map mean, deviation,
        largest absolute value and the share of values that are not above 0; "dead_units": by map, the share of channels
        that are above 0 for no image of 256 and nowhere in them. After a ReLU these learn nothing.
    """
    found: dict[str, Any] = {}
    if "gradient_norm" in asked:
        shard = Shard(executor.process_index, executor.process_count)
        batch = executor.put_batch(gradient_batch(task, data, shard))
        found["gradient_norm"] = {}
        for moment, at in {"start": first_state(task)[0], "end": state}.items():
            norms = _plain(tools.gradient_norms(at, batch))
            found["gradient_norm"][moment] = {module: norms[module] for module in tools.modules}
    if {"activations", "dead_units"} & set(asked):
        looked_at = EvalBatches(data.test, batch_size=min(_EXAMPLES, len(data.test)), shard=Shard())[0]
        on_one_device = jax.tree.map(to_host, state)
        statistics = {name: _plain(each) for name, each in tools.statistics(on_one_device, looked_at).items()}
        if "activations" in asked:
            found["activations"] = {
                name: {key: value for key, value in each.items() if key != "dead"} for name, each in statistics.items()
            }
        if "dead_units" in asked:
            found["dead_units"] = {name: each["dead"] for name, each in statistics.items()}
    return found


class Tools:
    """The compiled functions that an arm's runs share; each is made when it is first used."""

    def __init__(self, task: Task, executor: Executor) -> None:
        self._task, self._executor = task, executor

    @cached_property
    def gradient_norms(self) -> GradientNorms:
        """See `make_gradient_norms`."""
        return make_gradient_norms(self._task, self._executor)

    @cached_property
    def modules(self) -> list[str]:
        """The network's top-level modules with parameters as it calls them, auxiliary classifiers last."""
        layers = summarize(self._task.network, self._task.facts.input_shape).layers
        return list(dict.fromkeys(layer.name.split("/")[0] for layer in layers if layer.params))

    @cached_property
    def statistics(self) -> Statistics:
        """See `make_statistics`."""
        return make_statistics(self._task)


def _plain(numbers: Mapping[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items()}
