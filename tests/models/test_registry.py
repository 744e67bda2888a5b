"""What holds for every variant and every choice of every field, whatever the family."""

import dataclasses
import importlib
import math
import subprocess
import sys

import jax.numpy as jnp
import pytest
from definitions import initial_gain

from cnnjax import models
from cnnjax.errors import ConfigError
from cnnjax.models import FAMILIES, check_args, create_model, get_variant, list_models
from cnnjax.nn.network import Network

VARIANTS = list_models()


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


# LeNet-5 and Network in Network have heads of their own.
@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"lenet", "nin"}))
def test_heads_of_few_classes_start_unsure(family):
    """He's gain at most: by its fan-out, a head of ten classes starts with logits ten times as large."""
    variant = get_variant(FAMILIES[family][0])
    network = create_model(FAMILIES[family][0], num_classes=10)
    assert initial_gain(network, variant.input_shape) < 1.05 * math.sqrt(2)


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


@pytest.mark.parametrize(
    ("name", "args"),
    [("resnet18", {"width": 1e308}), ("resnext50_32x4d", {"group_width": 10**400})],
)
def test_numbers_that_overflow_are_a_sentence(name, args):
    with pytest.raises(ConfigError, match=r"^model\.args: numbers so large give no network$"):
        check_args(name, args)
