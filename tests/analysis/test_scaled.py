"""Scaled networks, counted; and the largest one within a budget."""

import functools
import random

import pytest

from cnnjax.analysis.count import count
from cnnjax.analysis.scaled import QUANTITIES, cost_of, describe, largest_within, stages_of, training_memory
from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.scaling import Coefficients, Factors, scale

# A network of each of five families, with fields that make counting quick.
FAMILIES = (
    ("lenet5_modern", {}, 32),
    ("simple_cnn", {}, 28),
    ("cifar_resnet20", {}, 32),
    ("nin_cifar10", {"width": 0.25}, 32),
    ("vgg11", {"stem": "small", "width": 0.125, "dense_width": 256}, 32),
)


@functools.cache
def counted(family, strategy, phi):
    """The cost, without what a search has remembered."""
    return cost_of(of(*FAMILIES[family], strategy)(phi))


def of(name, fields, size, strategy="compound"):
    return lambda phi: scale(name, Coefficients().at(phi, strategy), fields=fields, image_size=size)


@pytest.mark.parametrize("seed", range(50))
def test_a_fit_fits_and_the_next_step_does_not(seed):
    draw = random.Random(seed)
    family, strategy = seed % len(FAMILIES), draw.choice(["compound", "width", "compound"])
    quantity = draw.choice(["params", "macs"])
    start = getattr(counted(family, strategy, 0.0), quantity)
    budget = start * 2 ** draw.uniform(-0.5, 1.5)
    fit = largest_within({quantity: budget}, of(*FAMILIES[family], strategy), step=0.05)
    costs = [getattr(counted(family, strategy, phi), quantity) for phi in (fit.phi, fit.next_phi)]
    assert costs[0] <= budget < costs[1]
    assert costs == [getattr(each, quantity) for each in (fit.cost, fit.next_cost)]
    assert fit.next_phi == pytest.approx(fit.phi + 0.05)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_every_quantity_can_be_limited(quantity):
    scaled_at = of(*FAMILIES[0])
    whole = cost_of(scaled_at(0), activations=True, batch=64)
    budget = getattr(whole, quantity)
    fit = largest_within({quantity: budget}, scaled_at, batch=64, step=0.25)
    assert getattr(fit.cost, quantity) <= budget < getattr(fit.next_cost, quantity)
    assert fit.phi >= 0


def test_of_two_limits_the_narrower_one_counts():
    scaled_at = of(*FAMILIES[2])
    macs, both = ({"macs": 30e6}, {"macs": 30e6, "params": 200_000})
    assert largest_within(both, scaled_at, step=0.1).phi < largest_within(macs, scaled_at, step=0.1).phi


def test_costs_are_those_of_count_and_summary():
    scaled = scale("cifar_resnet20", Factors(2.0, 1.5, 1.25))
    network = create_model("cifar_resnet20", depth=2.0, width=1.5)
    counted, summary = count(network, (40, 40, 3)), summarize(network, (40, 40, 3))
    cost = cost_of(scaled, activations=True, batch=4)
    assert (cost.params, cost.macs) == (counted.params, counted.macs)
    assert cost.activation_bytes == summary.activation_bytes
    assert cost.training_bytes == training_memory(
        summary.params, summary.batch_stats, summary.activation_bytes, 4
    ) == 4 * (3 * summary.params + summary.batch_stats) + 4 * summary.activation_bytes  # fmt: skip
    assert cost_of(scaled).activation_bytes is None


def test_stages_have_the_channels_and_blocks_of_the_paper():
    stages = stages_of(create_model("resnet50", scan=True), (224, 224, 3))
    assert [(stage.channels, stage.repeats) for stage in stages[1:]] == [(256, 3), (512, 4), (1024, 6), (2048, 3)]


def test_rounding_explains_what_it_can():
    base = scale("cifar_resnet20", Factors())
    twice = scale("cifar_resnet20", Factors(depth=2.0, width=2.0, resolution=1.5))
    fractions = scale("cifar_resnet20", Factors(depth=1.1, width=1.01))
    even, odd = describe([(0.0, twice), (1.0, fractions)], base)
    # Nothing is rounded, but the stem gets no deeper. The blocks that are added cost more than the first ones, which
    # get fewer channels.
    assert even["macs_by_formula"] == 2 * 4 * 2.25
    assert even["macs_after_rounding"] == pytest.approx(2 * 4 * 2.25, rel=0.01)
    assert 18 < even["macs_ratio"] < 18.5
    # Three blocks become four, and 16 channels remain 16.
    assert odd["macs_by_formula"] == pytest.approx(1.1 * 1.01**2)
    assert odd["macs_after_rounding"] == pytest.approx(4 / 3, rel=0.01)
    assert abs(odd["macs_ratio"] / odd["macs_after_rounding"] - 1) < abs(odd["macs_ratio"] / odd["macs_by_formula"] - 1)


@pytest.mark.parametrize("phi", [-2, -1, 1, 2, 3])
def test_rounding_explains_what_efficientnet_costs_beyond_the_formula(phi):
    (row,) = describe([(phi, scale("efficientnet_b0", Coefficients().at(phi)))], scale("efficientnet_b0", Factors()))
    beyond = abs(row["macs_ratio"] / row["macs_by_formula"] - 1)
    assert abs(row["macs_ratio"] / row["macs_after_rounding"] - 1) < min(0.06, beyond / 2)


def test_a_budget_below_all_networks():
    with pytest.raises(ConfigError, match="the smallest network there is"):
        largest_within({"macs": 1000}, of("lenet5_modern", {}, 32, "resolution"), step=0.1)
    with pytest.raises(ConfigError, match="expected at least one of params, macs"):
        largest_within({}, of(*FAMILIES[0]))
