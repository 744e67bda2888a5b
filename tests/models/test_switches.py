"""Every value of every switch of every family builds, and changes what it should and nothing else."""

import dataclasses
import functools
import math
import os
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions import random_images, random_variables
from narrow import narrow, narrow_fields

from cnnjax.models import FAMILIES, check_args, get_variant

# What a switch may change: the parameters' names and shapes, the multiply-adds, what is computed in evaluation and in
# training, the initial values.
ARCHITECTURE = {"parameters", "macs", "evaluation", "training"}
PARAMETERS = {"parameters", "evaluation", "training"}
SIZES = {"macs", "evaluation", "training"}
OUTPUTS = {"evaluation", "training"}
TRAINING = {"training"}
INITIALIZATION = {"initialization"}

# The network on whose small version a family's switches are tried; the first of the family where none is named.
TRIED = {"resnet": "resnet50", "se_resnet": "se_resnet50"}
# What each switch changes; another family's switch of the same name, or one of its values, may differ.
CHANGES: dict[str | tuple[str, str] | tuple[str, typing.Any], set[str]] = {
    "activate_branch": OUTPUTS,
    "activation": OUTPUTS,
    "auxiliary_classifiers": PARAMETERS,
    "auxiliary_dropout": TRAINING,
    "auxiliary_pool": TRAINING,
    "bottleneck": ARCHITECTURE,
    "c3": PARAMETERS,
    "cardinality": ARCHITECTURE,
    "compression": ARCHITECTURE,
    "conv_bias": PARAMETERS,
    "conv_widths": ARCHITECTURE,
    "convolution": ARCHITECTURE,
    "count_padding": OUTPUTS,
    "dense_width": ARCHITECTURE,
    "dense_widths": ARCHITECTURE,
    "depth": ARCHITECTURE,
    "dropout": TRAINING,
    "dropped": TRAINING,
    "entry": ARCHITECTURE,
    "expansion": ARCHITECTURE,
    "factor_order": PARAMETERS,
    "factorization": ARCHITECTURE,
    "fourth_pool": OUTPUTS,
    "group_width": ARCHITECTURE,
    "groups": ARCHITECTURE,
    "growth_rate": ARCHITECTURE,
    "head": ARCHITECTURE,
    "head_size": ARCHITECTURE,
    "initialization": INITIALIZATION,
    "intermediate_activation": OUTPUTS,
    "kernel_size": ARCHITECTURE,
    "last_features": ARCHITECTURE,
    "last_kernel": ARCHITECTURE,
    "last_module": OUTPUTS,
    "levels": ARCHITECTURE,
    "lrn": OUTPUTS,
    ("lrn", "batch_norm"): PARAMETERS,
    "lrn_alpha": OUTPUTS,
    "lrn_beta": OUTPUTS,
    "lrn_k": OUTPUTS,
    "lrn_size": OUTPUTS,
    "middle_blocks": ARCHITECTURE,
    "modules": ARCHITECTURE,
    "norm": PARAMETERS,
    "norm_epsilon": OUTPUTS,
    "norm_momentum": TRAINING,
    "norm_scale": PARAMETERS,
    "num_classes": ARCHITECTURE,
    "padding": OUTPUTS,
    ("unet", "padding"): SIZES,
    "pointwise_layers": ARCHITECTURE,
    "pool_padding": OUTPUTS,
    ("alexnet", "pool_padding"): SIZES,
    "pooling": SIZES,
    ("lenet", "pooling"): PARAMETERS,
    "projection_4c_4d": ARCHITECTURE,
    "projection_kernel": ARCHITECTURE,
    "reduced": ARCHITECTURE,
    "remat": OUTPUTS,  # their text: tests of `nn.stage` compare the values
    "residual_scales": OUTPUTS,
    "scale_ends": ARCHITECTURE,
    "scan": PARAMETERS,
    "se_divisor": ARCHITECTURE,
    "se_ratio": ARCHITECTURE,
    "separable": ARCHITECTURE,
    "shortcut": ARCHITECTURE,
    ("efficientnet", "shortcut"): OUTPUTS,
    ("inception_resnet", "shortcut"): OUTPUTS,
    "skip": ARCHITECTURE,
    "stacks": ARCHITECTURE,
    "stage_sizes": ARCHITECTURE,
    "stage_widths": ARCHITECTURE,
    "stem": ARCHITECTURE,
    # Their small stems are the published ones without strides.
    **{(family, "stem"): SIZES for family in ("vgg", "xception", "mobilenet", "efficientnet")},
    **{(family, "stem"): SIZES for family in ("inception_v3", "inception_v4", "inception_resnet")},
    "stem_kernel": ARCHITECTURE,
    "stem_padding": SIZES,
    "stem_pool": OUTPUTS,
    "stem_width": ARCHITECTURE,
    "stochastic_depth": TRAINING,
    "stride_on": SIZES,
    "third_branch": ARCHITECTURE,
    "third_kernel": ARCHITECTURE,
    "upsampling": OUTPUTS,
    ("upsampling", "bilinear"): SIZES,  # interpolates by matrix products
    "width": ARCHITECTURE,
    "widths": ARCHITECTURE,
}
# Switches that are numbers: another value, or how to get one from the small network's.
NUMBERS: dict[str, typing.Any] = {
    "auxiliary_dropout": lambda usual: 0.0 if usual else 0.5,
    "bottleneck": 16,
    "cardinality": lambda usual: 2 if usual == 1 else usual // 2,
    "compression": 1.0,
    "conv_widths": (64, 192, 384, 256, 256),
    "dense_width": 64,
    "dense_widths": (64, 32),
    "depth": lambda usual: 2 * usual if usual == 1 else 1.0,
    "dropout": lambda usual: 0.0 if usual else 0.5,
    "expansion": 4,
    "group_width": lambda usual: 8,
    "growth_rate": 16,
    "head_size": 3,
    "last_features": 0,
    "levels": 2,
    "lrn_alpha": 1e-2,
    "lrn_beta": 0.5,
    "lrn_k": 3.0,
    "lrn_size": 3,
    "middle_blocks": 16,
    "norm_epsilon": 1e-2,
    "norm_momentum": 0.5,
    "num_classes": 7,
    "pointwise_layers": 1,
    "projection_4c_4d": 32,
    "residual_scales": (0.1, 0.1, 0.1),
    "se_divisor": 16,
    "se_ratio": lambda usual: 0.5 if usual == 0.25 else 8 if usual == 16 else 4,
    "stage_sizes": lambda usual: tuple(size + 1 for size in usual),
    "stage_widths": lambda usual: tuple(width // 2 for width in usual),
    "stem_kernel": 3,
    "stem_padding": 2,
    "stem_width": 96,
    "stochastic_depth": lambda usual: 0.0 if usual else 0.5,
    "width": lambda usual: 2 * usual,
}
# Fields that are no switches.
OTHERS = ("parent", "name", "dtype", "batch_averaging", "lowering")
# Fields without which a switch has no meaning or no effect.
NORMALISED = {"norm": "batch"}
WITH: dict[str | tuple[str, str], dict[str, typing.Any]] = {
    **{(family, "norm_epsilon"): NORMALISED for family in ("alexnet", "nin", "vgg", "simple_cnn", "googlenet", "unet")},
    **{
        (family, "norm_momentum"): NORMALISED for family in ("alexnet", "nin", "vgg", "simple_cnn", "googlenet", "unet")
    },
    ("lenet", "num_classes"): {"head": "linear"},
    ("lenet", "width"): {"c3": "full", "head": "linear"},
    ("vgg", "conv_bias"): NORMALISED,
    ("vgg", "last_kernel"): {"stage_sizes": (1, 1, 3), "stage_widths": (64, 128, 256)},
    ("nin", "head_size"): {"head": "dense"},
    ("resnet", "group_width"): {"cardinality": 4},
    ("se_resnet", "group_width"): {"cardinality": 4},
    ("resnet", "cardinality"): {"group_width": 4},
    ("se_resnet", "cardinality"): {"group_width": 4},
    ("resnext", "bottleneck"): {"group_width": None, "cardinality": 1},
    ("resnet", "se_divisor"): {"se_ratio": 16},
    ("resnext", "se_divisor"): {"se_ratio": 16},
    "stem_pool": {"stem": "imagenet"},
    "stem_padding": {"stem": "imagenet"},
    "auxiliary_dropout": {"auxiliary_classifiers": 1},
    "scan": {"depth": 3.0},
}
# Switches for whose values small images are too small.
LARGE: dict[str | tuple[str, str], int] = {"stem": 96, "stem_pool": 96, "stem_padding": 96, ("unet", "depth"): 84}


def choices(annotation):
    """The values of every Literal in a type, and both of a bool."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if annotation is bool:
        return [False, True]
    return [value for inner in typing.get_args(annotation) for value in choices(inner)]


def switches():
    """(family, field, value) for each value of each switch; one number for each that is a number."""
    for family in FAMILIES:
        name = tried(family)
        network = get_variant(name).network
        types = typing.get_type_hints(network)
        for field in dataclasses.fields(network):
            if field.name in OTHERS:
                continue
            values = choices(types[field.name])
            if not values:
                other, usual = NUMBERS[field.name], getattr(small(family, field.name)[0], field.name)
                values = [other(usual) if callable(other) else other]
            for value in values:
                yield family, field.name, value


def tried(family):
    return TRIED.get(family, FAMILIES[family][0])


def together(family, field):
    """The fields with which a switch is tried."""
    return WITH.get((family, field), WITH.get(field, {}))


def small(family, field, **fields):
    """The small network on which a switch is tried, and its images' shape."""
    network, shape = narrow(tried(family), lowering="native", **{**together(family, field), **fields})
    size = LARGE.get((family, field)) or LARGE.get(field)
    return network, (size, size, shape[-1]) if size else shape


def expected_changes(family, field, value):
    return CHANGES.get((family, field)) or CHANGES.get((field, value)) or CHANGES[field]


def fast_first() -> list[typing.Any]:
    """Those that an earlier family has too are slow.

    There one value that is not the usual one is enough: with CNNJAX_SWITCHES=all each.
    """
    seen, tried_again, params = set(), set(), []
    for family, field, value in switches():
        again = (field, value) in seen or (field in NUMBERS and (field, "number") in seen)
        if again and os.environ.get("CNNJAX_SWITCHES") != "all":
            if (family, field) in tried_again or value == getattr(small(family, field)[0], field):
                continue
            tried_again.add((family, field))
        seen |= {(field, value), (field, "number")}
        params.append(
            pytest.param(family, field, value, marks=[pytest.mark.slow, pytest.mark.repeats] if again else [])
        )
    return params


def count_macs(jaxpr) -> int:
    """Multiply-adds of all convolutions and matrix products."""
    total = 0
    for equation in jaxpr.eqns:
        inputs, output = ([each.aval.shape for each in ends] for ends in (equation.invars, equation.outvars))
        if equation.primitive.name == "conv_general_dilated":
            numbers = equation.params["dimension_numbers"]
            total += math.prod(output[0]) * math.prod(inputs[1]) // inputs[1][numbers.rhs_spec[0]]
        elif equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            total += math.prod(output[0]) * math.prod(inputs[0][axis] for axis in contracted)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        inner = [getattr(each, "jaxpr", each) for each in jax.tree.leaves(list(equation.params.values()))]
        total += times * sum(count_macs(each) for each in inner if hasattr(each, "eqns"))
    return total


@functools.cache
def aspects(network, shape):
    """What of a network a switch may change."""
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    init = functools.partial(network.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))
    training = jax.make_jaxpr(functools.partial(square_outputs, network))(variables, images, jax.random.key(0))
    evaluation = jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False).logits)(variables, images)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {
        "parameters": [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves],
        "macs": count_macs(evaluation.jaxpr),
        "evaluation": str(evaluation),
        "training": str(training),
    }


