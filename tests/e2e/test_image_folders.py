"""A folder of photographs, from the command line: trained on, stopped and continued, broken files named or left out."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import in_this_process
from PIL import Image
from sklearn.datasets import load_sample_images

from cnnjax.train.run_folder import read_history


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Twenty pieces of either of two photographs."""
    random = np.random.default_rng(0)
    for name, photograph in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(20):
            top, left = random.integers(0, 300, 2)
            Image.fromarray(photograph[top : top + 90, left : left + 90]).save(
                tmp_path / "pictures" / name / f"{index}.jpg"
            )
    return tmp_path / "pictures"


@pytest.fixture
def train(pictures, tmp_path):
    def run(name: str, *overrides: str):
        source = f"data.source={{kind: folder, path: {json.dumps(str(pictures))}}}"
        usual = ("model.args={norm: batch}", "data.batch_size=8", "data.image_size=32", "schedule={kind: constant}")
        config = tmp_path / "pictures.yaml"
        config.write_text("model: {name: lenet5_modern}\n")
        duration = "train.duration={steps: 6}"
        return in_this_process("train", config, source, *usual, duration, "--run-dir", tmp_path / name, *overrides)

    return run


def test_stopped_and_continued_is_as_never_stopped(train, tmp_path):
    assert train("whole", "checkpoint.every={steps: 3}").code == 0
    assert train("parts", "checkpoint.every={steps: 3}", "train.duration={steps: 3}").code == 0
    assert train("parts", "checkpoint.every={steps: 3}", "--force").code == 0
    whole, parts = (
        [record["loss"] for record in read_history(tmp_path / name) if record["kind"] == "eval" and record["step"] == 6]
        for name in ("whole", "parts")
    )
    assert whole == parts != []


def test_a_broken_file_is_named_or_left_out(train, pictures, tmp_path):
    broken = sorted(pictures.rglob("*.jpg"))
    for path in broken:
        if path.stem == "7":
            path.write_bytes(path.read_bytes()[:200])
    assert "7.jpg' is damaged" in train("error").error
    outcome = train("skip", "data.source.broken=skip", "data.source.test_fraction=0.5", "train.duration={epochs: 2}")
    assert outcome.code == 0
    assert outcome.err.count("; it is left out") == 2  # each once, though there are two epochs
    history = read_history(tmp_path / "skip")
    skipped = {
        kind: sum(each.get("skipped", 0) for each in history if each["kind"] == kind) for kind in ("train", "eval")
    }
    counted = [record["examples"] + record.get("skipped", 0) for record in history if record["kind"] == "eval"]
    assert counted == [20, 20]
    assert skipped["train"] + skipped["eval"] >= 2
    assert "that cannot be read" in outcome.out


def test_nothing_but_broken_held_out_files_is_an_error(train, pictures):
    (pictures / "seen").mkdir()
    for name in ("temple", "flower"):
        (pictures / name).rename(pictures / "seen" / name)
        (pictures / "held" / name).mkdir(parents=True)
        (pictures / "held" / name / "1.jpg").write_text("no image")
    sets = "data.source.train=seen", "data.source.test=held"
    outcome = train("none", *sets, "data.source.broken=skip", "train.duration={steps: 1}")
    assert outcome.code == 2
    assert outcome.err.endswith("left out\nerror: none of the 2 held-out images can be read\n")
