"""What holds for every variant and every choice of every field, whatever the family."""

import dataclasses
import functools
import importlib
import subprocess
import sys
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.errors import ConfigError
from cnnjax.models import FAMILIES, check_args, create_model, get_variant, list_models
from cnnjax.nn.network import Network

VARIANTS = list_models()


def choices(annotation):
    """The values of every Literal in a type, and both of a bool."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if annotation is bool:
        return [False, True]
    return [value for inner in typing.get_args(annotation) for value in choices(inner)]


def every_choice():
    for name in VARIANTS:
        network = get_variant(name).network
        types = typing.get_type_hints(network)
        for field in dataclasses.fields(network):
            for value in choices(types[field.name]) if field.name not in ("parent", "name") else ():
                yield name, field.name, value


def images_for(name, batch=4):
    return jax.random.normal(jax.random.key(1), (batch, *get_variant(name).input_shape))


@functools.cache
def trained_on(name, **fields):
    """Variables, logits in training, and the gradient of the cross-entropy, for one network on one batch."""
    network = create_model(name, **fields)
    images = images_for(name)
    labels = jnp.arange(len(images)) % network.num_classes
    # Operation by operation: what one network compiled, the next ones use.
    variables = network.init(jax.random.key(0), images, train=False)
    statistics = {name: tree for name, tree in variables.items() if name != "params"}

    def loss(params):
        variables = {"params": params, **statistics}
        key = jax.random.key(2)
        outputs, _ = network.apply(variables, images, train=True, mutable=list(statistics), rngs={"dropout": key})
        log_probabilities = jax.nn.log_softmax(outputs.logits)
        return -jnp.take_along_axis(log_probabilities, labels[:, None], 1).mean(), outputs.logits

    gradient, logits = jax.grad(loss, has_aux=True)(variables["params"])
    return jax.tree.map(np.asarray, (variables, logits, gradient))


def test_importing_the_registry_leaves_jax_alone():
    code = "import cnnjax.models, sys; cnnjax.models.list_models(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_table_and_family_name_the_same_variants(family):
    assert tuple(importlib.import_module(f"cnnjax.models.{family}").VARIANTS) == FAMILIES[family]


def test_a_variant_named_twice_raises(monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "other", (VARIANTS[0],))
    with pytest.raises(ValueError, match=f"'{VARIANTS[0]}' is registered twice"):
        list_models()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("lenet*", ["lenet5", "lenet5_modern"]), ("*_modern", ["lenet5_modern"]), ("LENET5", []), ("nothing", [])],
)
def test_list_models_filters(pattern, found):
    assert list_models(pattern) == found


@pytest.mark.parametrize("ask", [get_variant, create_model, lambda name: check_args(name, {})])
def test_unknown_name_names_the_nearest(ask):
    with pytest.raises(ConfigError, match=r"^unknown model 'lenet_modern'; did you mean 'lenet5_modern'\?$"):
        ask("lenet_modern")


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_builds_its_network_and_cites_its_paper(name):
    variant = get_variant(name)
    network = create_model(name)
    assert isinstance(network, Network)
    assert type(network) is variant.network
    assert {key: getattr(network, key) for key in variant.args} == dict(variant.args)
    assert any(year in variant.paper for year in map(str, range(1998, 2030)))


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_features_and_gradients(name):
    variables, logits, gradient = trained_on(name)
    assert logits.shape == (4, create_model(name).num_classes)
    assert logits.dtype == np.float32
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))
    assert jax.tree.structure(gradient) == jax.tree.structure(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path

    network = create_model(name)
    outputs = jax.eval_shape(lambda v: network.apply(v, images_for(name), train=False), variables)
    assert outputs.features
    assert all(feature.ndim == 4 for feature in outputs.features.values())
    assert outputs.aux == {}


@pytest.mark.parametrize(("name", "field", "value"), list(every_choice()))
def test_every_choice_trains_and_changes_something(name, field, value):
    variables, logits, gradient = trained_on(name, **{field: value})
    assert np.isfinite(logits).all()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path

    usual_variables, usual_logits, _ = trained_on(name)
    is_usual = getattr(create_model(name), field) == value
    same_tree = jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, usual_variables)
    same_logits = logits.shape == usual_logits.shape and np.allclose(logits, usual_logits)
    assert is_usual == (same_tree and same_logits)


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_computes_nearly_the_same_and_keeps_float32_outside(name):
    variables, _, _ = trained_on(name)
    images = images_for(name)
    logits = {
        dtype: create_model(name, dtype=dtype).apply(variables, images, train=False).logits
        for dtype in (jnp.float32, jnp.bfloat16)
    }
    assert logits[jnp.bfloat16].dtype == jnp.float32
    difference = np.abs(logits[jnp.bfloat16] - logits[jnp.float32]).max() / np.abs(logits[jnp.float32]).max()
    assert 0 < difference < 0.02

    made_in_bfloat16 = jax.eval_shape(
        functools.partial(create_model(name, dtype=jnp.bfloat16).init, train=False), jax.random.key(0), images
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(made_in_bfloat16)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"poling": "max"}, "model.args.poling: unknown key; did you mean 'pooling'?"),
        ({"dtype": "bfloat16"}, "model.args.dtype: unknown key; known: activation, "),
        ({"parent": None}, "model.args.parent: unknown key; known: activation, "),
        (
            {"pooling": "avg"},
            "model.args.pooling: expected 'trainable', 'average' or 'max', got 'avg'; did you mean 'average'?",
        ),
        ({"pooling": 3}, "model.args.pooling: expected 'trainable', 'average' or 'max', got a number (3)"),
        ({"dropout": "0.5"}, "model.args.dropout: expected a valid number, got text ('0.5')"),
        ({"dropout": 1.0}, "model.args.dropout: expected less than 1, got a number (1.0)"),
        ({"num_classes": 0}, "model.args.num_classes: expected greater than 0, got a number (0)"),
        ({"num_classes": 2.5}, "model.args.num_classes: expected a valid integer, got a number (2.5)"),
        ({"num_classes": 26}, "model.args: head 'rbf' has codes for the ten digits only, got num_classes 26"),
        ({"pooling": object()}, "model.args holds a value that YAML cannot"),
    ],
)
def test_wrong_args_are_one_clear_sentence(args, sentence):
    with pytest.raises(ConfigError) as raised:
        check_args("lenet5", args)
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


def test_all_wrong_args_are_told_at_once():
    with pytest.raises(ConfigError) as raised:
        check_args("lenet5", {"poling": "max", "dropout": -1}, "here")
    assert sorted(line.split(":")[0] for line in str(raised.value).split("\n")) == ["here.dropout", "here.poling"]


def test_args_come_back_in_the_fields_types():
    assert check_args("lenet5", {"dropout": 0, "head": "linear"}) == {"dropout": 0.0, "head": "linear"}
    assert type(check_args("lenet5", {"dropout": 0})["dropout"]) is float


def test_lists_become_tuples(monkeypatch):
    class Wide(Network, kw_only=True):
        widths: tuple[int, ...] = (1, 2)

    variant = dataclasses.replace(get_variant("lenet5"), network=Wide, args={})
    monkeypatch.setattr(models, "get_variant", lambda name: variant)
    assert check_args("wide", {"widths": [3, 4]}) == {"widths": (3, 4)}
    with pytest.raises(ConfigError, match=r"^model\.args\.widths\[1\]: expected a valid integer, got text \('4'\)$"):
        check_args("wide", {"widths": [3, "4"]})


def test_create_model_sets_fields_over_the_variants_own():
    network = create_model("lenet5_modern", pooling="average", num_classes=26, dtype=jnp.bfloat16)
    assert (network.pooling, network.num_classes, network.dtype) == ("average", 26, jnp.bfloat16)
    assert (network.head, network.c3) == ("linear", "full")
    with pytest.raises(ConfigError, match=r"^lenet5_modern\.poling: unknown key; did you mean 'pooling'\?$"):
        create_model("lenet5_modern", poling="max")
