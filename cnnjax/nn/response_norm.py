"""The place of local response normalisation in a network, and what may stand in for it."""

import dataclasses
from typing import Literal, TypeAlias

import jax

from cnnjax.nn.layers import Layers
from cnnjax.ops.local_response import local_response_norm

ResponseNorm = Literal["on", "off", "batch_norm"]
Constants: TypeAlias = tuple[int, float, float, float] | tuple[()]


def response_norm(
    layers: Layers, x: jax.Array, kind: ResponseNorm, constants: Constants = (), *, name: str
) -> jax.Array:
    """Local response normalisation, nothing, or batch normalisation in its place, which has parameters under `name`.

    Args:
        constants: size, k, alpha and beta; by default those of `cnnjax.ops.local_response`.
    """
    if kind == "on":
        return local_response_norm(x, *constants)
    return x if kind == "off" else dataclasses.replace(layers, norm="batch").normalize(x, name=name)
