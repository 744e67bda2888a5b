"""What diagnostics say is what a plain computation finds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.config_files import load_config
from cnnjax.ops.local_response import local_response_norm
from cnnjax.study.diagnostics import Tools, diagnose, feature_maps
from cnnjax.train.opening import prepare

ASKED = ("gradient_norm", "activations", "dead_units")
SMALL = (
    "data.source={kind: synthetic, train_examples: 64, test_examples: 40, image_size: 16}",
    *("data.image_size=16", "data.batch_size=16", "eval.batch_size=16", "train.duration.steps=2"),
)
ALEXNET = "{stem: small, width: 0.0625, dense_width: 128, initialization: he_normal, dropout: 0.0}"


def prepared(*overrides):
    task, data, executor = prepare(load_config(None, [*SMALL, *overrides]))
    return task, data, executor, Tools(task, executor)


@pytest.fixture(scope="module")
def alexnet():
    task, data, executor, tools = prepared("model.name=alexnet", f"model.args={ALEXNET}")
    state = task.init_state()
    # As if trained: other weights, and a channel of conv1 that is dead.
    params = jax.tree.map(lambda leaf: 1.5 * leaf, state.params)
    params["conv1"]["conv"]["bias"] = params["conv1"]["conv"]["bias"].at[0].set(-100.0)
    state = state.replace(params=params)
    return task, data, state, diagnose(task, data, executor, state, ASKED, tools)


def test_gradient_norms_are_those_of_the_loss(alexnet):
    task, data, state, found = alexnet
    # The first batch of the run, as its loader gives it.
    from cnnjax.data.loader import example_indices

    chosen = example_indices(0, examples=64, batch_size=16, seed=0)
    images, labels = data.train.images[chosen] / 255.0, data.train.labels[chosen]

    def loss(params):
        logits = task.network.apply({"params": params}, jnp.asarray(images, jnp.float32), train=False).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    for moment, params in (("start", task.init_state().params), ("end", state.params)):
        gradients = jax.jit(jax.grad(loss))(params)
        expected = {name: float(optax.tree.norm(part)) for name, part in gradients.items()}
        assert found["gradient_norm"][moment] == pytest.approx(expected, rel=1e-4)
        in_order = ["conv1", "conv2", "conv3", "conv4", "conv5", "dense1", "dense2", "head"]
        assert list(found["gradient_norm"][moment]) == in_order
    assert found["gradient_norm"]["start"] != found["gradient_norm"]["end"]


@pytest.mark.parametrize(
    ("name", "args", "first", "last"),
    [
        ("cifar_resnet20", "{width: 0.5}", "stem", "head"),
        ("cifar_resnet20", "{width: 0.5, depth: 2.0, scan: true}", "stem", "head"),
        ("googlenet", "{stem: small, width: 0.0625, depth: 0.2}", "conv1", "auxiliary2"),
    ],
)
def test_modules_are_in_the_order_of_the_network(name, args, first, last):
    task, _, _, tools = prepared(f"model.name={name}", f"model.args={args}", "data.image_size=32")
    assert set(tools.modules) == set(task.init_state().params)
    assert (tools.modules[0], tools.modules[-1]) == (first, last)


def test_activations_around_response_normalisation(alexnet):
    task, data, state, found = alexnet
    activations = found["activations"]
    maps = feature_maps(task.network, {"params": state.params}, jnp.asarray(data.test.images / 255.0, jnp.float32))
    before, after = maps["response_norm1_before"], maps["response_norm1_after"]
    np.testing.assert_allclose(local_response_norm(before), after, rtol=1e-5)
    np.testing.assert_array_equal(after, maps["stage1"])
    assert activations["response_norm1_before"]["mean"] == pytest.approx(float(before.mean()), rel=1e-5)
    assert activations["stage1"]["deviation"] == pytest.approx(float(after.std()), rel=1e-5)
    assert activations["stage1"]["largest"] == pytest.approx(float(after.max()), rel=1e-5)
    assert activations["stage1"]["zeros"] == pytest.approx(float((after <= 0).mean()), rel=1e-5)
    assert {"response_norm1_before", "response_norm2_after", "stage3"} <= activations.keys()
    assert "response_norm3_before" not in activations


def test_a_dead_channel_is_counted(alexnet):
    *_, found = alexnet
    dead = found["dead_units"]
    channels = 8
    assert dead["response_norm1_before"] >= 1 / channels
    assert dead["response_norm1_before"] == dead["stage1"]
    assert dead["stage1"] * channels == pytest.approx(round(dead["stage1"] * channels))


def test_auxiliary_classifiers_feed_the_early_layers():
    name = "{stem: small, width: 0.0625, depth: 0.2, auxiliary_pool: adaptive, auxiliary_dropout: 0.0, dropout: 0.0}"
    norms = {}
    for weight in (0.0, 10.0):
        task, data, executor, tools = prepared(
            "model.name=googlenet", f"model.args={name}", f"train.auxiliary_weight={weight}"
        )
        norms[weight] = diagnose(task, data, executor, task.init_state(), ("gradient_norm",), tools)["gradient_norm"]
    assert norms[10.0]["start"]["conv1"] > 2 * norms[0.0]["start"]["conv1"]
    assert norms[10.0]["start"]["head"] == pytest.approx(norms[0.0]["start"]["head"], rel=1e-3)
    assert norms[0.0]["start"] == norms[0.0]["end"]


@pytest.mark.parametrize("executor", ["jit", "pmap"])
def test_on_several_devices_they_are_the_same(executor):
    found = []
    for devices in (1, 4):
        task, data, run_on, tools = prepared(f"parallel={{executor: {executor}, devices: {devices}}}")
        found.append(diagnose(task, data, run_on, task.init_state(), ASKED, tools))
    one, four = found
    assert four["gradient_norm"]["start"] == pytest.approx(one["gradient_norm"]["start"], rel=1e-4)
    assert four["dead_units"] == one["dead_units"]


def test_the_state_that_is_looked_at_can_still_be_used():
    task, data, executor, tools = prepared()
    state = task.init_state()
    before = dataclasses.asdict(jax.tree.map(np.asarray, state))
    diagnose(task, data, executor, state, ASKED, tools)
    after = dataclasses.asdict(jax.tree.map(np.asarray, state))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
