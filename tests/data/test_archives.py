"""NumPy's archives as a source."""

import numpy as np
import pytest

from cnnjax.config_data import DataConfig, NpzSource
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "x_train": RANDOM.integers(0, 256, (6, 5, 4, 3)).astype(np.uint8),
    "y_train": np.array([0, 1, 2, 3, 0, 1]),
    "x_test": RANDOM.integers(0, 256, (2, 5, 4, 3)).astype(np.uint8),
    "y_test": np.array([1, 0]),
}


def archive(folder, image_size=None, names=None, **replaced) -> DataConfig:
    path = folder / "set.npz"
    np.savez_compressed(path, **{key: value for key, value in (ARRAYS | replaced).items() if value is not None})
    return DataConfig(source=NpzSource(kind="npz", path=path, class_names=names), image_size=image_size)


def test_arrays_come_as_they_are(tmp_path):
    data = load(archive(tmp_path))
    np.testing.assert_array_equal(data.train.images, ARRAYS["x_train"])
    np.testing.assert_array_equal(data.test.labels, ARRAYS["y_test"])
    assert (data.class_names, data.train.labels.dtype) == (("0", "1", "2", "3"), np.int32)
    assert load(archive(tmp_path, names=tuple("abcde"))).class_names == tuple("abcde")
    assert load(archive(tmp_path, image_size=8)).train.image_shape == (8, 8, 3)


def test_grey_images_keras_labels_and_labels_of_pixels(tmp_path):
    grey = {name: ARRAYS[name][..., 0] for name in ("x_train", "x_test")}
    keras = {name: ARRAYS[name][:, None].astype(np.uint8) for name in ("y_train", "y_test")}
    data = load(archive(tmp_path, **grey, **keras))
    assert (data.train.image_shape, data.train.label_shape) == ((5, 4, 1), ())
    np.testing.assert_array_equal(data.train.labels, ARRAYS["y_train"])
    pixels = {"y_train": grey["x_train"] % 3, "y_test": grey["x_test"] % 3}
    data = load(archive(tmp_path, **pixels))
    assert (data.train.label_shape, len(data.class_names)) == ((5, 4), 3)
    with pytest.raises(ConfigError, match=r"would part the images from their pixels' classes; set it to null$"):
        load(archive(tmp_path, image_size=8, **pixels))


@pytest.mark.parametrize(
    ("replaced", "sentence"),
    [
        ({"y_test": None}, r"has no array 'y_test'; did you mean 'x_test'\?"),
        ({"x_train": ARRAYS["x_train"] / 255}, r"'x_train' of .* is float64 with 4 dimensions, expected uint8"),
        ({"y_train": np.zeros(5, int)}, r"'y_train' of .* has the shape \(5,\), expected \(6,\), a label for each"),
        ({"y_train": np.zeros(6)}, r"'y_train' of .* holds float64 values, expected labels as integers"),
        ({"y_test": np.array([0, -1])}, r"'y_test' of .* holds the label -1 \(entry 1\), expected 0 to 3"),
        ({"x_test": ARRAYS["x_test"][:, :3]}, r"training and test images differ in size \(5x4 and 3x4\)"),
        ({"x_test": ARRAYS["x_test"][..., :1]}, r"training and test images differ in channels \(3 and 1\)"),
        ({"y_train": np.array(list("abcdab"))}, r"'y_train' of .* holds <U1 values, expected labels as integers"),
        ({"y_train": np.full(6, np.nan)}, r"'y_train' of .* holds float64 values, expected labels as integers"),
        ({"y_train": np.full(6, 1e12).astype(int)}, r"holds the label 1000000000000, expected classes counted from 0"),
        ({"y_train": np.zeros((6, 5, 4), int)}, r"'y_train' and 'y_test' .* one has a label for each image and the"),
        ({"x_test": ARRAYS["x_test"][:0], "y_test": np.zeros(0, int)}, r"'x_test' of .* is empty: its shape is \(0, 5"),
        ({"x_train": ARRAYS["x_train"][..., :0]}, r"'x_train' of .* is empty: its shape is \(6, 5, 4, 0\)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, replaced, sentence):
    with pytest.raises(DataError, match=sentence):
        load(archive(tmp_path, **replaced))


def test_files_that_are_no_archives(tmp_path):
    config = archive(tmp_path)
    path = config.source.path
    content = path.read_bytes()
    # Half of the first array's compressed bytes, and the way in which they are compressed.
    start = content.index(b"x_train.npy") + 200
    deflated = content[:start] + bytes(len(content[start : start + 100])) + content[start + 100 :]
    directory = content.index(b"PK\1\2") + 10
    compression = content[:directory] + b"\x63\0" + content[directory + 2 :]
    for damaged in (b"", content[:200], b"PK\3\4nothing", b"text", deflated, compression):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged, or no archive that numpy.savez wrote"):
            load(config)
    with path.open("wb") as file:
        np.save(file, ARRAYS["x_train"])
    with pytest.raises(DataError, match="holds one array, expected an archive of four"):
        load(config)
    path.unlink()
    with pytest.raises(DataError, match=r"does not exist; expected a file that numpy.savez wrote"):
        load(config)
