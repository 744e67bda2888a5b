"""Networks side by side: who takes part, and what is told of each."""

import io

import pytest

from cnnjax.bench.models import LIBRARIES, _why_it_ended, best_of, contestants_of, measure_models
from cnnjax.bench.models_report import add_to_report
from cnnjax.errors import ConfigError, RunError


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("resnet50", ["torchvision/resnet50", "timm/resnet50", "keras/ResNet50", "flax/ResNet50"]),
        ("mobilenet_v1", ["timm/mobilenetv1_100", "keras/MobileNet"]),
        ("unet_same", ["torch/unet_same"]),
    ],
)
def test_who_takes_part(name, others):
    found = contestants_of(name, LIBRARIES)
    assert found[:1] == [(f"cnnjax/{name}", "auto")]
    assert (f"cnnjax/{name}", "native") in found
    theirs = [contestant for contestant, _ in found if not contestant.startswith("cnnjax/")]
    assert [each for each in theirs if not each.endswith("+nhwc")] == others
    torch = [each for each in theirs if each.startswith(("torchvision/", "timm/", "torch/"))]
    assert len(torch) == 2 * len({each.partition("+")[0] for each in torch})  # both layouts


def test_each_is_timed_in_turns():
    ours, native = measure_models("lenet5", ["native"], mode="train", batch=4, rounds=2)
    assert (ours["name"], ours["lowering"], native["lowering"]) == ("cnnjax/lenet5", "auto", "native")
    for row in (ours, native):
        assert len(row["seconds"]) == 2
        assert row["images_per_second"] == pytest.approx(4 / ((row["seconds"][0] + row["seconds"][1]) / 2))
        assert row["first_step_seconds"] > min(row["seconds"])
        assert row["peak_bytes"] > 50e6


@pytest.mark.slow
def test_what_compiling_took_is_told():
    (ours,) = measure_models("lenet5", [], mode="train", batch=4, rounds=1)
    assert min(ours[name] for name in ("trace_seconds", "lower_seconds", "compile_seconds", "temporary_bytes")) > 0
    assert ours["operations"] > 100


@pytest.mark.slow
def test_a_whole_loop_is_timed():
    (ours,) = measure_models("lenet5_modern", [], mode="loop", batch=4, rounds=1)
    assert (ours["mode"], ours["name"]) == ("loop", "cnnjax/lenet5_modern")
    assert ours["images_per_second"] > 4


def row(name, speed, lowering="auto", **others):
    return {"name": name, "lowering": lowering, "mode": "train", "batch": 8, "images_per_second": speed, **others}


def test_the_best_of_each_kind():
    rows = [
        row("cnnjax/resnet50", 10.0),
        row("cnnjax/resnet50", 5.0, "native"),
        row("timm/resnet50", 8.0),
        row("timm/resnet50+nhwc", 12.5),
        row("keras/ResNet50", 4.0),
    ]
    assert best_of(rows, "torch")["name"] == "timm/resnet50+nhwc"
    assert best_of(rows, "jax")["lowering"] == "native"
    assert best_of(rows[:1], "torch") is None


def test_the_report_holds_what_was_measured(tmp_path):
    facts = {"compile_seconds": 3.0, "temporary_bytes": 2.0**20}
    for speed in (9.0, 10.0):
        rows = [
            row("cnnjax/resnet50", speed, **facts),
            row("cnnjax/resnet50", 5.0, "native", compile_seconds=2.0, temporary_bytes=2.0**21),
            row("timm/resnet50+nhwc", 12.5),
        ]
        page = add_to_report(rows, tmp_path).read_text()
    assert "| 10.0 | 0.80 (timm/resnet50+nhwc) | 2.00 (cnnjax/resnet50 native) | 2.00 | 3.0 / 2.0 | 1.0 / 2.0 |" in page
    assert page.count("| `resnet50` |") == 1
    (picture,) = tmp_path.glob("train_8_jax_*.png")
    assert picture.name in page
    assert picture.stat().st_size > 5000


def test_a_library_that_is_not_there_is_named():
    with pytest.raises(
        ConfigError,
        match=r"^--peers: expected some of torchvision, timm, torch, keras, flax, native; got tinygrad$",
    ):
        measure_models("lenet5", ["tinygrad"])


def test_a_contestant_that_the_system_ends_is_no_riddle():
    assert "want of memory; take a smaller --batch" in _why_it_ended(-9, io.StringIO("a warning"))
    assert _why_it_ended(1, io.StringIO("a warning\nthe error\n")) == "the error"
    assert _why_it_ended(3, io.StringIO()) == "its process ended with code 3"


def test_a_contestant_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(
        "cnnjax.bench.models.contestants_of", lambda name, libraries, mode: [("nobody/nothing", "auto")]
    )
    with pytest.raises(RunError, match=r"^nobody/nothing cannot be timed: "):
        measure_models("lenet5", [])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mode", "backward"], "--mode: expected some of forward, train, loop; got 'backward'"),
        (["--batch", "0"], "--batch: expected whole numbers from 1, such as 1,8; got '0'"),
        (
            ["--peers", "tinygrad"],
            "--peers: expected some of torchvision, timm, torch, keras, flax, native; got tinygrad",
        ),
    ],
)
def test_wrong_options_are_one_sentence(words, told, cnnjax):
    code, _, err = cnnjax("bench", "models", "lenet5", *words)
    assert (code, err) == (2, f"error: {told}\n")


def test_the_command_tells_images_per_second(cnnjax):
    words = ("--peers", "native", "--mode", "forward", "--batch", "4", "--rounds", "1")
    code, out, _ = cnnjax("bench", "models", "lenet5", *words)
    assert code == 0
    first, *lines = out.strip().splitlines()
    assert first == "lenet5, forward, batch 4"
    assert [line.split(":")[0].strip() for line in lines] == ["cnnjax/lenet5 auto", "cnnjax/lenet5 native"]
    assert "(ours is 1.00 of it)" in lines[0]


def test_a_low_rate_keeps_its_digits(cnnjax, monkeypatch):
    """A peer that takes minutes a step makes more than 0.1 or 0.0 images per second."""
    row = {"lowering": "native", "peak_bytes": 2**20}
    rows = [{**row, "name": name, "images_per_second": rate} for name, rate in (("cnnjax/a", 104.27), ("b", 0.0801))]
    monkeypatch.setattr("cnnjax.bench.models.measure_models", lambda *_, **__: rows)
    _, out, _ = cnnjax("bench", "models", "lenet5", "--mode", "train")
    assert [line.partition(" images/s")[0] for line in out.splitlines()[1:]] == [
        "  cnnjax/a native: 104.3",
        "  b: 0.08",
    ]
