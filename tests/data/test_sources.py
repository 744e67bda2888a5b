"""Each source: its shapes, its determinism, and its errors."""

import ast
import gzip
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from test_idx import encode

import cnnjax.data
from cnnjax.config_data import DataConfig, DigitsSource, IdxSource, SyntheticSource
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError, DataError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def write_folder(folder: Path, **replaced: np.ndarray) -> Path:
    """Twenty training and ten test images of 6x4, in four files of which any may be replaced."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 6, 4)).astype(np.uint8)
    labels = (np.arange(30) % 10).astype(np.uint8)
    contents = {"train_images": pixels[:20], "train_labels": labels[:20]}
    contents |= {"test_images": pixels[20:], "test_labels": labels[20:]} | replaced
    for name, values in zip(NAMES, contents.values(), strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(encode(values)))
    return folder


def idx(folder: Path | str, image_size: int | None = None, **fields) -> DataConfig:
    return DataConfig(source=IdxSource(kind="idx", path=Path(folder), **fields), image_size=image_size)


def synthetic(**fields) -> DataConfig:
    return DataConfig(source=SyntheticSource(kind="synthetic", **fields), image_size=None)


@pytest.mark.parametrize(
    "config",
    [
        DataConfig(),
        DataConfig(image_size=None),
        DataConfig(fit="pad", image_size=11),
        synthetic(channels=3, image_size=9, classes=4, train_examples=50, test_examples=13),
    ],
    ids=str,
)
def test_what_every_source_promises(config):
    first, second = load(config), load(config)
    for examples, again in ((first.train, second.train), (first.test, second.test)):
        assert examples.images.dtype == np.uint8
        assert examples.labels.dtype == np.int32
        assert examples.images.shape[0] == len(examples.labels) == len(examples) > 0
        if config.image_size:
            assert examples.images.shape[1:3] == (config.image_size, config.image_size)
        assert set(examples.labels) == set(range(len(first.class_names)))
        np.testing.assert_array_equal(examples.images, again.images)
        np.testing.assert_array_equal(examples.labels, again.labels)
    assert first.train.images.shape[1:] == first.test.images.shape[1:]


def test_digits_are_all_of_them_in_full_range_split_by_class():
    digits = load(DataConfig(image_size=None))
    original = load_digits()
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.class_names == tuple("0123456789")
    everything = np.concatenate([digits.train.images, digits.test.images])[..., 0]
    assert everything.max() == 255
    levels = np.rint(original.images * 255 / 16).astype(np.uint8)
    assert sorted(image.tobytes() for image in everything) == sorted(image.tobytes() for image in levels)
    share = np.bincount(digits.test.labels) / np.bincount(original.target)
    np.testing.assert_allclose(share, 0.2, atol=0.005)


def test_digits_split_follows_its_seed_and_fraction():
    default = load(DataConfig(image_size=None))
    other = load(DataConfig(source=DigitsSource(split_seed=1), image_size=None))
    assert not np.array_equal(default.test.images, other.test.images)
    assert len(load(DataConfig(source=DigitsSource(test_fraction=0.5))).test) == 899
    with pytest.raises(ConfigError, match=r"test_fraction 0.001 of 1797 examples"):
        load(DataConfig(source=DigitsSource(test_fraction=0.001)))


def test_pad_frames_and_refuses_to_shrink():
    own = load(DataConfig(image_size=None)).train.images
    padded = load(DataConfig(image_size=13, fit="pad")).train.images
    np.testing.assert_array_equal(padded[:, 2:10, 2:10], own)
    assert padded.sum() == own.sum()
    with pytest.raises(
        ConfigError, match=r"pad cannot bring images of 8x8 to data.image_size 7x7; choose an image_size of 8"
    ):
        load(DataConfig(image_size=7, fit="pad"))


@pytest.mark.parametrize("name", ["mean", "std"])
def test_one_number_for_each_channel(name):
    assert load(DataConfig(**{name: (0.5,)})).train.images.shape[-1] == 1
    with pytest.raises(ConfigError, match=rf"data.{name} has 3 numbers, expected one, or one for each of 1 channels"):
        load(DataConfig(**{name: (0.5, 0.5, 0.5)}))


def test_idx_folder_is_read_as_it_is(tmp_path):
    datasets = load(idx(write_folder(tmp_path)))
    assert datasets.train.images.shape == (20, 6, 4, 1)
    assert datasets.test.images.shape == (10, 6, 4, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 6, 4)).astype(np.uint8)
    np.testing.assert_array_equal(datasets.train.images[..., 0], pixels[:20])
    np.testing.assert_array_equal(datasets.test.labels, np.arange(10))
    assert load(idx(tmp_path, image_size=8)).train.images.shape == (20, 8, 8, 1)


def test_idx_path_expands_home_and_variables(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("SOME_DATA", str(tmp_path.parent))
    for path in (f"~/{tmp_path.name}", f"$SOME_DATA/{tmp_path.name}", f"${{SOME_DATA}}/{tmp_path.name}"):
        assert len(load(idx(path)).train) == 20


@pytest.mark.parametrize(
    ("replaced", "fields", "message"),
    [
        (
            {},
            {"train_images": NAMES[1], "train_labels": NAMES[0]},
            f"{NAMES[1]}.gz': expected images (3 dimensions) and got labels; are the two names swapped?",
        ),
        (
            {},
            {"test_labels": NAMES[2]},
            f"{NAMES[2]}.gz': expected labels (1 dimension) and got images; are the two names swapped?",
        ),
        ({"train_images": np.ones((20, 24), np.uint8)}, {}, "expected images (3 dimensions) and got 2 dimensions"),
        ({"train_labels": np.ones(19, np.uint8)}, {}, "holds 20 images and"),
        ({"test_labels": np.full(10, 3, np.float32)}, {}, "holds float32 values, expected labels as integers"),
        ({"test_images": np.ones((10, 6, 4), np.int16)}, {}, "holds int16 values, expected pixels as unsigned bytes"),
        ({}, {"class_names": ("a", "b", "c")}, "holds the label 3 (entry 3), expected 0 to 2"),
        ({"train_labels": np.full(20, -1, np.int8)}, {}, "holds the label -1 (entry 0)"),
        ({"test_images": np.ones((10, 5, 4), np.uint8)}, {}, "differ in size (6x4 and 5x4); set data.image_size"),
        ({"test_images": np.ones((0, 6, 4), np.uint8)}, {}, "is empty"),
    ],
)
def test_idx_files_that_do_not_fit(tmp_path, replaced, fields, message):
    with pytest.raises(DataError) as raised:
        load(idx(write_folder(tmp_path, **replaced), **fields))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_idx_folder_that_is_not_one(tmp_path):
    all_four = ", ".join(NAMES)
    with pytest.raises(DataError, match=rf"absent' does not exist; expected a folder with the files {all_four}"):
        load(idx(tmp_path / "absent"))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match=f"file' is not a folder; expected a folder with the files {all_four}"):
        load(idx(file))
    (write_folder(tmp_path) / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(DataError, match=rf"has no file {NAMES[3]}; expected a folder with the files {all_four}"):
        load(idx(tmp_path))


@pytest.mark.parametrize("real_data", ["mnist", "fashion_mnist"], indirect=True)
def test_real_data_sets(real_data):
    datasets = load(DataConfig(source=IdxSource(kind="idx", path=real_data), image_size=32, fit="pad"))
    assert datasets.train.images.shape == (60000, 32, 32, 1)
    assert datasets.test.images.shape == (10000, 32, 32, 1)
    assert not datasets.train.images[:, [0, 1, 30, 31]].any()
    per_class = np.bincount(datasets.train.labels)
    if real_data.name == "mnist":
        assert per_class.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert datasets.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert datasets.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
        # The mean that is quoted everywhere for normalisation.
        assert datasets.train.images[:, 2:30, 2:30].mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    else:
        assert per_class.tolist() == [6000] * 10


def test_synthetic_is_learnable_by_its_neighbours():
    datasets = load(synthetic(image_size=16))
    assert len(datasets.class_names) == 10
    flat = [examples.images.reshape(len(examples), -1) for examples in (datasets.train, datasets.test)]
    neighbours = KNeighborsClassifier(3).fit(flat[0], datasets.train.labels)
    assert neighbours.score(flat[1], datasets.test.labels) > 0.95


def test_synthetic_follows_its_fields():
    base = load(synthetic(train_examples=40, test_examples=20))
    other = load(synthetic(train_examples=40, test_examples=20, source_seed=1))
    assert base.train.images.shape == (40, 32, 32, 1)
    assert not np.array_equal(base.train.images, other.train.images)
    assert not np.array_equal(base.train.images[:20], base.test.images)
    longer = load(synthetic(train_examples=60, test_examples=20))
    np.testing.assert_array_equal(base.test.images, longer.test.images)
    clean, noisy = (load(synthetic(train_examples=40, noise=noise)).train.images for noise in (0.0, 0.1))
    middle = (clean > 100) & (clean < 155)  # where clipping does not bite
    assert np.std(noisy[middle].astype(float) - clean[middle]) / 255 == pytest.approx(0.1, rel=0.05)
    assert len(np.unique(clean.reshape(40, -1), axis=0)) == 40


def test_synthetic_bytes_do_not_depend_on_blocks_or_versions(monkeypatch):
    config = synthetic(image_size=12, channels=2, train_examples=33, test_examples=7)
    whole = load(config).train.images
    assert zlib.crc32(whole.tobytes()) == 0xBB05B873
    monkeypatch.setattr("cnnjax.data.sources._BLOCK_PIXELS", 1000)
    np.testing.assert_array_equal(load(config).train.images, whole)


@pytest.mark.parametrize(
    "fields",
    [
        {"source": {"kind": "synthetic", "train_examples": 10**12}},
        {"source": {"kind": "synthetic", "train_examples": 10**23}},
        {"source": {"kind": "synthetic", "image_size": 10**20}},
        {"image_size": 10**6},
        {"fit": "crop", "shorter_side": 10**8},
    ],
)
def test_more_than_any_memory_holds_is_a_sentence(fields):
    with pytest.raises(DataError, match=r"^the images do not fit into memory \(.*\); ask for fewer of them"):
        load(DataConfig.model_validate(fields))


@pytest.mark.parametrize("kind", ["npz", "manifest"])
def test_a_pipe_is_not_waited_for(kind, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe' is a pipe or a device, expected a file"):
        load(DataConfig.model_validate({"source": {"kind": kind, "path": tmp_path / "pipe"}}))


def test_data_imports_neither_jax_nor_models():
    modules = "{'jax', 'grain', 'sklearn'} & set(sys.modules)"
    code = f"import sys, cnnjax.data.sources, cnnjax.data.images; print(sorted({modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    for file in Path(cnnjax.data.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] not in ("jax", "flax", "optax"), file
                assert not name.startswith("cnnjax.") or name.split(".")[1] in (
                    "config_augment",
                    "config_base",
                    "config_data",
                    "data",
                    "errors",
                    "registry",
                ), file


def test_so_many_of_each_class_are_a_seeded_choice():
    source = SyntheticSource(kind="synthetic", train_examples=40, classes=4)

    def chosen(**fields):
        train = load(DataConfig(source=source, image_size=None, **fields)).train
        return train.read(np.arange(len(train)))

    whole, five, three = chosen(), chosen(examples_per_class=5), chosen(examples_per_class=3)
    np.testing.assert_array_equal(np.bincount(five.labels), [5] * 4)
    rows = [{image.tobytes() for image in read.images} for read in (whole, five, three)]
    assert rows[0] > rows[1] > rows[2]
    again, other = chosen(examples_per_class=5), chosen(examples_per_class=5, subset_seed=1)
    np.testing.assert_array_equal(again.images, five.images)
    assert rows[1] != {image.tobytes() for image in other.images}
    with pytest.raises(
        ConfigError, match=r"data.examples_per_class: 11, and class 0 \(counted from 0\) has 10; choose"
    ):
        chosen(examples_per_class=11)
