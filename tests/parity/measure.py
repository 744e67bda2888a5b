"""How far a network of ours is from another library's with the same random weights."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from peer_networks import KerasPeer, TorchPeer, build_peer

from cnnjax.models import create_model, get_variant
from cnnjax.weights.convert import from_peer, name_map, shapes_of, to_peer

LIMIT = 1e-4
"""Of a difference in float32."""
DOUBLE_LIMIT = 1e-9
"""Of a difference in float64, where float32's rounding alone is above its limit."""

# From this height on, one image and a network that is not compiled whole: XLA keeps 20 GB for EfficientNet-B7.
_LARGE = 456


def relative(ours: Any, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape, f"{ours.shape} here, {theirs.shape} there"
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def images(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Normal noise, two images (2, *shape), or one if they are large."""
    batch = 1 if shape[0] >= _LARGE else 2
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype(np.float32)


def our_variables(name: str, peer: TorchPeer | KerasPeer) -> dict[str, Any]:
    """The peer's weights as ours; AssertionError unless each has its place, and back again each is the same bits."""
    arrays = peer.arrays()
    variables, report = from_peer(name, arrays, shapes_of(create_model(name), get_variant(name).input_shape))
    assert report.missing == report.unexpected == report.mis_shaped == (), report
    back = to_peer(name, variables)
    assert {key for key in arrays if "num_batches_tracked" not in key} == set(back)
    for key, array in back.items():
        np.testing.assert_array_equal(array, arrays[key], err_msg=key)
    return variables


@functools.lru_cache(maxsize=1)
def _forward(name: str) -> Any:
    network = create_model(name)
    apply = functools.partial(network.apply, train=False)
    return apply if get_variant(name).input_shape[0] >= _LARGE else jax.jit(apply)


def at_native_size(name: str, seed: int) -> dict[str, dict[str, float]]:
    """Relative differences of the `logits` and of each stage that the name map knows, by precision.

    Always in float32; where one is above the limit, also in float64 (not Keras', which mixes in float32), which tells
    rounding from another network.
    """
    x = images(get_variant(name).input_shape, seed)
    peer = build_peer(name)
    peer.randomise(seed, x)
    variables, stages = our_variables(name, peer), dict(name_map(name).features)
    found = {"float32": _differences(_forward(name)(variables, x), *peer(x, stages))}
    if max(found["float32"].values()) >= LIMIT and isinstance(peer, TorchPeer):
        logits, maps = peer.in_float64()(x.astype(np.float64), stages)
        found["float64"] = _in_float64(name, variables, x, logits, maps)
    return found


def equal(found: dict[str, dict[str, float]]) -> bool:
    """Whether what `at_native_size` found is the difference of equal networks."""
    if "float64" in found:
        return max(found["float64"].values()) < DOUBLE_LIMIT
    return max(found["float32"].values()) < LIMIT


def at_odd_size(name: str, seed: int) -> dict[str, dict[str, float]] | None:
    """The same of the logits at a size neither square nor native; None where the peer admits none."""
    height, width, channels = get_variant(name).input_shape
    shape = (height // 2 + 21, width // 2 + 38, channels) if height > 64 else (height + 3, width + 8, channels)
    if name == "torchvision/inception_v3+aux":  # whose auxiliary classifier, in training, admits none so small
        shape = (height + 21, width + 38, channels)
    # Keras builds a network with its head for one size; pytorchcv's pool of the last map has a fixed window, and
    # efficientnet-lite-pytorch's convolutions pad for one size.
    if name.startswith(("keras/", "pytorchcv/", "efficientnet-lite-pytorch/")):
        return None
    peer, x = build_peer(name), images(shape, seed)
    peer.randomise(seed, x)
    logits, maps = peer(x, {})
    variables = our_variables(name, peer)
    found = {"float32": _differences(_forward(name)(variables, x), logits, maps)}
    if max(found["float32"].values()) >= LIMIT and isinstance(peer, TorchPeer):
        found["float64"] = _in_float64(name, variables, x, *peer.in_float64()(x.astype(np.float64), {}))
    return found


def _differences(outputs: Any, logits: np.ndarray, maps: dict[str, np.ndarray]) -> dict[str, float]:
    found = {stage: relative(outputs.features[stage], expected) for stage, expected in maps.items()}
    return {**found, "logits": relative(outputs.logits, logits)}


def _in_float64(
    name: str, variables: Any, x: np.ndarray, logits: np.ndarray, maps: dict[str, np.ndarray]
) -> dict[str, float]:
    with float64():
        network = create_model(name, dtype=np.float64)
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        return _differences(network.apply(variables, x.astype(np.float64), train=False), logits, maps)


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Lets JAX compute in float64 meanwhile."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)
