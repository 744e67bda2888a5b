"""The page on what a run gets wrong: its numbers are those of the evaluation, and of scikit-learn."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cnnjax.config import Config
from cnnjax.errors import RunError
from cnnjax.train.eval_figures import draw_confusion, draw_worst
from cnnjax.train.eval_report import class_table, frequent_confusions, write_eval_report
from cnnjax.train.evaluation import evaluate
from cnnjax.train.loop import fit

SIZES = {"image_size": 16, "classes": 4, "train_examples": 64, "test_examples": 37, "noise": 0.6}


def train(folder, **config):
    usual = {
        "name": "small",
        "parallel": {"devices": 1},
        "train": {"duration": {"steps": 6}},
        "eval": {"batch_size": 8},
    }
    fit(Config.model_validate(usual | config), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classified")
    data = {"source": {"kind": "synthetic", **SIZES}, "batch_size": 16, "image_size": 32}
    run = train(folder, data=data, model={"name": "lenet5_modern"})
    return run, folder / "report", write_eval_report(run, folder / "report")


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmented")
    source = {"kind": "digits_on_photographs", "train_examples": 8, "test_examples": 5, "image_size": 48}
    model = {"name": "unet", "args": {"width": 0.0625, "levels": 3, "padding": "valid"}}
    data = {"source": source, "batch_size": 4, "image_size": None}
    run = train(folder, data=data, model=model)
    return run, folder / "report", write_eval_report(run, folder / "report")


def test_numbers_are_those_of_the_evaluation(classified):
    run, folder, result = classified
    assert result == evaluate(run)
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert [int(row["example"]) for row in rows] == list(range(37))
    right = np.mean([row["label"] == row["found"] for row in rows])
    assert right == pytest.approx(result["accuracy"])
    assert np.mean([float(row["loss"]) for row in rows]) == pytest.approx(result["loss"], rel=1e-4)


def test_tables_are_scikit_learns(classified):
    _, folder, _ = classified
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    labels, found = ([row[name] for row in rows] for name in ("label", "found"))
    results = json.loads((folder / "results.json").read_text())
    confusion = np.array(results["confusion"])
    np.testing.assert_array_equal(confusion, confusion_matrix(labels, found, labels=results["classes"]))
    expected = precision_recall_fscore_support(labels, found, labels=results["classes"], zero_division=np.nan)
    for index, row in enumerate(class_table(confusion)):
        for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
            if row[name] is not None and not np.isnan(values[index]):
                assert row[name] == pytest.approx(values[index]), name
        assert row["examples"] == expected[3][index]


def test_the_page_has_everything_inside(classified):
    _, folder, result = classified
    page, html = (folder / "README.md").read_text(), (folder / "index.html").read_text()
    assert f"**{result['accuracy']:.2%}** of 37 right" in page
    assert page.partition("## Confusion")[0].count("| class ") == 5  # the header, and class 0 to class 3
    assert html.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=\"http", html)
    for name in ("confusion.png", "worst.png"):
        assert np.asarray(Image.open(folder / name).convert("L")).std() > 10
    assert str(folder.parent) not in page + (folder / "results.json").read_text()


def test_pixels_are_counted_too(segmented):
    run, folder, result = segmented
    results = json.loads((folder / "results.json").read_text())
    confusion = np.array(results["confusion"])
    assert confusion.sum() % 5 == 0  # as many pixels of each image, fewer than it has: this network has no padding
    assert confusion.sum() < 5 * 48 * 48
    assert np.diag(confusion).sum() / confusion.sum() == pytest.approx(result["accuracy"], rel=1e-5)
    found, expected = [row["iou"] for row in class_table(confusion)], result["class_iou"]
    assert [value is None for value in found] == [value is None for value in expected]
    np.testing.assert_allclose(*([value or 0 for value in each] for each in (found, expected)), atol=1e-6)
    assert not (folder / "predictions.csv").exists()
    assert result == evaluate(run)


def test_names_are_only_names_and_a_network_may_have_more_classes(tmp_path):
    names = ["<script>alert(1)</script>", "x|y", "$x_$", "*z*"]
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 1)).astype(np.uint8)
    labels = np.arange(16) % 4
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    source = {"kind": "npz", "path": str(tmp_path / "data.npz"), "class_names": names}
    model = {"name": "lenet5_modern", "args": {"num_classes": 90}}
    slow = {"kind": "constant", "learning_rate": 1e-9}
    run = train(tmp_path, data={"source": source, "batch_size": 16}, model=model, schedule=slow)
    result = write_eval_report(run, tmp_path / "report")
    raw = json.loads((tmp_path / "report" / "results.json").read_text())
    confusion = np.array(raw["confusion"])
    assert 4 < len(raw["classes"]) == len(confusion) <= 90  # it starts at random, and says what is not in the data
    assert raw["classes"][:5] == [*names, "class 4"]
    assert confusion.sum(1).tolist() == [4] * 4 + [0] * (len(confusion) - 4)
    assert np.diag(confusion).sum() == round(16 * result["accuracy"])
    html = (tmp_path / "report" / "index.html").read_text()
    assert "<script" not in html
    for cell in ("&lt;script&gt;alert(1)&lt;/script&gt;", "x|y", "$x_$", "*z*"):
        assert f"<td>{cell}</td>\n<td>4</td>" in html


def test_formulas_in_names_are_no_formulas(tmp_path):
    for name in ("$x_$", "5$ or $6", "a$b"):
        draw_confusion(np.eye(2, dtype=int), [name, "other"], tmp_path / "names.png")
    draw_worst(np.zeros((1, 8, 8, 1), np.uint8), ["$x_$\nfound $y^$"], tmp_path / "worst.png")


def test_frequent_confusions():
    confusion = np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
    assert frequent_confusions(confusion) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert class_table(np.array([[3, 0], [0, 0]]))[1]["recall"] is None


def test_a_folder_that_cannot_be_written(classified, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written: Not a directory; choose another --report"):
        write_eval_report(classified[0], tmp_path / "file" / "report")
