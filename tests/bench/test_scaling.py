"""Speed as a network grows."""

import json

import pytest

from cnnjax.bench import scaling
from cnnjax.bench.scaling import Point, add_to_report, measure_in_turns, points

SMALL = ("cifar_resnet20", "forward")


def test_every_axis_varies_alone():
    assert list(dict.fromkeys(point.axis for point in points())) == list(scaling.AXES)
    for point in points(("depth", "width")):
        assert point.fields == {point.axis: point.value}
        assert (point.size, point.batch) == (224, 8)
    assert {point.batch for point in points(("resolution",))} == {8}
    assert {point.size for point in points(("batch",))} == {224}


def test_a_point_tells_its_work_and_its_speed():
    row, half = measure_in_turns(*SMALL, [Point("resolution", size, {}, size, 2) for size in (64, 32)], rounds=3)
    assert row["macs"] == pytest.approx(4 * half["macs"], rel=1e-3)
    assert len(row["seconds"]) == len(half["seconds"]) == 3
    assert row["images_per_second"] == pytest.approx(2 / sorted(row["seconds"])[1])


def test_the_points_of_an_axis_take_turns(monkeypatch):
    taken = []

    def fake_step(network, shape, mode, batch):
        return (lambda times: taken.append(batch)), {"compile_seconds": 1.0}

    monkeypatch.setattr(scaling, "our_step", fake_step)
    rows = measure_in_turns(*SMALL, [Point("batch", batch, {}, 32, batch) for batch in (1, 2)], rounds=2)
    assert taken == [1, 2] + 2 * [1, 1, 2, 2]  # each once to begin with; then a step to settle, and one that counts
    assert [row["value"] for row in rows] == [1, 2]


def test_the_report_keeps_one_row_a_point(tmp_path):
    rows = [
        {
            **{
                "model": "resnet50",
                "mode": "train",
                **Point("width", factor, {}, 224, 8)._asdict(),
                "macs": 4e9 * factor,
            },
            **{"seconds": [1.0], "images_per_second": speed, "compile_seconds": 2.0},
        }
        for factor, speed in ((1.0, 8.0), (0.5, 20.0), (1.0, 10.0))
    ]
    for row in rows:
        page = add_to_report(row, tmp_path).read_text()
    assert "| width | 0.5 | 16.00 | 20.0 | 40.0 | 2.0 |\n| width | 1 | 32.00 | 10.0 | 40.0 | 2.0 |" in page
    assert "| 8.0 |" not in page
    assert (tmp_path / "resnet50_train.png").stat().st_size > 5000
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_the_command_measures_the_axes_that_it_is_told(cnnjax, monkeypatch):
    monkeypatch.setattr(scaling, "_BATCHES", (1, 2))
    monkeypatch.setattr(scaling, "_SIZE", 32)
    code, out, _ = cnnjax("bench", "scaling", "cifar_resnet20", "--axis", "batch", "--mode", "forward", "--json")
    assert code == 0
    assert [json.loads(line)["batch"] for line in out.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--axis", "time"], "--axis: expected some of depth, width, resolution, batch; got 'time'"),
        (["unet", "--axis", "batch"], "bench scaling takes networks of images' classes; unet labels pixels"),
    ],
)
def test_wrong_words_are_one_sentence(cnnjax, words, told):
    code, _, err = cnnjax("bench", "scaling", *words)
    assert (code, err) == (2, f"error: {told}\n")
