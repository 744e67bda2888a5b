"""Networks with auxiliary classifiers, and with a class for each pixel, through the ordinary commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import history
from PIL import Image

from cnnjax.data.sources import load
from cnnjax.train.predict import predict_masks
from cnnjax.train.run_folder import read_config

COMMON = """
schedule: {kind: constant, learning_rate: 0.02}
train: {duration: {steps: 4}}
eval: {every: {steps: 2}, batch_size: 16}
checkpoint: {every: {steps: 2}}
log: {every: {steps: 2}}
parallel: {devices: 1}
"""
GOOGLENET = """
model: {name: googlenet, args: {stem: small, width: 0.125}}
data:
  source: {kind: synthetic, train_examples: 32, test_examples: 16, image_size: 32}
  batch_size: 8
"""
UNET = """
model: {name: unet_same, args: {width: 0.125, levels: 3}}
data:
  source: {kind: digits_on_photographs, image_size: 32, train_examples: 32, test_examples: 20}
  image_size: null
  batch_size: 8
"""


@pytest.fixture
def write(tmp_path):
    """Writes a config file."""

    def write(text: str):
        path = tmp_path / "config.yaml"
        path.write_text(text + COMMON)
        return path

    return write


@pytest.mark.slow
def test_googlenet_trains_with_its_auxiliary_classifiers(write, tmp_path, cnnjax):
    config = write(GOOGLENET)
    cnnjax("train", config, "--run-dir", tmp_path / "run", "--json").done  # noqa: B018 -- checks
    trained = [line for line in history(tmp_path / "run") if line["kind"] == "train"]
    # Two classifiers, neither of which knows much yet.
    assert all(1.5 < line["auxiliary_loss"] / line["loss"] < 2.5 for line in trained)
    assert all("auxiliary_loss" not in line for line in history(tmp_path / "run") if line["kind"] == "eval")


def test_unet_trains_on_pixels(write, tmp_path, cnnjax):
    run = tmp_path / "run"
    result = cnnjax("train", write(UNET), "--run-dir", run, "--json").done.json
    evaluated = cnnjax("eval", run, "--json").done.json
    assert evaluated["examples"] == 20
    assert evaluated["mean_iou"] == pytest.approx(result["mean_iou"], rel=1e-5)
    assert len(evaluated["class_iou"]) == 11
    assert "accuracy_interval" not in evaluated  # pixels of one image are not independent
    occurring = [value for value in evaluated["class_iou"] if value is not None]
    assert sum(occurring) / len(occurring) == pytest.approx(evaluated["mean_iou"])
    assert all(0 <= line["mean_iou"] <= 1 for line in history(run))
    assert "mean IoU" in cnnjax("eval", run).done.out.replace("mean intersection over union", "mean IoU")
    Image.new("RGB", (50, 40), "white").save(tmp_path / "white.png")
    (found,) = cnnjax("predict", run, tmp_path / "white.png", "--out", tmp_path, "--json").done.json["predictions"]
    assert {each["class"] for each in found["shares"]} <= {"photograph", *"0123456789"}
    assert sum(each["share"] for each in found["shares"]) == pytest.approx(1)
    with Image.open(tmp_path / "white_mask.png") as mask:
        assert mask.size == (50, 40)
    # The pictures of the held-out set have the classes that the evaluation gave them.
    test = load(read_config(run).data).test
    masks = predict_masks(run, list(test.images))
    right = [(mask.classes == label).mean() for mask, label in zip(masks, test.labels, strict=True)]
    assert sum(right) / len(right) == pytest.approx(evaluated["accuracy"], abs=1e-4)


@pytest.mark.slow
def test_unet_learns_which_pixels_are_which_digit(tmp_path):
    """The background alone would be a mean of 0.07, digits that are found but not told apart one of 0.1."""
    shorter = ("train.duration={steps: 512}", "eval.every=null", "data.source.test_examples=64", "parallel.devices=1")
    config = Path(__file__).parents[2] / "configs" / "train" / "unet_digits_on_photographs.yaml"
    command = [sys.executable, "-m", "cnnjax", "train", config, "--run-dir", tmp_path / "run", "--json", *shorter]
    # So many steps are worth compiling well.
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["mean_iou"] > 0.3


@pytest.mark.parametrize(
    ("config", "change", "sentence"),
    [
        (UNET, "model={name: lenet5_modern}", "model.name: lenet5_modern gives each image a class, and the data has"),
        (GOOGLENET, "model={name: unet_same}", "model.name: unet_same gives each pixel a class, and the data has one"),
        (UNET, "data.image_size=64", "data.image_size: 64 would part the images from their pixels' classes"),
    ],
)
def test_what_does_not_fit_is_one_sentence(config, change, sentence, write, tmp_path, cnnjax):
    outcome = cnnjax("train", write(config), "--run-dir", tmp_path / "run", change)
    assert outcome.error.startswith(sentence)
    assert not (tmp_path / "run").exists()