def square_outputs(network, variables, images, key):
    """The mean of the outputs' squares in training, and the changed running statistics."""
    mutable = [name for name in variables if name != "params"]
    outputs, changed = network.apply(variables, images, train=True, mutable=mutable, rngs={"dropout": key})
    return sum(jnp.square(logits).mean() for logits in (outputs.logits, *outputs.aux.values())), changed


def initial_values(network, shape) -> str:
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return str(jax.make_jaxpr(functools.partial(network.init, train=False))(jax.random.key(0), images))


@pytest.mark.parametrize(("family", "field", "value"), fast_first())
def test_a_switch_changes_what_it_should_and_nothing_else(family, field, value):
    check_args(tried(family), {**narrow_fields(tried(family)), **together(family, field), field: value})
    usual, shape = small(family, field)
    network, _ = small(family, field, **{field: value})
    found, before = aspects(network, shape), aspects(usual, shape)
    changed = {aspect for aspect in found if found[aspect] != before[aspect]}
    # Its text holds the forward pass, too, which all other switches change.
    if field == "initialization" and initial_values(network, shape) != initial_values(usual, shape):
        changed.add("initialization")
    if value == getattr(usual, field):
        assert changed == set()
    else:
        assert changed == expected_changes(family, field, value)


def to_run():
    """Each value of each switch that is no number, on the family that compiles fastest among those that have it.

    With CNNJAX_SWITCHES=all numbers too, and on every family.
    """
    if os.environ.get("CNNJAX_SWITCHES") == "all":
        networks = {
            small(family, field, **{field: value}): (family, field, value) for family, field, value in switches()
        }
        return list(networks.values())
    cheap = ("simple_cnn", "nin", "vgg", "mobilenet", "resnet", "googlenet", "unet", "densenet", "resnext")
    rank = {family: place for place, family in enumerate(cheap)}
    first: dict[typing.Any, typing.Any] = {}
    for family, field, value in sorted(switches(), key=lambda each: rank.get(each[0], len(rank))):
        if field not in NUMBERS and value != getattr(small(family, field)[0], field):
            first.setdefault((field, value), (family, field, value))
    return list(first.values())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "field", "value"), to_run())
def test_every_value_runs_forward_and_backward(family, field, value):
    network, shape = small(family, field, **{field: value})
    variables, images = random_variables(network, shape), random_images(2, *shape)
    gradient = jax.grad(functools.partial(square_outputs, network), (0, 1), has_aux=True)
    (gradients, by_image), changed = jax.jit(gradient)(variables, images, jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients["params"], by_image, changed)))
    assert np.any(by_image != 0)


def test_every_expectation_is_of_a_switch_that_there_is():
    tried_switches = list(switches())
    known = {field for _, field, _ in tried_switches}
    known |= {(family, field) for family, field, _ in tried_switches}
    known |= {(field, value) for _, field, value in tried_switches}
    assert {*CHANGES, *WITH, *NUMBERS, *LARGE} <= known
