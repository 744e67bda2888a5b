"""Every value of every switch of every family builds, differentiates, and changes what the network is or computes."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrow import narrow, narrow_fields

from cnnjax.models import FAMILIES, check_args, get_variant

# The network on whose small version a family's switches are tried; the first of the family where none is named.
TRIED = {"resnet": "resnet50"}
# Switches that only have a meaning together with other fields.
WITH: dict[tuple[str, str], dict[str, typing.Any]] = {
    ("vgg11", "conv_bias"): {"norm": "batch"},
    ("vgg11", "last_kernel"): {"stage_sizes": (1, 1, 3), "stage_widths": (64, 128, 256)},
}
# Switches for whose values small images are too small.
LARGE = {"stem": 96}
# Values of the activation that are tried in the fast tests; the slow ones try all.
ACTIVATIONS = ("relu", "tanh")
# Switches that change how the network is computed, not what: no trace of the forward pass need differ.
HOW = ("remat", "scan")


def choices(annotation):
    """The values of every Literal in a type, and both of a bool."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if annotation is bool:
        return [False, True]
    return [value for inner in typing.get_args(annotation) for value in choices(inner)]


def every_choice():
    for family, variants in FAMILIES.items():
        name = TRIED.get(family, variants[0])
        network = get_variant(name).network
        types = typing.get_type_hints(network)
        for field in dataclasses.fields(network):
            for value in choices(types[field.name]) if field.name not in ("parent", "name") else ():
                rare = field.name == "activation" and value not in ACTIVATIONS
                yield pytest.param(name, field.name, value, marks=[pytest.mark.slow] if rare else [])


@functools.cache
def traced(name, fields, size=None, initialization=False):
    """The shapes of the parameters, and the training and evaluation passes with the gradient, as text."""
    network, shape = narrow(name, **dict(fields))
    shape = (size, size, shape[-1]) if size else shape
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)

    def loss(params, statistics, images, key):
        variables = {"params": params, **statistics}
        outputs, _ = network.apply(variables, images, train=True, mutable=list(statistics), rngs={"dropout": key})
        return sum(jnp.square(logits).mean() for logits in (outputs.logits, *outputs.aux.values()))

    def both(params, statistics, images, key):
        evaluated = network.apply({"params": params, **statistics}, images, train=False)
        return jax.grad(loss)(params, statistics, images, key), evaluated.logits

    statistics = {key: tree for key, tree in variables.items() if key != "params"}
    text = str(jax.make_jaxpr(both)(variables["params"], statistics, images, jax.random.key(0)))
    if initialization:
        init = functools.partial(network.init, train=False)
        text += str(jax.make_jaxpr(init)(jax.random.key(0), images))
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return [(jax.tree_util.keystr(path), leaf.shape, leaf.dtype) for path, leaf in leaves], text


@pytest.mark.parametrize(("name", "field", "value"), list(every_choice()))
def test_every_choice_differentiates_and_changes_something(name, field, value):
    together = WITH.get((name, field), {})
    usual = tuple(together.items())
    check_args(name, {**narrow_fields(name), **together, field: value})
    how = (LARGE.get(field), field == "initialization")
    tree, text = traced(name, (*usual, (field, value)), *how)
    assert all(dtype == np.float32 for _, _, dtype in tree)
    default = getattr(narrow(name, **together)[0], field)
    usual_tree, usual_text = traced(name, (*usual, (field, default)), *how)
    if value == default:
        assert (tree, text) == (usual_tree, usual_text)
    else:
        assert (tree, text) != (usual_tree, usual_text)
    if field in HOW and field != "scan":
        assert tree == usual_tree
