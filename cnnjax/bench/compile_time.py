"""What `scan` and `remat` do to a network's train step: the time to compile it, and the memory it works in."""

import dataclasses
import itertools
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.config import OptimizerConfig
from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant
from cnnjax.nn.network import Network
from cnnjax.train.losses import cross_entropy
from cnnjax.train.optimizer import make_optimizer
from cnnjax.train.state import TrainState
from cnnjax.train.step import make_train_step

SWITCHES = ("scan", "remat")


def measure_compile_time(
    name: str, fields: Mapping[str, Any], *, batch_size: int = 2, input_size: int = 64
) -> dict[str, Any]:
    """Compiles a network's train step (SGD with momentum) with each setting of `scan` and `remat` that it has.

    Nothing is run, and no parameters are made: shapes are enough.

    Args:
        name: a network of `cnnjax.models`.
        fields: of the network, other than the two.
        input_size: height and width of the images.

    Returns:
        `settings`: for each of them, the one with both off first, `lower_seconds` (from Python to XLA's input),
        `operations` (lines of that input), `compile_seconds` (XLA), `temporary_bytes` (what the step takes beside its
        arguments and results), and `time_ratio` and `memory_ratio`, over those of the first.

    Raises:
        ConfigError: the network has neither field, or `fields` sets one of them.
    """
    given = [switch for switch in SWITCHES if switch in fields]
    if given:
        raise ConfigError(f"{given[0]} is what is measured, on and off; leave it out of the network's fields")
    known = {field.name for field in dataclasses.fields(get_variant(name).network)}
    switches = [switch for switch in SWITCHES if switch in known]
    if not switches:
        raise ConfigError(f"model {name} has no field {' or '.join(SWITCHES)}: there is nothing to compare")
    settings: list[dict[str, Any]] = []
    for values in itertools.product((False, True), repeat=len(switches)):
        setting: dict[str, Any] = dict(zip(switches, values, strict=True))
        network = create_model(name, **{**fields, **setting})
        costs = _compile(network, (batch_size, input_size, input_size), name)
        settings.append({**setting, **costs})
    first = settings[0]
    for setting in settings:
        setting["time_ratio"] = _seconds(setting) / _seconds(first)
        setting["memory_ratio"] = setting["temporary_bytes"] / max(first["temporary_bytes"], 1)
    return {
        "model": name,
        "fields": dict(fields),
        "batch_size": batch_size,
        "input_size": input_size,
        "backend": jax.default_backend(),
        "settings": settings,
    }


def _compile(network: Network, size: tuple[int, int, int], name: str) -> dict[str, float]:
    images = (*size, get_variant(name).input_shape[-1])
    network, options = network.on(jax.default_backend())
    optimizer = make_optimizer(OptimizerConfig(args={"momentum": 0.9}), 0.1)

    def begin() -> TrainState:
        variables = network.init(jax.random.key(0), jnp.zeros((1, *images[1:])), train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        key = jnp.zeros((2,), jnp.uint32)
        return TrainState(jnp.zeros((), jnp.int32), key, params, batch_stats, optimizer.init(params), None)

    state = jax.eval_shape(begin)
    batch = {
        "image": jax.ShapeDtypeStruct(images, jnp.uint8),
        "label": jax.ShapeDtypeStruct(size if network.labels_pixels else size[:1], jnp.int32),
        "mask": jax.ShapeDtypeStruct(size[:1], jnp.float32),
    }
    train_step = make_train_step(network, optimizer, cross_entropy)
    step = jax.jit(train_step, donate_argnums=0, compiler_options=options)
    # What one setting has traced must not speed up the next; and the first must not pay for the compiler's own start.
    jax.clear_caches()
    jax.jit(lambda x: x @ x).lower(jnp.zeros((2, 2))).compile()
    start = time.perf_counter()
    lowered = step.lower(state, batch)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    memory: Any = compiled.memory_analysis()
    return {
        "lower_seconds": middle - start,
        "operations": len(lowered.as_text().splitlines()),
        "compile_seconds": end - middle,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


def _seconds(setting: Mapping[str, float]) -> float:
    return setting["lower_seconds"] + setting["compile_seconds"]
