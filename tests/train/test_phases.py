"""Phases of a training: which parameters move in which, at what rate; and layers that move at a rate of their own."""

import shutil

import jax
import numpy as np
import optax
import pytest
import yaml

from cnnjax.config import Config, OptimizerConfig
from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant, list_models
from cnnjax.nn.network import layer_names
from cnnjax.train.loop import fit
from cnnjax.train.optimizer import in_phases, list_optimizers, make_optimizer
from cnnjax.train.phases import Phases
from cnnjax.train.run_folder import read_history
from cnnjax.train.run_weights import run_weights
from cnnjax.train.task import DataFacts, make_task
from cnnjax.weights.convert import shapes_of

CONFIG = """
model: {name: lenet5_modern, args: {norm: batch}}
data: {source: {kind: synthetic, classes: 3, train_examples: 48, test_examples: 8}, batch_size: 16}
optimizer: {args: {momentum: 0.9}, weight_decay: 0.01}
schedule: {kind: constant, learning_rate: 0.1}
train: {freeze: ["*", "!output/*"]}
log: {every: {steps: 1}}
checkpoint: {every: {steps: 1}, keep_last: 10}
parallel: {devices: 1}
"""
PHASES = [{"start": {"epochs": 1}, "freeze": ["c1*"], "learning_rate_factor": 0.5}, {"start": {"steps": 5}}]


def config_of(steps, phases):
    values = yaml.safe_load(CONFIG)
    return Config.model_validate(
        {**values, "train": {**values["train"], "duration": {"steps": steps}, "phases": phases}}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three phases."""
    run = tmp_path_factory.mktemp("phases") / "run"
    fit(config_of(6, PHASES), run)
    return run


def arrays_after(run, step):
    return run_weights(run, step).arrays


def test_each_phase_moves_what_it_does_not_freeze(trained):
    frozen = {1: lambda name: not name.startswith("output/"), 4: lambda name: name.startswith("c1"), 6: lambda _: False}
    steps = {1: (1, 3), 4: (3, 5), 6: (5, 6)}
    for phase, (start, end) in steps.items():
        before, after = (arrays_after(trained, step) for step in (start, end))
        for name in before:
            assert np.array_equal(before[name], after[name]) == frozen[phase](name), (phase, name)


def test_each_phase_has_its_learning_rate(trained):
    rates = [record["learning_rate"] for record in read_history(trained) if record["kind"] == "train"]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.05, 0.05, 0.1], rtol=1e-6)


def test_the_optimizer_goes_on(trained):
    """The head's momentum is not lost: its moves are those of a run whose optimizer never hears of phases."""
    before, after = (arrays_after(trained, step)["output/bias"] for step in (3, 4))
    earlier = arrays_after(trained, 2)["output/bias"]
    momentum = (before - earlier) / 0.1 * 0.9 * 0.05
    # What is left is the fresh gradient's part, of which a softmax's biases, three classes over, sum to nothing.
    assert abs((after - before - momentum).sum()) < 1e-6
    assert np.abs(momentum).max() > 10 * 1e-6


def test_a_run_goes_on_in_its_phase(trained, tmp_path):
    """Stopped in the second phase and continued, it ends as the run that was not."""
    shutil.copytree(trained, tmp_path / "run")
    for step in (5, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    fit(config_of(6, PHASES), tmp_path / "run")
    expected = arrays_after(trained, 6)
    for name, leaf in arrays_after(tmp_path / "run", 6).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("phases", "sentence"),
    [
        ([{"start": {"steps": 60}}], "train.phases.0.start: it is step 60, expected one between 0 and 50"),
        ([{"start": {"steps": 9}}, {"start": {"steps": 9}}], "train.phases.0.start: it is step 9, .* between 0 and 9"),
        ([{"start": {"steps": 9}, "freeze": ["c9/*"]}], "train.phases.0.freeze: no parameter's name fits 'c9/"),
        ([{"start": {"steps": 9}, "freeze": ["*"]}], "train.phases.0.freeze: nothing is left to train"),
    ],
)
def test_phases_are_checked(phases, sentence):
    config = Config.model_validate({"train": {"duration": {"steps": 50}, "phases": phases}})
    with pytest.raises(ConfigError, match=sentence):
        make_task(config, DataFacts(tuple("abc"), (32, 32, 1), 1000, 100))


def test_factors_multiply_the_schedule():
    schedule = in_phases(optax.linear_schedule(1.0, 0.0, 10), {4: 0.5, 8: 3.0})
    expected = [1.0, 0.9, 0.8, 0.7, 0.3, 0.25, 0.2, 0.15, 0.6, 0.3]
    np.testing.assert_allclose([schedule(step) for step in range(10)], expected, rtol=1e-6)
    assert in_phases(0.1, {4: 1.0}) == 0.1


PARAMS = {name: {"kernel": np.linspace(0.5, 1, 6, dtype=np.float32).reshape(2, 3)} for name in ("body", "head")}


def gradients_of(step):
    random = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), PARAMS)


