"""Every optimizer of optax by name, weight decay, clipping, and the schedules against their formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.config import Duration, OptimizerConfig
from cnnjax.config_schedule import ConstantSchedule, CosineSchedule, PolynomialSchedule, StepSchedule
from cnnjax.errors import ConfigError
from cnnjax.train.optimizer import check_optimizer, describe_scaling, list_optimizers, make_optimizer, make_schedule

PARAMS = {
    "dense": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.3, -0.4])},
    "norm": {"scale": jnp.array([1.0, 1.5]), "bias": jnp.array([0.1, 0.2])},
}
GRADIENTS = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), PARAMS)
CONSTANT_RATE = ("rprop", "sm3")


def loss(params):
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))


def updates(optimizer, gradients=GRADIENTS, params=PARAMS, steps=3):
    """The updates of each of several steps with the same gradients."""
    state, found = optimizer.init(params), []
    for _ in range(steps):
        update, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, update)
        found.append(update)
    return found


def assert_equal(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), one, other)


# Every name


def test_the_usual_optimizers_are_there():
    usual = {"sgd", "adam", "adamw", "rmsprop", "lars", "lamb", "lion", "adafactor", "radam", "adagrad", "adadelta"}
    assert usual <= set(list_optimizers())
    assert not {"lbfgs", "optimistic_adam", "scale_by_learning_rate"} & set(list_optimizers())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("name", list_optimizers())
def test_every_optimizer_moves_every_parameter(name, scheduled):
    rate = optax.cosine_decay_schedule(0.01, 10) if scheduled else 0.01
    config = OptimizerConfig(name=name, weight_decay=1e-2)
    if scheduled and name in CONSTANT_RATE:
        with pytest.raises(ConfigError, match=f"optax.{name} takes a constant learning rate only; set schedule.kind"):
            make_optimizer(config, rate)
        return
    optimizer = make_optimizer(config, rate)

    @jax.jit
    def step(params, state):
        update, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, update), state

    params, state = PARAMS, jax.jit(optimizer.init)(PARAMS)
    before = jax.tree.map(jax.typeof, state)
    for _ in range(3):  # rprop's first update is zero
        params, state = step(params, state)
    for old, new in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(params), strict=True):
        assert np.isfinite(new).all()
        assert (old != new).all()
    assert loss(params) < loss(PARAMS)
    # A state of another type would make the training step compile twice.
    assert jax.tree.map(jax.typeof, state) == before
    assert step._cache_size() == 1


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True, "accumulator_dtype": "bfloat16"}),
        ("adamw", {"b1": 0.8, "b2": 0.9, "eps": 1e-6, "mu_dtype": "bfloat16", "nesterov": False}),
        ("rmsprop", {"decay": 0.9, "momentum": None, "centered": True}),
    ],
)
def test_arguments_reach_optax(name, args):
    given = {key: jnp.dtype(value) if "dtype" in key else value for key, value in args.items()}
    extra = {"weight_decay": 0.0} if name == "adamw" else {}
    expected = updates(getattr(optax, name)(0.1, **given, **extra))
    assert_equal(updates(make_optimizer(OptimizerConfig(name=name, args=args), 0.1)), expected)
    plain = updates(make_optimizer(OptimizerConfig(name=name), 0.1))
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(expected), strict=True))


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("adamww", {}, "optimizer.name: unknown optax optimizer 'adamww'; did you mean 'adamw'?"),
        ("chain", {}, "optimizer.name: unknown optax optimizer 'chain'"),
        ("scale_by_adam", {}, "optimizer.name: unknown optax optimizer"),
        ("__name__", {}, "optimizer.name: unknown optax optimizer"),
        ("lbfgs", {}, "optimizer.name: 'lbfgs' cannot be used here, since it needs a line search"),
        ("optimistic_adam", {}, "since optax has replaced it by optimistic_adam_v2"),
        ("sgd", {"momentun": 0.9}, "optimizer.args.momentun: optax.sgd has no such argument; did you mean 'momentum'?"),
        ("sgd", {"learning_rate": 0.9}, "optimizer.args.learning_rate: optax.sgd has no such argument"),
        ("adamw", {"weight_decay": 0.1}, "optimizer.args.weight_decay: set optimizer.weight_decay instead"),
        ("adafactor", {"weight_decay_rate": 1}, "weight_decay_rate: set optimizer.weight_decay instead"),
        ("adamw", {"mask": True}, "optimizer.args.mask: optax.adamw has no such argument"),
        ("sgd", {"momentum": "big"}, "optimizer.args.momentum: expected a number or null, got 'big'"),
        ("sgd", {"momentum": True}, "optimizer.args.momentum: expected a number or null, got True"),
        ("sgd", {"nesterov": 1}, "optimizer.args.nesterov: expected true or false, got 1"),
        ("sgd", {"accumulator_dtype": "float"}, "expected float32, bfloat16 or null, got 'float'"),
        ("adam", {"b1": None}, "optimizer.args.b1: expected a number, got None"),
        ("adam", {"b1": [0.9]}, "optimizer.args.b1: expected a number, got [0.9]"),
    ],
)
def test_faulty_names_and_arguments_are_refused(name, args, sentence):
    for refuse in (check_optimizer, lambda config: make_optimizer(config, 0.1)):
        with pytest.raises(ConfigError) as caught:
            refuse(OptimizerConfig(name=name, args=args))
        assert sentence in str(caught.value)


# Weight decay and clipping

KERNELS = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False, "bias": False}}


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(
    ("name", "decay", "mask"),
    [
        ("adamw", "weight_decay", "mask"),
        ("lion", "weight_decay", "mask"),
        ("adan", "weight_decay", "mask"),
        ("adafactor", "weight_decay_rate", "weight_decay_mask"),
    ],
)
def test_an_optimizer_with_its_own_decay_uses_that(name, decay, mask, everywhere):
    config = OptimizerConfig(name=name, weight_decay=0.1, decay_norm_and_bias=everywhere)
    own = getattr(optax, name)(0.01, **{decay: 0.1, mask: None if everywhere else KERNELS})
    assert_equal(updates(make_optimizer(config, 0.01)), updates(own))


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam", "novograd"])
def test_the_others_get_l2_regularisation(name, everywhere):
    config = OptimizerConfig(name=name, weight_decay=0.1, decay_norm_and_bias=everywhere)
    found = updates(make_optimizer(config, 0.01), steps=1)[0]
    with_l2 = jax.tree.map(lambda g, p, is_kernel: g + 0.1 * p * (everywhere or is_kernel), GRADIENTS, PARAMS, KERNELS)
    without = optax.novograd(0.01, weight_decay=0.0) if name == "novograd" else getattr(optax, name)(0.01)
    assert_equal(found, updates(without, with_l2, steps=1)[0])


def test_sgd_with_decay_by_hand():
    found = updates(make_optimizer(OptimizerConfig(weight_decay=0.1), 0.5), steps=1)[0]
    kernel, gradient = np.asarray(PARAMS["dense"]["kernel"]), np.asarray(GRADIENTS["dense"]["kernel"])
    np.testing.assert_allclose(found["dense"]["kernel"], -0.5 * (gradient + 0.1 * kernel), rtol=1e-6)
    np.testing.assert_allclose(found["dense"]["bias"], -0.5 * GRADIENTS["dense"]["bias"], rtol=1e-6)
    np.testing.assert_allclose(found["norm"]["scale"], -0.5 * GRADIENTS["norm"]["scale"], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adadelta", "novograd", "lars"])
def test_no_decay_unless_it_is_asked_for(name):
    # optax's adamw decays by default.
    still = jax.tree.map(jnp.zeros_like, GRADIENTS)
    for update in jax.tree.leaves(updates(make_optimizer(OptimizerConfig(name=name), 0.1), still)):
        np.testing.assert_array_equal(update, 0)


@pytest.mark.parametrize("factor", [1.0, 1e-3])
def test_clipping_by_norm_shortens_only_what_is_longer(factor):
    gradients = jax.tree.map(lambda leaf: factor * leaf, GRADIENTS)
    norm = math.sqrt(sum(float((np.asarray(leaf) ** 2).sum()) for leaf in jax.tree.leaves(gradients)))
    found = updates(make_optimizer(OptimizerConfig(clip_norm=0.5), 1.0), gradients, steps=1)[0]
    assert_equal(found, jax.tree.map(lambda leaf: -leaf * min(1.0, 0.5 / norm), gradients))


def test_clipping_by_value():
    found = updates(make_optimizer(OptimizerConfig(clip_value=0.25), 1.0), steps=1)[0]
    assert_equal(found, jax.tree.map(lambda leaf: -jnp.clip(leaf, -0.25, 0.25), GRADIENTS))


def test_decay_comes_after_clipping():
    config = OptimizerConfig(clip_value=0.25, weight_decay=0.1)
    found = updates(make_optimizer(config, 1.0), steps=1)[0]["dense"]["kernel"]
    clipped = jnp.clip(GRADIENTS["dense"]["kernel"], -0.25, 0.25)
    np.testing.assert_allclose(found, -(clipped + 0.1 * PARAMS["dense"]["kernel"]), rtol=1e-6)


# Schedules

PEAK, TOTAL, PER_EPOCH, BATCH = 0.4, 100, 10, 32


def rates(config, steps):
    schedule = make_schedule(config, TOTAL, PER_EPOCH, BATCH)
    return [float(schedule(step)) if callable(schedule) else schedule for step in steps]


def cosine(progress, end=0.0):
    return PEAK * (end + (1 - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2)


WARMUP = Duration(epochs=2)  # 20 steps


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ConstantSchedule(kind="constant", learning_rate=PEAK), {0: PEAK, 99: PEAK}),
        (
            ConstantSchedule(kind="constant", learning_rate=PEAK, warmup=WARMUP),
            {0: PEAK / 20, 1: PEAK / 10, 9: PEAK / 2, 19: PEAK, 20: PEAK, 99: PEAK},
        ),
        (ConstantSchedule(kind="constant", learning_rate=PEAK, warmup=Duration(steps=1)), {0: PEAK, 1: PEAK}),
        (
            CosineSchedule(learning_rate=PEAK),
            {0: PEAK, 25: cosine(0.25), 50: PEAK / 2, 99: cosine(0.99), 100: 0.0, 200: 0.0},
        ),
        (CosineSchedule(learning_rate=PEAK, end_factor=0.1), {0: PEAK, 50: cosine(0.5, 0.1), 100: PEAK / 10}),
        (
            CosineSchedule(learning_rate=PEAK, warmup=WARMUP),
            {0: PEAK / 20, 18: PEAK * 19 / 20, 19: PEAK, 20: PEAK, 60: PEAK / 2, 99: cosine(79 / 80), 100: 0.0},
        ),
        (
            CosineSchedule(learning_rate=PEAK, warmup=Duration(examples=320)),
            {0: PEAK / 10, 9: PEAK, 10: PEAK, 55: PEAK / 2},
        ),
        (
            StepSchedule(
                kind="step",
                learning_rate=PEAK,
                boundaries=(Duration(epochs=3), Duration(steps=60), Duration(examples=2880)),
                factor=0.5,
            ),
            {0: PEAK, 29: PEAK, 30: PEAK / 2, 59: PEAK / 2, 60: PEAK / 4, 89: PEAK / 4, 90: PEAK / 8, 99: PEAK / 8},
        ),
        (
            StepSchedule(kind="step", learning_rate=PEAK, boundaries=(Duration(epochs=3),), warmup=WARMUP),
            {0: PEAK / 20, 19: PEAK, 20: PEAK, 29: PEAK, 30: PEAK / 10, 99: PEAK / 10},
        ),
        (PolynomialSchedule(kind="polynomial", learning_rate=PEAK), {0: PEAK, 25: PEAK * 0.75, 100: 0.0, 120: 0.0}),
        (
            PolynomialSchedule(kind="polynomial", learning_rate=PEAK, power=2.0, end_factor=0.1, warmup=WARMUP),
            {19: PEAK, 20: PEAK, 60: PEAK * (0.1 + 0.9 * 0.25), 100: PEAK / 10},
        ),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_schedules_follow_their_formulas(config, expected):
    # Near the end 1 + cos loses digits: exact to float32's rounding of the peak.
    rounding = PEAK * np.finfo(np.float32).eps
    np.testing.assert_allclose(rates(config, expected), list(expected.values()), rtol=1e-6, atol=rounding)


@pytest.mark.parametrize("warmup", [Duration(steps=100), Duration(epochs=11)])
def test_a_warm_up_that_leaves_nothing_is_refused(warmup):
    with pytest.raises(ConfigError, match=r"schedule\.warmup: 1\d0 steps leave none of the run's 100"):
        rates(CosineSchedule(warmup=warmup), [])


@pytest.mark.parametrize(
    ("boundaries", "warmup"),
    [
        ((Duration(epochs=3), Duration(steps=30)), None),
        ((Duration(steps=50), Duration(steps=30)), None),
        ((Duration(steps=20), Duration(steps=30)), WARMUP),
    ],
)
def test_boundaries_out_of_order_are_refused(boundaries, warmup):
    with pytest.raises(ConfigError, match=r"schedule\.boundaries: expected each to be later"):
        rates(StepSchedule(kind="step", boundaries=boundaries, warmup=warmup), [])


def test_a_constant_rate_is_a_plain_number():
    assert make_schedule(ConstantSchedule(kind="constant", learning_rate=PEAK), TOTAL, PER_EPOCH, BATCH) == PEAK


# Batches larger than the one that a rate is for


def rates_for(batch, steps, **fields):
    config = ConstantSchedule(kind="constant", learning_rate=0.1, reference_batch=256, **fields)
    schedule = make_schedule(config, TOTAL, PER_EPOCH, batch)
    return [float(schedule(step)) if callable(schedule) else schedule for step in steps]


@pytest.mark.parametrize(
    ("scaling", "batch", "peak"),
    [
        # Goyal et al. 2017: 0.1 * k / 256 for a batch of k; their largest is 8192, at 3.2.
        ("linear", 256, 0.1),
        ("linear", 8192, 3.2),
        ("linear", 64, 0.025),
        ("sqrt", 256, 0.1),
        ("sqrt", 4096, 0.4),
        ("sqrt", 64, 0.05),
    ],
)
def test_the_peak_follows_the_batch(scaling, batch, peak):
    assert rates_for(batch, [0, 99], batch_scaling=scaling) == pytest.approx([peak, peak])


def test_without_a_reference_the_batch_changes_nothing():
    assert make_schedule(ConstantSchedule(kind="constant", learning_rate=0.1), TOTAL, PER_EPOCH, 8192) == 0.1


def test_a_gradual_warm_up_begins_at_the_rate_of_the_reference():
    """Goyal et al. 2017: from 0.1 to 3.2 by equal steps; here over four, so by 3.1 / 4."""
    found = rates_for(8192, range(6), warmup=Duration(steps=4), warmup_from="reference")
    rounding = 3.2 * np.finfo(np.float32).eps
    np.testing.assert_allclose(found, [0.1, 0.875, 1.65, 2.425, 3.2, 3.2], rtol=1e-6, atol=rounding)
    from_zero = rates_for(8192, range(6), warmup=Duration(steps=4))
    assert from_zero == pytest.approx([0.8, 1.6, 2.4, 3.2, 3.2, 3.2])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (CosineSchedule(learning_rate=0.1, reference_batch=8, end_factor=0.5), {0: 0.4, 100: 0.2}),
        (PolynomialSchedule(kind="polynomial", learning_rate=0.1, reference_batch=8, power=2.0), {0: 0.4, 50: 0.1}),
        (
            StepSchedule(kind="step", learning_rate=0.1, reference_batch=8, boundaries=(Duration(epochs=3),)),
            {29: 0.4, 30: 0.04},
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_every_schedule_is_scaled_whole(schedule, expected):
    assert rates(schedule, expected) == pytest.approx(list(expected.values()))


def test_a_warm_up_that_would_fall_is_refused():
    with pytest.raises(
        ConfigError, match=r"data\.batch_size 128 below schedule\.reference_batch 256 the rate would fall"
    ):
        rates_for(128, [], warmup=Duration(steps=4), warmup_from="reference")


def test_the_scaling_is_told_in_a_sentence():
    linear = CosineSchedule(learning_rate=0.1, reference_batch=256)
    assert describe_scaling(linear, 8192) == (
        "learning rate 3.2 for a batch of 8192: 0.1 for one of 256, scaled with it"
    )
    root = linear.model_copy(update={"batch_scaling": "sqrt"})
    assert describe_scaling(root, 4096) == (
        "learning rate 0.4 for a batch of 4096: 0.1 for one of 256, scaled with its square root"
    )
    assert describe_scaling(CosineSchedule(), 8192) is None
