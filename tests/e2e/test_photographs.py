"""Two thousand image files of every kind: each is read right, and a run over all of them is never lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import final_state, history
from photographs import KINDS, LUMA, photographs, write_broken, write_photographs
from PIL import Image
from upright import UPRIGHT, carefully

from cnnjax.config_data import DataConfig
from cnnjax.data.image_files import read_image
from cnnjax.data.sources import load
from cnnjax.train.run_folder import read_history

pytestmark = pytest.mark.slow

COUNT, SIZE = 2000, 32
STEPS = 60
"""More than an epoch's 50, so that the end is in mid-epoch too."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    return folder, write_photographs(folder, COUNT)


@pytest.fixture(scope="module")
def broken(written, tmp_path_factory) -> tuple[Path, dict[Path, str]]:
    """The same folder with five more files, which cannot be read."""
    folder = tmp_path_factory.mktemp("broken") / "photographs"
    shutil.copytree(written[0], folder)
    return folder, write_broken(folder / "temple")


def source_of(folder: Path, **fields) -> dict:
    return {"kind": "folder", "path": str(folder), **fields}


def small(picture: np.ndarray) -> np.ndarray:
    across = Image.fromarray(picture).resize((SIZE, len(picture)), Image.Resampling.BILINEAR)
    return np.asarray(across.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def test_each_file_is_read_as_it_is_to_be_seen(written):
    folder, shown = written
    assert Counter(path.stem.partition("-")[2] for path in shown).keys() == KINDS.keys()
    data = load(DataConfig.model_validate({"source": source_of(folder), "image_size": SIZE}))
    assert data.class_names == tuple(sorted(photographs()))
    assert len(data.train) + len(data.test) == COUNT
    worst: dict[str, int] = {}
    for examples in (data.train, data.test):
        read = examples.read(np.arange(len(examples)))
        assert read.mask.all()
        for path, image, label in zip(map(Path, examples.paths), read.images, read.labels, strict=True):
            assert data.class_names[label] == path.parent.name
            difference = np.abs(image.astype(int) - small(carefully(path))).max()
            kind = path.stem.partition("-")[2]
            worst[kind] = max(worst.get(kind, 0), int(difference))
    # What is transparent in part, and what is mixed of four inks, may be rounded otherwise by one.
    rounded = {"palette_with_alphas", "rgba", "la", "rgba_webp", "rgba_tiff", "cmyk_jpeg", "cmyk_tiff"}
    assert {kind for kind, difference in worst.items() if difference > (kind in rounded)} == set(), worst


def test_each_file_shows_what_was_put_into_it(written):
    """At its own size: the very piece of the photograph, or nearly that where the format does not keep it."""
    _, shown = written
    lossy = {"jpeg", "progressive", "subsampled", "grey_jpeg", "cmyk_jpeg", "webp"}
    lossy |= {f"turned_{number}" for number in UPRIGHT}
    for path, picture in shown.items():
        read = read_image(path, size=None, channels=3).astype(int)
        assert read.shape == picture.shape, path
        difference = np.abs(read - picture)
        if path.stem.partition("-")[2] in lossy:
            assert difference.mean() < 12, path
        else:
            assert difference.max() <= 1, path
        grey = read_image(path, size=None, channels=1)[..., 0]
        assert np.abs(grey - read @ LUMA).max() <= 1, path


def test_a_run_over_all_of_them_is_never_lost(broken, environment, tmp_path, cnnjax):
    """Stopped in mid-epoch and continued, it ends as if never stopped, five broken files among its own."""
    folder, said = broken
    config = tmp_path / "photographs.yaml"
    settings = {
        "model": {"name": "lenet5_modern", "args": {"norm": "batch"}},
        "data": {"source": source_of(folder, broken="skip"), "image_size": SIZE, "batch_size": 32, "mean": 0.4},
        "optimizer": {"name": "adam"},
        "schedule": {"kind": "constant", "learning_rate": 0.002},
        "train": {"duration": {"steps": STEPS}},
        "log": {"every": {"steps": 5}},
        "eval": {"every": {"epochs": 1}, "batch_size": 128},
        "checkpoint": {"every": {"steps": 12}},
    }
    config.write_text(json.dumps(settings))

    def start(name: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "cnnjax", "train", config, "--run-dir", tmp_path / name]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    whole = start("whole")
    told = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, told
    assert all(f"'{path}'" in told and sentence in told for path, sentence in said.items()), told
    assert told.count("it is left out") == len(said)

    stopped = start("parts")
    while stopped.poll() is None and not _has_reached(tmp_path / "parts", 15):
        time.sleep(0.005)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=300)
    reached = max(int(path.name) for path in (tmp_path / "parts" / "checkpoints").iterdir() if path.name.isdigit())
    assert 15 <= reached < 50
    continued = start("parts")
    told = continued.communicate(timeout=300)[0]
    assert continued.returncode == 0, told
    assert final_state(tmp_path / "parts", STEPS) == final_state(tmp_path / "whole", STEPS)
    assert history(tmp_path / "parts") == history(tmp_path / "whole")

    found = cnnjax("eval", tmp_path / "parts", "--json").done.json
    held_out = [each for each in read_history(tmp_path / "whole") if each["kind"] == "eval"][-1]
    assert found["accuracy"] == held_out["accuracy"] > 1.5 / len(photographs())
    assert found["examples"] == held_out["examples"]
    count = json.loads((tmp_path / "whole" / "data.json").read_text())
    assert count["train_examples"] + count["test_examples"] == COUNT + len(said)
    assert found["examples"] + found.get("skipped", 0) == count["test_examples"]
    seen = [each for each in read_history(tmp_path / "whole") if each["kind"] == "train" and each["step"] <= 50]
    skipped = sum(each.get("skipped", 0) for each in seen)
    assert 1 <= skipped + found.get("skipped", 0) <= len(said)  # an epoch leaves out the last few of its order


def _has_reached(run_dir: Path, step: int) -> bool:
    path = run_dir / "metrics.jsonl"
    return path.exists() and f'"step": {step}' in path.read_text()


@pytest.mark.parametrize("number", range(5))
def test_each_kind_of_broken_file_is_named(number, tmp_path, cnnjax):
    for name in ("temple", "river"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), (40 * index, 90, 10)).save(tmp_path / "pictures" / name / f"{index}.png")
    said = write_broken(tmp_path / "pictures" / "temple")
    path, sentence = list(said.items())[number]
    for other in said:
        if other != path:
            os.unlink(other)
    config = tmp_path / "pictures.yaml"
    config.write_text(json.dumps({"data": {"source": source_of(tmp_path / "pictures", in_memory=True)}}))
    refused = cnnjax("train", config, "--run-dir", tmp_path / "run").error
    assert f"'{path}'" in refused
    assert sentence in refused
    assert not (tmp_path / "run").exists()
