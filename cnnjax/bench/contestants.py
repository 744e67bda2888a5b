"""One network of one library, timed in a process of its own.

`python -m cnnjax.bench.contestants NAME MODE BATCH LOWERING` builds it and prints one line of JSON when it is ready;
then each line of input makes it take its turn, and it prints the seconds of one step.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cnnjax.malloc import keep_freed_memory

if TYPE_CHECKING:
    # Whoever times PyTorch does not load JAX.
    from cnnjax.nn.network import Network

Mode = Literal["forward", "train", "loop"]
"""Logits of a batch; SGD with momentum on a batch that is there; a whole training loop over a data set in memory."""
Step = Callable[[int], None]
"""Takes that many steps, and returns when the last one's result is there."""

# A turn is long enough for the clock and for threads to start.
_TURN_SECONDS = 0.3
_LOOP_STEPS = 400
_LEARNING_RATE, _MOMENTUM = 1e-3, 0.9


@dataclass(frozen=True)
class Contestant:
    """What takes turns."""

    turn: Callable[[], float]
    """Returns the seconds of one step."""
    facts: dict[str, float] = field(default_factory=dict)
    """Known before the first turn."""


def make_contestant(name: str, mode: Mode, batch: int, lowering: str) -> Contestant:
    """Builds a network, and compiles and warms it up.

    Args:
        name: `cnnjax/NAME` with any name of `cnnjax.create_model`; `torchvision/NAME`, `timm/NAME` or `torch/NAME`,
            with `+nhwc` behind it for the layout with the channels last; `keras/NAME` and
            `flax/NAME`, of flaxmodels, on JAX.
        lowering: how ours writes convolutions on a CPU.
    """
    library, _, model = name.partition("/")
    model, _, layout = model.partition("+")
    if mode == "loop":
        rate = _our_loop(model, batch, lowering) if library == "cnnjax" else _torch_loop(model, layout, batch)
        return Contestant(lambda: batch / rate())
    start = time.perf_counter()
    facts: dict[str, float] = {}
    if library == "cnnjax":
        step, facts = _ours(model, mode, batch, lowering)
    else:
        images, labels = _data(name, batch)
        step = {"keras": _keras, "flax": _flax}.get(library, _torch(library, layout))(model, mode, images, labels)
    built = time.perf_counter()
    step(1)
    facts |= {"build_seconds": built - start, "first_step_seconds": time.perf_counter() - built}
    step(1)
    start = time.perf_counter()
    step(1)
    times = max(1, math.ceil(_TURN_SECONDS / (time.perf_counter() - start)))

    def turn() -> float:
        step(1)  # what the one before has left in the caches, and its threads that still wait, are not ours
        start = time.perf_counter()
        step(times)
        return (time.perf_counter() - start) / times

    return Contestant(turn, facts)


def input_shape(name: str) -> tuple[int, int, int]:
    """(height, width, channels) at which a network is timed: that of our network of the same name."""
    from cnnjax.models import get_variant

    library, _, model = name.partition("/")
    model = model.partition("+nhwc")[0]
    if library == "flax":
        model = model.lower()
    return get_variant(model if library in ("cnnjax", "torch", "flax") else f"{library}/{model}").input_shape