def moves_of_the_body(config, schedule, phases, steps):
    """What each of the steps adds to the body, in the phases that they are in; the gradients are those of `steps`."""
    optimizers = [make_optimizer(config, schedule, (), phases, phase) for phase in range(len(phases.freezes))]
    params, state, moves = PARAMS, optimizers[0].init(PARAMS), []
    for step in steps:
        optimizer = optimizers[sum(start <= step for start in phases.starts)]
        updates, state = optimizer.update(gradients_of(step), state, params)
        params = optax.apply_updates(params, updates)
        moves.append(updates["body"]["kernel"])
    return np.stack(moves)


@pytest.mark.parametrize("name", list_optimizers())
def test_what_thaws_moves_as_if_the_run_began_then(name):
    """Neither decay nor the count of the others' updates gathers while it rests, whatever the optimizer."""
    config = OptimizerConfig(name=name, weight_decay=0.1)
    thawing = Phases((("body/*",), ()), (4,))
    moves = moves_of_the_body(config, 0.01, thawing, range(7))
    assert not moves[:4].any()
    assert moves[4:].any()
    np.testing.assert_allclose(moves[4:], moves_of_the_body(config, 0.01, Phases(), range(4, 7)), rtol=1e-5, atol=1e-7)


def test_what_rests_comes_back_as_it_was_left():
    """Frozen in between, it goes on with its own moments; but its learning rate is that of the run's step."""
    config = OptimizerConfig(name="adamw", weight_decay=0.1)
    resting = Phases(((), ("body/*",), ()), (2, 5))
    moves = moves_of_the_body(config, optax.linear_schedule(1e-2, 0.0, 8), resting, range(8))
    assert not moves[2:5].any()
    rates = {step: 1e-2 * (8 - step) / 8 for step in range(8)}
    own = [rates[step] for step in (0, 1, 5, 6, 7)]
    alone = moves_of_the_body(config, lambda count: np.array(own)[count], Phases(), (0, 1, 5, 6, 7))
    np.testing.assert_allclose(moves[[0, 1, 5, 6, 7]], alone, rtol=1e-5)


def test_what_never_trains_has_no_part_in_the_optimizer():
    optimizer = make_optimizer(OptimizerConfig(name="adam"), 0.1, (), Phases((("body/*",),)))
    moments = [leaf for leaf in jax.tree.leaves(optimizer.init(PARAMS)) if leaf.ndim]
    assert len(moments) == 2  # of the head


def test_layers_nearer_to_the_images_move_less():
    params = {name: {"kernel": np.ones(3, np.float32)} for name in ("head", "stage1", "stem")}
    gradients = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    names = ("stem", "stage1", "head")
    found, plain = (
        make_optimizer(OptimizerConfig(name="adamw", weight_decay=0.1, layer_decay=decay), 0.01, names)
        for decay in (0.5, 1.0)
    )
    found, plain = (each.update(gradients, each.init(params), params)[0] for each in (found, plain))
    for name, factor in zip(names, (0.25, 0.5, 1.0), strict=True):
        np.testing.assert_allclose(found[name]["kernel"], factor * plain[name]["kernel"], rtol=1e-6)


def test_layer_decay_is_part_of_a_run():
    config = Config.model_validate({"optimizer": {"layer_decay": 0.5, "name": "sgd"}, "data": {"batch_size": 4}})
    plain = Config.model_validate({"optimizer": {"name": "sgd"}, "data": {"batch_size": 4}})
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 256, (4, 32, 32, 1), np.uint8),
        "label": np.array([0, 1, 2, 0], np.int32),
        "mask": np.ones(4, np.float32),
        "epoch": np.zeros(4, np.int32),
        "index": np.arange(4, dtype=np.int32),
    }
    moves = []
    for each in (config, plain):
        task = make_task(each, DataFacts(tuple("abc"), (32, 32, 1), 1000, 100))
        before = task.init_state()
        after, _ = jax.jit(task.train_steps[0])(before, batch)
        moves.append(jax.tree.map(lambda new, old: np.asarray(new) - old, after.params, before.params))
    for name, distance in (("output", 0), ("f6", 1), ("c5", 2), ("c3", 3), ("c1", 4)):
        slow, fast = (each[name]["bias"] for each in moves)
        assert np.any(fast != 0)
        np.testing.assert_allclose(slow, 0.5**distance * fast, rtol=1e-4, atol=1e-7)


def test_layers_are_in_the_order_of_the_network():
    assert layer_names(create_model("resnet18"), (64, 64, 3)) == [
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "stage4",
        "head",
    ]
    assert layer_names(create_model("lenet5_modern"), (32, 32, 1)) == ["c1", "c3", "c5", "f6", "output"]


@pytest.mark.parametrize("name", {get_variant(name).network: name for name in list_models()}.values())
def test_every_parameter_is_of_a_layer(name):
    network = create_model(name)
    shape = get_variant(name).input_shape
    assert sorted(layer_names(network, shape)) == sorted(shapes_of(network, shape)["params"])
