"""A data set that is damaged, incomplete or does not fit: a sentence that names the file, and no run folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from bars import FILES, write_bars, write_idx

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


@pytest.fixture
def data(tmp_path) -> Path:
    return write_bars(tmp_path / "data")


@pytest.fixture
def refused(data, bars_config, tmp_path, cnnjax):
    """The sentence with which training on the data is refused, which must leave no run folder."""

    def train(*overrides: str) -> str:
        run_dir = tmp_path / "run"
        command = ("train", bars_config, f"data.source.path={json.dumps(str(data))}", "--run-dir", run_dir, *overrides)
        error = cnnjax(*command).error
        assert not run_dir.exists()
        return error

    return train


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "keep", [0, 3, 6, -1], ids=["empty", "part of the magic", "part of the header", "a byte short"]
)
def test_a_truncated_file(name, keep, data, refused):
    content = (data / name).read_bytes()
    (data / name).write_bytes(content[:keep])
    assert refused().startswith(f"'{data / name}' is truncated: ")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(name, data, refused):
    (data / name).unlink()
    assert refused().startswith(f"'{data}' has no file {name}; ")


def test_no_folder(data, refused):
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    assert refused().startswith(f"data.source.path '{data}' does not exist; ")


@pytest.mark.parametrize(("images", "labels"), [(TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)])
def test_images_and_labels_swapped(images, labels, data, refused):
    first, second = (data / images).read_bytes(), (data / labels).read_bytes()
    (data / images).write_bytes(second)
    (data / labels).write_bytes(first)
    assert refused() == f"'{data / images}': expected images (3 dimensions) and got labels; are the two names swapped?"


def test_labels_of_another_set(data, refused):
    (data / TRAIN_LABELS).write_bytes((data / TEST_LABELS).read_bytes())
    assert refused() == f"'{data / TRAIN_IMAGES}' holds 64 images and '{data / TRAIN_LABELS}' 16 labels"


@pytest.mark.parametrize(("name", "count"), [(TRAIN_LABELS, 64), (TEST_LABELS, 16)])
def test_a_label_out_of_range(name, count, data, refused):
    labels = np.zeros(count, np.uint8)
    labels[5] = 4
    write_idx(data / name, labels)
    assert refused().startswith(f"'{data / name}' holds the label 4 (entry 5), expected 0 to 3, one for each of the 4 ")


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_IMAGES])
def test_an_empty_set(name, data, refused):
    write_idx(data / name, np.zeros((0, 28, 28), np.uint8))
    assert refused() == f"'{data / name}' is empty: its header says 0 x 28 x 28"


def test_something_else(data, refused):
    (data / TEST_IMAGES).write_bytes(b"<html><body>404</body></html>")
    assert refused().startswith(f"'{data / TEST_IMAGES}' is not an IDX file: ")


def test_a_batch_larger_than_the_set(refused):
    error = refused("data.batch_size=65")
    assert error == "data.batch_size 65 is larger than the training set of 64 examples; choose 64 or less"


def test_fewer_outputs_than_classes(refused):
    assert refused("model.args.num_classes=3") == "model.args.num_classes: 3 is fewer than the 4 classes of the data"


def test_a_run_does_not_go_on_with_other_data(data, bars_config, tmp_path, cnnjax):
    run_dir = tmp_path / "run"
    command = ("train", bars_config, f"data.source.path={json.dumps(str(data))}", "--run-dir", run_dir)
    cnnjax(*command, "train.duration.steps=1").done  # noqa: B018 -- checks
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    write_bars(data, train=80)
    assert cnnjax(*command).error.startswith(f"the data is not what {run_dir} was trained on")
    (data / TRAIN_LABELS).unlink()
    assert cnnjax("eval", run_dir).error.startswith(f"'{data}' has no file {TRAIN_LABELS}; ")