def _data(name: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    shape = input_shape(name)
    images = np.random.default_rng(0).random((batch, *shape), np.float32)
    return images, _labels(batch, shape, pixels=name.startswith("torch/unet"))


def _labels(batch: int, shape: tuple[int, int, int], *, pixels: bool) -> np.ndarray:
    size, classes = ((batch, *shape[:2]), 2) if pixels else ((batch,), 10)
    return np.random.default_rng(1).integers(0, classes, size).astype(np.int32)


def _ours(model: str, mode: Mode, batch: int, lowering: str) -> tuple[Step, dict[str, float]]:
    from cnnjax.models import create_model, get_variant

    return our_step(create_model(model, lowering=lowering), get_variant(model).input_shape, mode, batch)


def our_step(network: "Network", shape: tuple[int, int, int], mode: Mode, batch: int) -> tuple[Step, dict[str, float]]:
    """Compiles a network of ours.

    Args:
        shape: (height, width, channels) of the images.
        mode: `forward` or `train`.

    Returns:
        The steps, and what compiling took: see `cnnjax.bench.models.measure_models`.
    """
    import jax
    import jax.numpy as jnp
    from chex import ArrayTree

    from cnnjax.config import OptimizerConfig
    from cnnjax.train.losses import cross_entropy
    from cnnjax.train.optimizer import make_optimizer
    from cnnjax.train.state import init_state
    from cnnjax.train.step import make_train_step

    network, options = network.on(jax.default_backend())
    optimizer = make_optimizer(OptimizerConfig(args={"momentum": _MOMENTUM}), _LEARNING_RATE)
    state = init_state(network, optimizer, 0, shape, ema=False)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    if mode == "forward":
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        images = jnp.asarray(pixels, jnp.float32) / 255

        def forward(variables: ArrayTree, images: jax.Array) -> jax.Array:
            outputs: Any = network.apply(variables, images, train=False)
            logits: jax.Array = outputs.logits
            return logits

        compiled, facts = _compile(jax.jit(forward, compiler_options=options), variables, images)

        def infer(times: int) -> None:
            for _ in range(times):
                compiled(variables, images).block_until_ready()

        return infer, facts
    labels = _labels(batch, shape, pixels=network.labels_pixels)
    data = {"image": jnp.asarray(pixels), "label": jnp.asarray(labels), "mask": jnp.ones(batch)}
    train_step = make_train_step(network, optimizer, cross_entropy)
    step = jax.jit(train_step, donate_argnums=0, compiler_options=options)
    compiled, facts = _compile(step, state, data)

    def train(times: int) -> None:
        nonlocal state
        for _ in range(times):
            state, metrics = compiled(state, data)
        jax.block_until_ready((state, metrics))

    return train, facts


def _compile(function: Any, *arguments: Any) -> tuple[Any, dict[str, float]]:
    """The compiled function; seconds of tracing, of lowering and of compiling it, its size, and its memory."""
    start = time.perf_counter()
    traced = function.trace(*arguments)
    at_trace = time.perf_counter()
    lowered = traced.lower()
    at_lowering = time.perf_counter()
    compiled = lowered.compile()
    facts = {
        "trace_seconds": at_trace - start,
        "lower_seconds": at_lowering - at_trace,
        "compile_seconds": time.perf_counter() - at_lowering,
        "operations": float(lowered.as_text().count(" = ")),
        "temporary_bytes": float(compiled.memory_analysis().temp_size_in_bytes),
    }
    return compiled, facts


def _loop_data(model: str) -> list[str]:
    height, _, channels = input_shape(f"cnnjax/{model}")
    return ["data.source.kind=synthetic", f"data.source.image_size={height}", f"data.source.channels={channels}"]


def _our_loop(model: str, batch: int, lowering: str) -> Callable[[], float]:
    from cnnjax.bench.overhead import loop_rate
    from cnnjax.config_files import load_config

    fields = [f"model.name={model}", *_loop_data(model), f"data.batch_size={batch}", f"ops.conv={lowering}"]
    training = [
        "parallel.devices=1",
        f"optimizer.args.momentum={_MOMENTUM}",
        f"schedule.learning_rate={_LEARNING_RATE}",
    ]
    config = load_config(None, [*fields, *training])
    return lambda: loop_rate(config, _LOOP_STEPS)


def _torch_loop(model: str, layout: str, batch: int) -> Callable[[], float]:
    from cnnjax.bench.torch_contestants import loop_rate
    from cnnjax.config_files import load_config
    from cnnjax.data.sources import load

    examples = load(load_config(None, [f"model.name={model}", *_loop_data(model)]).data).train
    read = examples.read(np.arange(len(examples)))
    return lambda: loop_rate(model, layout, read.images, read.labels, batch, _LOOP_STEPS)


def _torch(library: str, layout: str) -> Callable[[str, Mode, np.ndarray, np.ndarray], Step]:
    def make(model: str, mode: Mode, images: np.ndarray, labels: np.ndarray) -> Step:
        from cnnjax.bench.torch_contestants import step_of

        return step_of(library, model, layout, images, labels, train=mode == "train")

    return make


def _keras(model: str, mode: Mode, images: np.ndarray, labels: np.ndarray) -> Step:
    import keras

    network = getattr(keras.applications, model)(weights=None, classifier_activation=None, input_shape=images.shape[1:])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(_LEARNING_RATE, _MOMENTUM), loss, jit_compile=True)

    def run(times: int) -> None:
        for _ in range(times):
            network.predict_on_batch(images) if mode == "forward" else network.train_on_batch(images, labels)

    return run


def _flax(model: str, mode: Mode, images: np.ndarray, labels: np.ndarray) -> Step:
    import flaxmodels
    import jax
    import jax.numpy as jnp
    import optax

    network = getattr(flaxmodels, model)(output="logits", pretrained=None, normalize=False)
    x, y, optimizer = jnp.asarray(images), jnp.asarray(labels), optax.sgd(_LEARNING_RATE, _MOMENTUM)
    variables = dict(jax.jit(lambda key, x: network.init(key, x, train=False))(jax.random.key(0), x))
    params = variables.pop("params")
    if mode == "forward":
        apply = jax.jit(lambda params, rest, x: network.apply({"params": params, **rest}, x, train=False))

        def infer(times: int) -> None:
            for _ in range(times):
                apply(params, variables, x).block_until_ready()

        return infer

    def loss_of(params: Any, rest: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        logits, changed = network.apply(
            {"params": params, **rest}, x, train=True, mutable=list(rest), rngs={"dropout": key}
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), changed

    @jax.jit
    def update(params: Any, rest: Any, slots: Any, key: jax.Array) -> tuple[Any, Any, Any]:
        gradients, rest = jax.grad(loss_of, has_aux=True)(params, rest, key)
        changes, slots = optimizer.update(gradients, slots)
        return optax.apply_updates(params, changes), rest, slots

    state = (params, variables, optimizer.init(params))

    def learn(times: int) -> None:
        nonlocal state
        for number in range(times):
            state = update(*state, jax.random.key(number))
        jax.block_until_ready(state)

    return learn


def main() -> None:
    """Takes part, as the module says."""
    name, mode, batch, lowering = sys.argv[1:]
    os.environ["KERAS_BACKEND"] = "jax"
    if name.startswith("cnnjax/"):
        keep_freed_memory()  # as the command line does
    # What libraries print is not for the one who reads the times.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(message: dict[str, float]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    contestant = make_contestant(name, mode, int(batch), lowering)  # type: ignore[arg-type]
    answer(contestant.facts)
    for _ in sys.stdin:
        seconds = contestant.turn()
        answer({"seconds": seconds, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})


if __name__ == "__main__":
    main()
