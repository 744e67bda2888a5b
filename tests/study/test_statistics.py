"""Intervals that hold what they say, tests against scipy, Holm by hand, and the power that is promised."""

import math

import numpy as np
import pytest
from scipy import stats

from cnnjax.study.statistics import (
    Estimate,
    bootstrap_interval,
    contrast,
    detectable,
    fit_power_law,
    holm,
    pareto_front,
    summarize_runs,
)

DRAWS = 2000


def coverage(interval, count, draw=lambda rng, count: rng.normal(3.0, 2.0, count), mean=3.0):
    """Of 2,000 simulated arms, the share in which the interval holds the true mean."""
    rng = np.random.default_rng(7)
    intervals = (interval(list(draw(rng, count))) for _ in range(DRAWS))
    return np.mean([low <= mean <= high for low, high in intervals])


@pytest.mark.parametrize("count", [2, 5, 20])
def test_the_t_interval_holds_the_mean_as_often_as_it_says(count):
    assert coverage(lambda values: summarize_t(values), count) == pytest.approx(0.95, abs=0.015)


def summarize_t(values):
    return contrast({"arm": dict(enumerate(values))}, {"arm": 1.0}, "paired").interval()


@pytest.mark.parametrize("count", [pytest.param(5), pytest.param(30, marks=pytest.mark.slow)])
def test_the_bootstrap_interval_holds_the_mean_as_often_as_it_says(count):
    assert coverage(bootstrap_interval, count) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("design", ["paired", "independent"])
def test_the_interval_of_a_difference_holds_it_as_often_as_it_says(design):
    def interval(values):
        arms = {"one": dict(enumerate(values[:6])), "other": dict(enumerate(values[6:]))}
        return contrast(arms, {"one": 1.0, "other": -1.0}, design).interval()

    def draw(rng, count):
        seeds = rng.normal(0, 3.0, 6) if design == "paired" else np.zeros(6)  # what a seed does to both arms alike
        return [*(seeds + rng.normal(5.0, 1.0, 6)), *(seeds + rng.normal(4.0, 2.0, 6))]

    assert coverage(interval, 12, draw, 1.0) == pytest.approx(0.95, abs=0.015)


@pytest.fixture
def arms():
    rng = np.random.default_rng(3)
    return {
        name: dict(enumerate(rng.normal(mean, deviation, 6))) for name, mean, deviation in (("a", 5, 1), ("b", 4, 2))
    }


def test_a_paired_difference_is_scipys_paired_test(arms):
    estimate = contrast(arms, {"a": 1.0, "b": -1.0}, "paired")
    scipys = stats.ttest_rel(list(arms["a"].values()), list(arms["b"].values()))
    assert estimate.p_value() == pytest.approx(scipys.pvalue, rel=1e-9)
    assert estimate.interval() == pytest.approx(tuple(scipys.confidence_interval()), rel=1e-9)
    shifted = stats.ttest_rel([value - 0.7 for value in arms["a"].values()], list(arms["b"].values()))
    assert estimate.p_value(0.7) == pytest.approx(shifted.pvalue, rel=1e-9)


def test_an_independent_difference_is_welchs_test(arms):
    del arms["b"][5]
    estimate = contrast(arms, {"a": 1.0, "b": -1.0}, "independent")
    scipys = stats.ttest_ind(list(arms["a"].values()), list(arms["b"].values()), equal_var=False)
    assert estimate.p_value() == pytest.approx(scipys.pvalue, rel=1e-9)
    assert estimate.interval() == pytest.approx(tuple(scipys.confidence_interval()), rel=1e-9)


def test_pairs_are_by_seed_and_not_by_place(arms):
    turned = {"a": arms["a"], "b": dict(reversed(arms["b"].items()))}
    weights = {"a": 1.0, "b": -1.0}
    assert contrast(turned, weights, "paired") == contrast(arms, weights, "paired")


def test_an_interaction_is_a_difference_of_differences():
    rng = np.random.default_rng(0)
    arms = {name: dict(enumerate(rng.normal(0, 1, 5))) for name in "abcd"}
    estimate = contrast(arms, {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}, "paired")
    values = {name: np.array(list(each.values())) for name, each in arms.items()}
    by_hand = stats.ttest_1samp((values["a"] - values["b"]) - (values["c"] - values["d"]), 0)
    assert estimate.p_value() == pytest.approx(by_hand.pvalue, rel=1e-9)
    assert estimate.effect is None


