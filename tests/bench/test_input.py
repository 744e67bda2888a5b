"""The rate at which a config's images come."""

import json
from pathlib import Path

import pytest

from cnnjax.bench.input import measure_input
from cnnjax.config_files import load_config
from cnnjax.parallel import Executor

CONFIG = Path(__file__).parents[2] / "configs/train/lenet5_digits.yaml"


def test_both_rates_and_the_size_of_an_image(cnnjax):
    code, out, _ = cnnjax("bench", "input", CONFIG, "--batches", "5", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["source"], result["batch_size"], result["bytes_per_image"]) == ("digits", 128, 32 * 32)
    assert min(result[name] for name in ("load_seconds", "host_images_per_second", "device_images_per_second")) > 0


def test_the_line_that_people_read(cnnjax):
    code, out, _ = cnnjax("bench", "input", CONFIG, "data.batch_size=16", "--batches", "2")
    assert code == 0
    assert out.startswith("digits, batch 16, 1,024 bytes an image: ")


def test_batches_go_to_the_devices_in_one_of_the_two(monkeypatch):
    """Each measurement of 3 batches takes one before them."""
    put, original = [], Executor.put_batch
    monkeypatch.setattr(Executor, "put_batch", lambda self, batch: put.append(1) or original(self, batch))
    measure_input(load_config(CONFIG, ["data.prefetch=0"]), batches=3, rounds=2)
    assert len(put) == 2 * (3 + 1)


def test_the_clock_sees_every_batch(monkeypatch):
    """At one second a look at the clock, a measurement of 4 batches of 32 takes one second."""
    now = iter(range(1000))
    monkeypatch.setattr("cnnjax.bench.input.perf_counter", lambda: float(next(now)))
    config = load_config(CONFIG, ["data.batch_size=32"])
    result = measure_input(config, batches=4, rounds=1)
    assert result["host_images_per_second"] == result["device_images_per_second"] == pytest.approx(4 * 32)


def test_images_are_cut_as_in_training(monkeypatch):
    cut = []
    monkeypatch.setattr("cnnjax.data.loader.draw_crops", lambda config, **_: cut.append(config.area))
    config = load_config(CONFIG, ["data.augment=[{kind: resized_crop, area: [0.25, 0.5]}]", "data.prefetch=0"])
    measure_input(config, batches=1, rounds=1)
    assert set(cut) == {(0.25, 0.5)}
