"""Batch normalisation folded into the convolutions before it: in evaluation the same function, with fewer steps."""

import dataclasses

import numpy as np

from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.weights.bundle import Weights
from cnnjax.weights.convert import flatten, shapes_of, unflatten


def fold_batch_norm(weights: Weights) -> Weights:
    """The same network without normalisation, whose convolutions have biases and do what both did.

    Raises:
        ConfigError: the network has no batch normalisation, or some that no convolution precedes.
    """
    network = weights.network
    if getattr(network, "norm", None) != "batch":
        raise ConfigError(f"{weights.model} has no batch normalisation to fold")
    fields = {**weights.fields, "norm": "none"}
    folded = create_model(weights.model, **fields)
    expected = shapes_of(folded, weights.input_shape)
    leaves = {name: np.asarray(leaf) for name, leaf in flatten(weights.variables).items()}
    for name in [each for each in leaves if each.endswith("/mean")]:
        norm = name.removesuffix("/mean")
        convolution = f"{norm.removesuffix('norm')}conv" if norm.endswith("norm") else norm
        if f"{convolution}/kernel" not in leaves:
            raise ConfigError(f"{weights.model}: no convolution precedes {norm}, so that it cannot be folded")
        factor = leaves.pop(f"{norm}/scale", np.float32(1)) / np.sqrt(leaves.pop(f"{norm}/var") + network.norm_epsilon)
        shift = leaves.pop(f"{norm}/bias") - leaves.pop(f"{norm}/mean") * factor
        leaves[f"{convolution}/kernel"] = leaves[f"{convolution}/kernel"] * factor
        leaves[f"{convolution}/bias"] = leaves.get(f"{convolution}/bias", np.float32(0)) * factor + shift
    unknown = set(leaves) ^ set(flatten(expected))
    if unknown:
        raise ConfigError(f"{weights.model}: {sorted(unknown)[0]} has no place in the folded network")
    return dataclasses.replace(
        weights, fields=fields, variables=unflatten(leaves, expected), origin=f"{weights.origin}, batch norm folded"
    )
