"""`cnnjax scale`, as a user types it."""

import pytest


def test_the_published_coefficients(cnnjax):
    result = cnnjax("scale", "efficientnet", "--phi", "0", "--phi", "1", "--json").done.json
    assert result["coefficients"]["growth"] == pytest.approx(1.92027)
    base, first = result["rows"]
    assert (base["params"], base["macs"], base["macs_ratio"]) == (5_288_548, 385_814_752, 1)
    assert (first["phi"], first["depth"], first["width"], first["input"]) == (1, 1.2, 1.1, [258, 258, 3])
    assert first["macs_by_formula"] < first["macs_after_rounding"] < first["macs_ratio"]
    assert [stage["repeats"] for stage in first["stages"][1:-1]] == [2, 3, 3, 4, 4, 5, 2]


def test_the_release_and_what_the_formula_would_give(cnnjax):
    (row,) = cnnjax("scale", "efficientnet", "--mode", "release", "--phi", "1", "--json").done.json["rows"]
    assert (row["model"], row["width"], row["depth"], row["input"][0]) == ("efficientnet_b1", 1.0, 1.1, 240)
    assert (row["formula"]["width"], row["formula"]["depth"], row["formula"]["input"][0]) == (1.1, 1.2, 258)
    text = cnnjax("scale", "efficientnet", "--mode", "release", "--phi", "1").done.out
    assert "channels 32-16-24-40-80-112-192-320-1280, repeats 2-3-3-4-4-5-2" in text
    assert "by the formula: depth 1.200, width 1.100, 258x258 pixels" in text


def test_factors_of_ones_own(cnnjax):
    """Such as the paper's figures have them: one dimension, or two of them together."""
    command = ("scale", "cifar_resnet20", "--factors", "depth=2", "--factors", "depth=2,resolution=1.3")
    deeper, larger = cnnjax(*command, "--json").done.json["rows"]
    assert (deeper["phi"], deeper["args"], deeper["input"]) == (None, {"depth": 2.0}, [32, 32, 3])
    assert (larger["args"], larger["input"]) == ({"depth": 2.0}, [42, 42, 3])
    assert [stage["repeats"] for stage in larger["stages"][1:]] == [6, 6, 6]
    assert (deeper["macs_by_formula"], larger["macs_by_formula"]) == (2, pytest.approx(2 * 1.3**2))
    assert (42 / 32) ** 2 < larger["macs"] / deeper["macs"] < (11 / 8) ** 2  # the last maps are rounded up
    assert "depth 2, width 1, resolution 1.3: channels 16-16-32-64, repeats 6-6-6" in cnnjax(*command).done.out


def test_a_budget(cnnjax):
    command = ("scale", "lenet5_modern", "--budget", "macs=600e3", "--budget", "params=1e6", "--step", "0.1")
    result = cnnjax(*command, "--json").done.json
    assert result["cost"]["macs"] <= 600e3 < result["next_cost"]["macs"]
    out = cnnjax(*command).done.out
    assert "within: phi 0, lenet5_modern, 32x32 pixels" in out
    assert "above: phi 0.1, lenet5_modern depth=1.0184 width=1.0096, 32x32 pixels" in out
    assert f"macs {result['next_cost']['macs']:,}" in out


def test_the_grid(cnnjax):
    rows = cnnjax("scale", "lenet5_modern", "--grid", "--json").done.json["rows"]
    assert (1.2, 1.1, 1.15) in [(row["alpha"], row["beta"], row["gamma"]) for row in rows]
    lines = cnnjax("scale", "lenet5_modern", "--grid").done.out.splitlines()
    assert lines[0].split()[:4] == ["alpha", "beta", "gamma", "growth"]
    assert ["1.20", "1.10", "1.15"] in [line.split()[:3] for line in lines]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["efficientnt"], "unknown model 'efficientnt'"),
        (["resnet50", "--mode", "release"], "--mode release has efficientnet_b0's and efficientnet_lite0's networks"),
        (["efficientnet", "--mode", "release", "--phi", "8"], "phi: the release has 0 to 7 in whole numbers, got 8"),
        (["resnet50", "--budget", "mac=1"], "--budget: there is no quantity 'mac'; did you mean 'macs'?"),
        (["resnet50", "--budget", "macs=much"], "--budget macs: expected a number above 0, such as macs=1.8e9"),
        (["resnet50", "--budget", "macs=1", "--phi", "1"], "--phi, --factors, --budget and --grid are four questions"),
        (["resnet50", "--factors", "depth=2", "--strategy", "width"], "--strategy says which factors a phi has"),
        (["resnet50", "--alpha", "0.5"], "alpha: expected a number from 1 to 10, got 0.5"),
        (["resnet50", "--phi", "nan"], "phi: expected a number from -30 to 30, got nan"),
        (
            ["resnet50", "--factors", "d=2"],
            "factors: expected depth, width and resolution, each once, got 'd' in 'd=2'",
        ),
        (["resnet50", "--factors", "depth=2,depth=3"], "factors: expected depth, width and resolution, each once"),
        (["resnet50", "--factors", "width=nan"], "factors: width: expected a number above 0 and up to 100, got 'nan'"),
        (["resnet50", "--factors", "resolution"], "factors: resolution: expected a number above 0"),
        (["resnet50", "width=wide", "--phi", "1"], "resnet50.width: expected"),
        (["resnet50", "stem=tiny"], "resnet50.stem: expected"),
        (["lenet5", "--phi", "1"], "lenet5: width 1.1 does not go with c3 'table'"),
        (["lenet5_modern", "--phi", "-9"], "LeNet-5 takes images (batch, height, width, channels) of at least 16x16"),
        (["resnet50", "--step", "0", "--budget", "macs=1e9"], "step: expected a number above 0, got 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, sentence, cnnjax):
    assert cnnjax("scale", *arguments).error.startswith(sentence)
