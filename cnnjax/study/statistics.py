"""Means with intervals, weighted sums of arms, corrected p-values, power, Pareto fronts, power laws. Imports no JAX.

Few runs a mean, so Student's t throughout. The bootstrap interval is the studentised one (Efron 1979; Hall 1988): the
plain percentile interval of five values would hold the mean in about 84 of 100 cases where it says 95. Below five
values there are too few different resamples for either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, stats

_RESAMPLES = 9999


@dataclass(frozen=True)
class Summary:
    """What several runs of one arm say of its mean."""

    count: int
    mean: float
    deviation: float | None
    """Of the sample, with count - 1; None of a single value."""
    interval: tuple[float, float] | None
    """Student's t interval of the mean."""
    bootstrap: tuple[float, float] | None
    """Studentised bootstrap interval of the mean; None of fewer than five values."""


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of arms' means, such as a difference."""

    count: int
    """Pairs, or the runs of the smallest arm."""
    value: float
    error: float
    """Standard error of the value."""
    freedom: float
    """Degrees of freedom of the error."""
    effect: float | None = None
    """Of a difference, in standard deviations, with Hedges' correction; see `contrast`."""

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student's t interval."""
        half = float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.value - half, self.value + half

    def p_value(self, threshold: float = 0.0) -> float:
        """Of a two-sided t test against a threshold."""
        distance = abs(self.value - threshold)
        if self.error == 0:  # the same difference with every seed
            return 1.0 if distance == 0 else 0.0
        return float(2 * stats.t.sf(distance / self.error, self.freedom))


def summarize_runs(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean, deviation and intervals of an arm's runs."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Summary(count, mean, None, None, None)
    estimate = contrast({"": dict(enumerate(values))}, {"": 1.0}, "paired")
    return Summary(
        count,
        mean,
        float(np.std(values, ddof=1)),
        estimate.interval(confidence),
        bootstrap_interval(values, confidence) if count >= 5 else None,
    )


def contrast(
    arms: Mapping[str, Mapping[int, float]], weights: Mapping[str, float], design: Literal["paired", "independent"]
) -> Estimate:
    """A weighted sum of arms' means with its error.

    Args:
        arms: for each arm its values by seed.
        weights: of the arms that count.
        design: "paired" takes the sum of each seed by itself and so leaves out what a seed does to all arms alike: for
            weights 1 and -1 the paired t test. "independent" adds the arms' variances: Welch's test.

    Returns:
        The estimate; its `effect` is the mean difference divided by the deviation of the differences (paired) or by the
        pooled deviation of both arms (independent), where the weights are 1 and -1.

    Raises:
        ValueError: an arm has fewer than two values, or a paired arm lacks a seed that another has.
    """
    values = {name: arms[name] for name in weights}
    if any(len(each) < 2 for each in values.values()):
        raise ValueError("expected two values or more in each arm")
    is_difference = sorted(weights.values()) == [-1, 1]
    if design == "paired":
        seeds = [set(each) for each in values.values()]
        if any(each != seeds[0] for each in seeds):
            raise ValueError("expected the same seeds in all arms")
        sums = np.array([sum(weights[name] * values[name][seed] for name in values) for seed in sorted(seeds[0])])
        count, deviation = len(sums), float(sums.std(ddof=1))
        effect = _effect(float(sums.mean()), deviation, count - 1) if is_difference else None
        return Estimate(count, float(sums.mean()), deviation / count**0.5, count - 1, effect)
    samples = {name: np.array(list(each.values())) for name, each in values.items()}
    value = float(sum(weights[name] * sample.mean() for name, sample in samples.items()))
    parts = {name: weights[name] ** 2 * sample.var(ddof=1) / len(sample) for name, sample in samples.items()}
    variance = float(sum(parts.values()))
    # Welch and Satterthwaite's degrees of freedom.
    rest = sum(part**2 / (len(samples[name]) - 1) for name, part in parts.items())
    freedom = float(variance**2 / rest) if rest else float(sum(len(each) - 1 for each in samples.values()))
    effect = None
    if is_difference:
        within = sum(len(each) - 1 for each in samples.values())
        pooled = sum((len(each) - 1) * each.var(ddof=1) for each in samples.values()) / within
        effect = _effect(value, float(pooled) ** 0.5, within)
    return Estimate(min(map(len, samples.values())), value, variance**0.5, freedom, effect)


def _effect(difference: float, deviation: float, freedom: int) -> float | None:
    return difference / deviation * (1 - 3 / (4 * freedom - 1)) if deviation > 0 else None


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Studentised bootstrap interval of the mean: 9,999 resamples, the same ones each time.

    Resamples of one value repeated have no deviation and are left out; where nothing is left, the interval is the mean.
    """
    sample = np.asarray(values, float)
    count, mean = len(sample), sample.mean()
    drawn = np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
    resampled = sample[drawn]
    errors = resampled.std(axis=1, ddof=1) / count**0.5
    kept = errors > 1e-9 * (abs(mean) + np.ptp(sample))
    if not kept.any():
        return float(mean), float(mean)
    ratios = (resampled.mean(axis=1)[kept] - mean) / errors[kept]
    low, high = np.quantile(ratios, [(1 + confidence) / 2, (1 - confidence) / 2])
    error = sample.std(ddof=1) / count**0.5
    return float(mean - low * error), float(mean - high * error)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction: p-values to hold against the level as if there had been one test."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable(error: float, freedom: float, confidence: float = 0.95, power: float = 0.8) -> float:
    """The true difference that a t test with this standard error would find in 80 of 100 studies."""
    critical = float(stats.t.ppf((1 + confidence) / 2, freedom))
    # The noncentral t distribution as a mean over the error's own: scipy's is undefined for few degrees of freedom.
    quantiles = (np.arange(2000) + 0.5) / 2000
    bounds = critical * np.sqrt(stats.chi2.ppf(quantiles, freedom) / freedom)

    def missing(shift: float) -> float:
        found = stats.norm.sf(bounds - shift) + stats.norm.cdf(-bounds - shift)
        return float(found.mean()) - power

    enough = critical
    while missing(enough) < 0:
        enough *= 2
    return error * float(optimize.brentq(missing, 0.0, enough))


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of points (cost, error) that no other one beats in one without losing in the other; cheapest first."""
    front: list[str] = []
    best = float("inf")
    for name, (_, error) in sorted(points.items(), key=lambda item: item[1]):
        if error < best:
            front.append(name)
            best = error
    return front


@dataclass(frozen=True)
class PowerFit:
    """metric = factor * cost ** exponent, by least squares of the logarithms."""

    factor: float
    exponent: Estimate
    explained: float
    """R squared."""


def fit_power_law(costs: Sequence[float], metrics: Sequence[float]) -> PowerFit:
    """Fits runs of networks of several costs.

    Raises:
        ValueError: fewer than three different costs, or a number that is not above 0.
    """
    if len(set(costs)) < 3 or min(*costs, *metrics) <= 0:
        raise ValueError("a power law needs three different costs or more, and numbers above 0")
    fit = stats.linregress(np.log(costs), np.log(metrics))
    exponent = Estimate(len(costs), float(fit.slope), float(fit.stderr), len(costs) - 2)
    return PowerFit(float(np.exp(fit.intercept)), exponent, float(fit.rvalue**2))
