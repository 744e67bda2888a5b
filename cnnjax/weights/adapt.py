"""Weights for another number of classes or of input channels: which arrays that concerns, and what becomes of them."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.nn.network import Network
from cnnjax.weights.bundle import Weights
from cnnjax.weights.convert import Arrays, Variables, flatten, library_of, peer_tensors, shapes_of, unflatten

Shape = tuple[int, int, int]


def change_classes(weights: Weights, classes: int, seed: int = 0) -> tuple[Weights, list[str]]:
    """The network for another number of classes: its heads start anew, all else stays.

    Returns:
        The weights, without labels if they changed, and a sentence on what changed.
    """
    before = weights.network.num_classes
    if classes == before:
        return weights, []
    heads = _heads(weights.model, weights.fields, weights.input_shape)
    fields = {**weights.fields, "num_classes": classes}
    network = create_model(weights.model, **fields)
    like = unflatten({**weights.arrays, **dict.fromkeys(heads)}, weights.variables)
    variables = start_anew(network, weights.input_shape, like, heads, seed)
    changed = dataclasses.replace(weights, fields=fields, variables=variables, labels=())
    return changed, [f"{', '.join(heads)}: new, for {classes} classes in place of {before}"]


def change_channels(weights: Weights, channels: int) -> tuple[Weights, list[str]]:
    """The network for images of another number of channels.

    For one channel the first layer's kernels are summed over theirs: a grey picture is then answered as the same one in
    equal colours. For n channels in place of m the kernels are repeated in turn (red, green, blue, red, ...) and
    multiplied by m / n, so that equal channels give what they gave. Mean and std of the pictures follow
    (`Preprocessing.for_channels`).

    Returns:
        The weights, and a sentence on what changed.
    """
    height, width, before = weights.input_shape
    if channels == before:
        return weights, []
    arrays, firsts = weights.arrays, _firsts(weights.model, weights.fields, weights.input_shape)
    for path in firsts:
        arrays[path] = adapt_channels(arrays[path], channels)
    changed = dataclasses.replace(
        weights,
        input_shape=(height, width, channels),
        variables=unflatten(arrays, weights.variables),
        preprocessing=weights.preprocessing and weights.preprocessing.for_channels(channels),
    )
    how = "summed" if channels == 1 else f"repeated and multiplied by {before}/{channels}"
    return changed, [f"{', '.join(firsts)}: for {channels} channels in place of {before}, {how}"]


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """(height, width, inputs, outputs) to (height, width, channels, outputs), as `change_channels` says."""
    inputs = kernel.shape[2]
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    return kernel[:, :, np.arange(channels) % inputs] * kernel.dtype.type(inputs / channels)


def start_anew(
    network: Network, shape: Shape, variables: Variables, paths: Collection[str], seed: int
) -> dict[str, Any]:
    """`variables` with new values at `paths`."""
    leaves = flatten(variables)

    def initialise() -> dict[str, jax.Array]:
        fresh = network.init(jax.random.key(seed), jnp.zeros((1, *shape)), train=False)
        return {path: array for path, array in flatten(fresh).items() if path in paths}

    # Compiled, it computes what is returned alone, not the network; once, it is not worth optimising.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    fresh = jax.jit(initialise, compiler_options=options)() if paths else {}
    return unflatten({**leaves, **{path: np.asarray(array) for path, array in fresh.items()}}, variables)


def _heads(model: str, fields: Mapping[str, Any], shape: Shape) -> list[str]:
    """The parameters whose shape the number of classes decides."""
    few, more = (flatten(shapes_of(create_model(model, **{**fields, "num_classes": n}), shape)) for n in (10, 11))
    return [path for path in few if few[path].shape != more[path].shape]


def _firsts(model: str, fields: Mapping[str, Any], shape: Shape) -> list[str]:
    """The kernels whose shape the number of input channels decides."""
    network = create_model(model, **fields)
    few, more = (flatten(shapes_of(network, (*shape[:2], shape[2] + n))) for n in (0, 1))
    paths = [path for path in few if few[path].shape != more[path].shape]
    if any(len(few[path].shape) != 4 for path in paths):
        raise ConfigError(f"the first layer of {model} is no convolution, so that it has one number of channels")
    return paths


def classes_in(arrays: Arrays, peer: str, model: str, fields: Mapping[str, Any], shape: Shape) -> int:
    """How many classes the file is for; the network's own number where it has no head."""
    network = create_model(model, **fields)
    tensors = peer_tensors(peer, shapes_of(network, shape))
    found = (arrays.get(tensors[path].name) for path in _heads(model, fields, shape))
    return next((len(bias) for bias in found if bias is not None and bias.ndim == 1), network.num_classes)


def channels_in(arrays: Arrays, peer: str, model: str, fields: Mapping[str, Any], shape: Shape) -> int:
    """How many channels the file's images have."""
    tensors = peer_tensors(peer, shapes_of(create_model(model, **fields), shape))
    axis = 2 if library_of(peer) == "keras" else 1
    found = (arrays.get(tensors[path].name) for path in _firsts(model, fields, shape))
    return next((kernel.shape[axis] for kernel in found if kernel is not None and kernel.ndim == 4), shape[2])