def test_effect_sizes_by_hand():
    arms = {"a": {0: 3.0, 1: 5.0, 2: 7.0}, "b": {0: 2.0, 1: 3.0, 2: 4.0}}
    # Pairs differ by 1, 2, 3: mean 2, deviation 1; Hedges' factor for two degrees of freedom is 1 - 3 / 7.
    assert contrast(arms, {"a": 1.0, "b": -1.0}, "paired").effect == pytest.approx(2 * 4 / 7)
    # Deviations of 2 and 1: pooled sqrt(2.5); four degrees of freedom.
    independent = contrast(arms, {"a": 1.0, "b": -1.0}, "independent")
    assert independent.effect == pytest.approx(2 / math.sqrt(2.5) * (1 - 3 / 15))


def test_a_difference_that_is_the_same_with_every_seed():
    arms = {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}}
    same = contrast(arms, {"a": 1.0, "b": -1.0}, "paired")
    assert (same.value, same.p_value(), same.p_value(1.0), same.effect) == (0.0, 1.0, 0.0, None)


@pytest.mark.parametrize(
    ("arms", "design", "message"),
    [
        ({"a": {0: 1.0}, "b": {0: 1.0}}, "paired", "two values"),
        ({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 2: 2.0}}, "paired", "same seeds"),
        ({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0}}, "independent", "two values"),
    ],
)
def test_too_few_runs_are_refused(arms, design, message):
    with pytest.raises(ValueError, match=message):
        contrast(arms, {"a": 1.0, "b": -1.0}, design)


def test_holm_on_a_worked_example():
    # 0.005 * 4 and 0.01 * 3 are below 0.05; 0.03 * 2 is not, and 0.04 * 1 must not be better than that.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_so_large_a_difference_is_found_in_80_of_100_studies():
    rng = np.random.default_rng(5)
    differences = rng.normal(detectable(1.0 / math.sqrt(5), 4), 1.0, (20_000, 5))
    found = stats.ttest_1samp(differences, 0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("freedom", [4, 9, 30])
def test_power_is_that_of_the_noncentral_t_distribution(freedom):
    shift = detectable(1.0, freedom)
    critical = stats.t.ppf(0.975, freedom)
    power = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_power_with_two_seeds():
    assert math.isfinite(detectable(1.0, 1))


def test_the_bootstrap_is_the_same_each_time_and_left_out_where_it_would_mislead():
    values = [1.0, 2.0, 4.0, 3.0, 7.0]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval([2.0] * 5) == (2.0, 2.0)
    assert summarize_runs(values).bootstrap == bootstrap_interval(values)
    assert summarize_runs(values[:4]).bootstrap is None


def test_one_run_has_no_error_bar():
    summary = summarize_runs([2.0])
    assert (summary.count, summary.mean, summary.deviation, summary.interval) == (1, 2.0, None, None)


def test_the_pareto_front():
    points = {"cheap": (1.0, 9.0), "beaten": (2.0, 9.5), "middle": (2.0, 5.0), "equal": (3.0, 5.0), "best": (4.0, 1.0)}
    assert pareto_front(points) == ["cheap", "middle", "best"]


def test_a_power_law_is_found_with_its_uncertainty():
    rng = np.random.default_rng(1)
    costs = np.repeat([1.0, 2.0, 4.0, 8.0], 5)
    fit = fit_power_law(list(costs), list(20 * costs**-0.3 * np.exp(rng.normal(0, 0.05, len(costs)))))
    low, high = fit.exponent.interval()
    assert low < -0.3 < high
    assert high - low < 0.15
    assert fit.factor == pytest.approx(20, rel=0.1)
    assert fit.explained > 0.9


def test_an_exact_power_law():
    fit = fit_power_law([1.0, 10.0, 100.0], [5.0, 0.5, 0.05])
    assert (fit.factor, fit.exponent.value) == pytest.approx((5.0, -1.0))


@pytest.mark.parametrize(("costs", "metrics"), [([1, 1, 2], [1, 2, 3]), ([1, 2, 3], [1, 0, 2])])
def test_what_no_power_law_fits(costs, metrics):
    with pytest.raises(ValueError, match="three different costs"):
        fit_power_law(costs, metrics)


def test_an_interval_of_another_confidence():
    estimate = Estimate(5, 1.0, 0.5, 4)
    assert estimate.interval(0.99) == pytest.approx((1 - 4.6041 * 0.5, 1 + 4.6041 * 0.5), rel=1e-4)
