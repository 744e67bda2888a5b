"""The learning curve as a picture."""

import math

import numpy as np
import pytest
from PIL import Image

from cnnjax.train.figures import draw_learning_curve


def history(records: int, ema: bool = False, trained: bool = True) -> list[dict]:
    """A run that learns."""
    found = []
    for epoch in range(1, records + 1):
        loss = 2.3 * math.exp(-epoch / 8) + 0.01
        if trained:
            found.append({"kind": "train", "epoch": epoch, "step": epoch, "loss": loss, "accuracy": 1 - loss / 2.5})
        for weights in ("raw", "ema") if ema else ("raw",):
            worse = 1.5 * loss + (0.02 if weights == "raw" else 0.01)
            found.append(
                {
                    "kind": "eval",
                    "weights": weights,
                    "epoch": epoch,
                    "step": epoch,
                    "loss": worse,
                    "accuracy": 1 - worse / 4,
                }
            )
    return found


def colors(path) -> dict[str, int]:
    """How many pixels have (nearly) each line's colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    palette = {"training": (0, 114, 178), "raw": (213, 94, 0), "ema": (0, 158, 115)}
    return {name: int((np.abs(pixels - color).max(-1) < 30).sum()) for name, color in palette.items()}


@pytest.mark.parametrize("records", [1, 2, 40])
@pytest.mark.parametrize("ema", [False, True])
def test_every_line_is_drawn(tmp_path, records, ema):
    path = tmp_path / "curve.png"
    draw_learning_curve(history(records, ema), "lenet5_digits", path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 800
    found = colors(path)
    assert found["training"] > 20
    assert found["raw"] > 20
    assert (found["ema"] > 20) == ema


def test_nothing_is_written_of_nothing(tmp_path):
    draw_learning_curve([], "empty", tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []


def test_evaluations_alone_are_enough(tmp_path):
    draw_learning_curve(history(3, trained=False), "evaluated", tmp_path / "curve.png")
    assert colors(tmp_path / "curve.png")["raw"] > 20


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("extreme", [0.0, math.nan, 1e30])
def test_losses_that_no_logarithm_takes_are_no_hindrance(tmp_path, extreme):
    records = history(3)
    records[0]["loss"] = extreme
    for each in records:
        each["accuracy"] = 1.0
    draw_learning_curve(records, "perfect", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_the_same_history_gives_the_same_picture(tmp_path):
    for name in ("a.png", "b.png"):
        draw_learning_curve(history(5), "twice", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
