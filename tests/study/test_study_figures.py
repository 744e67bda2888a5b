"""What a study's pictures show."""

import math
from types import SimpleNamespace

import pytest
from matplotlib.axes import Axes

from cnnjax.study.figures import draw_gradients


def test_gradients_of_zero_have_no_place_on_a_logarithmic_axis(monkeypatch, tmp_path):
    drawn, plot = [], Axes.plot

    def watched(axes, modules, means, **style):
        drawn.append(dict(zip(modules, means, strict=True)))
        return plot(axes, modules, means, **style)

    monkeypatch.setattr(Axes, "plot", watched)
    norms = {"stem": 2.0, "auxiliary1": 0.0}
    measures = {seed: {"gradient_norm": {"start": norms, "end": norms}} for seed in range(2)}
    draw_gradients([SimpleNamespace(arm=SimpleNamespace(name="none"), measures=measures)], tmp_path / "picture.png")
    assert len(drawn) == 2  # before the first step and after the last one
    for means in drawn:
        assert means["stem"] == pytest.approx(2.0)
        assert math.isnan(means["auxiliary1"])
