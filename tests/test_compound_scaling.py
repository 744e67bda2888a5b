"""Compound scaling as the paper has it, and the largest network within a budget."""

import math

import pytest

from cnnjax.analysis.scaled import cost_of, stages_of
from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant
from cnnjax.scaling import (
    STRATEGIES,
    Coefficients,
    Factors,
    base_of,
    grid,
    largest_phi,
    released,
    released_phis,
    scale,
)

# Width, depth, resolution, channels of the stem, the stages and the head, repeats of the stages, parameters.
RELEASE = (
    (1.0, 1.0, 224, (32, 16, 24, 40, 80, 112, 192, 320, 1280), (1, 2, 2, 3, 3, 4, 1), 5_288_548),
    (1.0, 1.1, 240, (32, 16, 24, 40, 80, 112, 192, 320, 1280), (2, 3, 3, 4, 4, 5, 2), 7_794_184),
    (1.1, 1.2, 260, (32, 16, 24, 48, 88, 120, 208, 352, 1408), (2, 3, 3, 4, 4, 5, 2), 9_109_994),
    (1.2, 1.4, 300, (40, 24, 32, 48, 96, 136, 232, 384, 1536), (2, 3, 3, 5, 5, 6, 2), 12_233_232),
    (1.4, 1.8, 380, (48, 24, 32, 56, 112, 160, 272, 448, 1792), (2, 4, 4, 6, 6, 8, 2), 19_341_616),
    (1.6, 2.2, 456, (48, 24, 40, 64, 128, 176, 304, 512, 2048), (3, 5, 5, 7, 7, 9, 3), 30_389_784),
    (1.8, 2.6, 528, (56, 32, 40, 72, 144, 200, 344, 576, 2304), (3, 6, 6, 8, 8, 11, 3), 43_040_704),
    (2.0, 3.1, 600, (64, 32, 48, 80, 160, 224, 384, 640, 2560), (4, 7, 7, 10, 10, 13, 4), 66_347_960),
)


def test_the_published_coefficients_nearly_double_the_work():
    assert Coefficients().growth == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    assert abs(Coefficients().growth - 2) < 0.1


@pytest.mark.parametrize("phi", [-1.5, -1, 0, 0.3, 1, 4])
def test_each_strategy_promises_the_same_work(phi):
    coefficients = Coefficients()
    compound = coefficients.at(phi)
    assert (compound.depth, compound.width, compound.resolution) == (1.2**phi, 1.1**phi, 1.15**phi)
    for strategy in STRATEGIES:
        factors = coefficients.at(phi, strategy)
        assert factors.macs == pytest.approx(coefficients.growth**phi)
        if strategy != "compound" and phi:
            changed = {name for name in ("depth", "width", "resolution") if getattr(factors, name) != 1}
            assert changed == {strategy}


def test_a_network_is_scaled_by_the_formula():
    scaled = scale("efficientnet", Coefficients().at(1))
    assert (scaled.name, scaled.input_shape) == ("efficientnet_b0", (258, 258, 3))  # 224 * 1.15 is 257.6
    assert scaled.args == {"depth": 1.2, "width": 1.1}
    network = create_model(scaled.name, **scaled.args)
    # 16 * 1.1 is nearest to 16, 24 * 1.1 to 24; of 1, 2, 2, 3, 3, 4, 1 blocks parts of one more are one more.
    stages = {stage.name: (stage.channels, stage.repeats) for stage in stages_of(network, scaled.input_shape)}
    assert [stages[f"stage{number}"] for number in (1, 2, 3)] == [(16, 2), (24, 3), (48, 3)]


def test_a_variants_own_width_and_depth_are_multiplied():
    scaled = scale("efficientnet_b4", Factors(1.5, 2.0, 0.5), multiple=32)
    assert scaled.args == {"depth": pytest.approx(1.8 * 1.5), "width": pytest.approx(1.4 * 2)}
    assert scaled.input_shape == (192, 192, 3)  # 190 pixels are nearest to 192
    again = scale("resnet50", Factors(width=2.0), fields={"width": 0.25, "stem": "small"}, image_size=32)
    assert (again.args, again.input_shape) == ({"width": 0.5, "stem": "small"}, (32, 32, 3))


def test_phi_0_is_the_network_itself():
    for name in ("lenet5", "vgg16", "efficientnet_b0"):
        scaled = scale(name, Coefficients().at(0))
        assert (scaled.args, scaled.input_shape) == ({}, get_variant(name).input_shape)


@pytest.mark.parametrize("phi", range(8))
def test_the_release_is_reproduced(phi):
    width, depth, size, channels, repeats, params = RELEASE[phi]
    scaled = released(phi)
    assert (scaled.factors.width, scaled.factors.depth) == (width, depth)
    assert scaled.input_shape == (size, size, 3)
    network = create_model(scaled.name, **scaled.args)
    stages = stages_of(network, scaled.input_shape)
    assert tuple(stage.channels for stage in stages) == channels
    assert tuple(stage.repeats for stage in stages[1:-1]) == repeats
    assert cost_of(scaled).params == params


def test_the_release_ends():
    assert released_phis() == list(range(8))
    assert released_phis("lite") == list(range(5))
    for phi in (8, -1, 1.5):
        with pytest.raises(ConfigError, match="the release has 0 to 7 in whole numbers"):
            released(phi)


def test_the_grid_holds_the_published_coefficients():
    found = grid()
    assert Coefficients(1.2, 1.1, 1.15) in found
    assert all(abs(each.growth - 2) <= 0.1 + 1e-6 for each in found)
    assert len(found) == len(set(found)) > 20
    assert len(grid(0.1)) < len(found) < len(grid(tolerance=0.2))


def test_a_family_stands_for_its_first_network():
    assert base_of("efficientnet") == "efficientnet_b0"
    with pytest.raises(ConfigError, match="did you mean 'efficientnet_b0'"):
        base_of("efficientnet_b00")


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.9), ("beta", math.inf), ("gamma", math.nan), ("beta", 1e300)])
def test_coefficients_make_no_network_smaller(name, value):
    with pytest.raises(ConfigError, match=f"{name}: expected a number from 1 to 10"):
        Coefficients(**{name: value})


@pytest.mark.parametrize("phi", [math.nan, -math.inf, 1e4])
def test_a_phi_is_a_number_within_reach(phi):
    with pytest.raises(ConfigError, match="phi: expected a number from -30 to 30"):
        Coefficients().at(phi)


@pytest.mark.parametrize(("budget", "step"), [(1.0, 0.01), (0.3, 0.01), (77.7, 0.05), (1e-3, 0.5)])
def test_the_largest_phi_of_a_known_cost(budget, step):
    fit = largest_phi(lambda phi: 2**phi, lambda cost: cost <= budget, step)
    assert fit.cost <= budget < fit.next_cost
    assert fit.phi == pytest.approx(math.floor(math.log2(budget) / step + 1e-9) * step)
    assert fit.next_phi == pytest.approx(fit.phi + step)


def test_a_budget_that_everything_or_nothing_is_within():
    with pytest.raises(ConfigError, match="even phi = 30 is within it"):
        largest_phi(lambda phi: 2**phi, lambda cost: True)
    with pytest.raises(ConfigError, match="even phi = -30 is above it"):
        largest_phi(lambda phi: 2**phi, lambda cost: False)
    with pytest.raises(ConfigError, match="the smallest network there is, at phi = -2, is above it"):
        largest_phi(lambda phi: 2**phi if phi >= -2 else None, lambda cost: cost <= 0.1)
