"""The benchmark of decoding: its files are photographs, all readers take turns, and the page compares them."""

import importlib.util

import pytest
from PIL import Image

from cnnjax.bench.photographs import add_to_report, measure_photographs, write_photographs
from cnnjax.errors import ConfigError


def test_files_are_photographs_of_a_common_size(tmp_path):
    write_photographs(tmp_path, 6)
    files = sorted(tmp_path.glob("*/*.jpg"))
    assert [file.parent.name for file in files] == ["china"] * 3 + ["flower"] * 3
    images = [Image.open(file) for file in files]
    assert {(image.format, image.size) for image in images} == {("JPEG", (500, 375))}
    assert len({image.tobytes() for image in images}) == 6


def test_readers_take_turns_and_tell_their_rates(monkeypatch, tmp_path):
    monkeypatch.setattr("cnnjax.bench.photographs._FILES", 24)
    monkeypatch.setattr("cnnjax.bench.photographs._SETTLE_SECONDS", 0.0)
    torch = all(importlib.util.find_spec(name) for name in ("torch", "torchvision"))
    row = measure_photographs([0], with_torch=torch, size=32, batch=4, batches=1, rounds=3)
    readers = row["readers"]
    assert [each["scaled_decoding"] for each in readers] == [False, True, *([False] if torch else [])]
    for each in readers:
        assert len(each["rounds"]) == 3
        assert each["images_per_second"] == sorted(each["rounds"])[1] > 0
    assert "| cnnjax | 0 | yes |" in add_to_report(row, tmp_path).read_text()


def test_the_page_compares_with_the_best_of_torch(tmp_path):
    rates = [("cnnjax", 0, 120.0), ("torch", 0, 80.0), ("torch", 2, 100.0)]
    readers = [
        {"library": library, "workers": workers, "scaled_decoding": False, "images_per_second": rate, "rounds": [rate]}
        for library, workers, rate in rates
    ]
    page = add_to_report({"size": 224, "batch": 64, "readers": readers}, tmp_path).read_text()
    assert "| cnnjax | 0 | no | 120 | 1.20 |\n| torch | 0 | no | 80 | 0.80 |\n| torch | 2 | no | 100 | 1.00 |" in page


def test_a_missing_peer_is_told(monkeypatch):
    monkeypatch.setattr("cnnjax.bench.photographs.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--torch needs torch and torchvision; install them, or leave it out"):
        measure_photographs([0], with_torch=True)
