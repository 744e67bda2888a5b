"""Data sets of Hugging Face `datasets`, made here: the images and labels that went in; and mistakes."""

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import photograph, write_classes, write_photograph

from cnnjax.config_data import DataConfig, FolderSource, HfSource
from cnnjax.data.examples import ArrayExamples
from cnnjax.data.image_files import read_image, read_pixels
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxWarning, ConfigError, DataError


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The library, with a cache of its own and without a network."""
    library = pytest.importorskip("datasets", reason="needs the extra `hf`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(library.config, "HF_HUB_OFFLINE", True)
        library.disable_progress_bars()
        yield library
        library.enable_progress_bars()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Photographs of many sizes, formats and modes, one of them turned."""
    folder = tmp_path_factory.mktemp("files")
    endings = ("jpg", "png")
    return [write_photograph(folder / f"{number}.{endings[number % 2]}", number) for number in range(14)]


def array(number: int) -> np.ndarray:
    return np.asarray(photograph(number))[:16, :18]


@pytest.fixture(scope="module")
def split(datasets, files):
    """A split made of some of the files."""
    feature = datasets.ClassLabel(names=["cat", "dog"])
    columns = {
        "image": datasets.Image(),
        "array": datasets.Array3D((16, 18, 3), "uint8"),
        "grey": datasets.Array2D((16, 18), "uint8"),
        "real": datasets.Array3D((16, 18, 3), "float32"),
        "label": feature,
        "number": datasets.Value("int64"),
    }

    def make(numbers, **changed):
        rows = {
            "image": [{"bytes": files[number].read_bytes(), "path": None} for number in numbers],
            "array": [array(number) for number in numbers],
            "grey": [array(number)[..., 0] for number in numbers],
            "real": [array(number).astype(np.float32) for number in numbers],
            "label": [number % 2 for number in numbers],
            "number": list(numbers),
        }
        return datasets.Dataset.from_dict(rows | changed, features=datasets.Features(columns))

    return make


@pytest.fixture(scope="module")
def saved(datasets, split, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "pets"
    unlabelled = split([0, 1], label=[0, -1])
    # Shuffled: a column of indices over the rows as they are kept.
    sets = {"train": split(range(10)).shuffle(seed=0), "test": split(range(10, 14)), "unlabelled": unlabelled}
    datasets.DatasetDict(sets).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def numbers(datasets, saved) -> list[int]:
    """Which file each training example was made of."""
    return list(datasets.load_from_disk(saved)["train"]["number"])


def config(path: Path | None = None, **fields) -> DataConfig:
    return DataConfig(source=HfSource(kind="hf", path=path, **fields), image_size=16)


def everything(examples):
    return examples.read(np.arange(len(examples)))


@pytest.mark.parametrize("fields", [{}, {"channels": 1}, {"in_memory": True}], ids=str)
def test_encoded_images_are_decoded_as_files_are(saved, files, numbers, fields):
    data = load(config(saved, **fields))
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (10, 4)
    assert isinstance(data.train, ArrayExamples) == bool(fields.get("in_memory"))
    assert numbers != sorted(numbers)
    read = everything(data.train)
    for image, label, number in zip(read.images, read.labels, numbers, strict=True):
        np.testing.assert_array_equal(image, read_image(files[number], size=16, channels=fields.get("channels", 3)))
        assert label == number % 2
    np.testing.assert_array_equal(data.train.image_labels, read.labels)
    assert read.labels.dtype == data.train.image_labels.dtype == np.int32


@pytest.mark.parametrize("column", ["array", "grey"])
def test_arrays_are_taken_as_they_are(saved, numbers, column):
    data = load(config(saved, image=column))
    for image, number in zip(everything(data.train).images, numbers, strict=True):
        pixels = array(number) if column == "array" else array(number)[..., 0]
        np.testing.assert_array_equal(image, read_pixels(pixels, "it", size=16, channels=3))


def test_other_processes_read_the_same(saved):
    train = load(config(saved)).train
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(everything(again).images, everything(train).images)


def test_a_folder_of_image_files(datasets, tmp_path):
    for name in ("train", "test"):
        write_classes(tmp_path / "pets" / name, {"cat": 3, "dog": 2}, ("png", "jpg"))
    ours = load(
        DataConfig(
            source=FolderSource(kind="folder", path=tmp_path / "pets", train="train", test="test"), image_size=16
        )
    )
    theirs = load(config(tmp_path / "pets"))
    assert theirs.class_names == ours.class_names == ("cat", "dog")
    for one, other in ((theirs.train, ours.train), (theirs.test, ours.test)):
        for left, right in zip(vars(everything(one)).values(), vars(everything(other)).values(), strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_folder_of_parquet_files(datasets, split, files, tmp_path):
    (tmp_path / "pets").mkdir()
    for name, chosen in (("train", range(6)), ("test", range(6, 9))):
        split(chosen).to_parquet(tmp_path / "pets" / f"{name}.parquet")
    data = load(config(tmp_path / "pets"))
    assert (data.class_names, len(data.train), len(data.test)) == (("cat", "dog"), 6, 3)
    np.testing.assert_array_equal(everything(data.test).images[2], read_image(files[8], size=16, channels=3))


def test_a_broken_image_is_named_or_left_out(datasets, split, files, tmp_path):
    images = [{"bytes": files[0].read_bytes(), "path": None}, {"bytes": b"no image", "path": None}, None]
    sets = {"train": split(range(3), image=images), "test": split([0])}
    datasets.DatasetDict(sets).save_to_disk(tmp_path / "pets")
    for index, sentence in ((1, "is not an image in a format that Pillow reads"), (2, "holds no image")):
        with pytest.raises(DataError, match=rf"^row {index} of split train of '.*pets' {sentence}$"):
            load(config(tmp_path / "pets")).train.read(np.array([index]))
    train = load(config(tmp_path / "pets", broken="skip")).train
    with pytest.warns(CnnjaxWarning, match=r"row \d of split train .*; it is left out"):
        assert everything(train).mask.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"train": "trian"}, ConfigError, r"data.source.train: '.*pets' has no split 'trian'; did you mean 'train'\?"),
        ({"image": "imag"}, ConfigError, r"data.source.image: split train .* no column 'imag'; did you mean 'image'\?"),
        ({"image": "real"}, ConfigError, r"data.source.image: column 'real' of split train .*, expected Image, or"),
        ({"label": "number"}, ConfigError, r"data.source.label: column 'number' of .* is Value.*, expected ClassLabel"),
        ({"test": "unlabelled"}, DataError, r"row 1 of split unlabelled of .* has the label -1, expected 0 to 1"),
    ],
)  # fmt: skip
def test_mistakes(saved, fields, error, sentence):
    with pytest.raises(error, match=sentence) as raised:
        load(config(saved, **fields))
    assert "\n" not in str(raised.value)


def test_folders_that_are_none(datasets, split, saved, tmp_path):
    split(range(3)).save_to_disk(tmp_path / "single")
    shutil.copytree(saved, tmp_path / "damaged")
    (tmp_path / "damaged" / "train" / "dataset_info.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for path, sentence in (
        (tmp_path / "absent", "does not exist; expected a folder of save_to_disk"),
        (saved / "dataset_dict.json", "is not a folder"),
        (tmp_path / "single", "holds a single data set, expected splits"),
        (tmp_path / "damaged", "cannot be read as a data set of Hugging Face: "),
        (tmp_path / "empty", "cannot be read as a data set of Hugging Face: "),
    ):
        with pytest.raises(DataError, match=sentence) as raised:
            load(config(path))
        assert "\n" not in str(raised.value)


def test_other_classes_in_the_held_out_set_are_refused(datasets, split, tmp_path):
    other = split(range(2)).cast_column("label", datasets.ClassLabel(names=["dog", "cat"]))
    datasets.DatasetDict(train=split(range(4)), test=other).save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError, match="has other classes in split test than in split train"):
        load(config(tmp_path / "pets"))


def test_a_name_is_found_in_the_cache_and_nowhere_else(datasets, split, files, tmp_path):
    (tmp_path / "pets").mkdir()
    for name, chosen in (("train", range(6)), ("test", range(6, 9))):
        split(chosen).to_parquet(tmp_path / "pets" / f"{name}.parquet")
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    datasets.load_dataset(str(tmp_path / "pets"), cache_dir=tmp_path / "own")
    # As if it had come from the Hub.
    (made,) = (each for each in (tmp_path / "own").iterdir() if each.is_dir() and each.name == "pets")
    shutil.copytree(made, cache / "somebody___pets")
    (configuration,) = (each for each in (cache / "somebody___pets").iterdir() if each.is_dir())
    configuration.rename(configuration.with_name("default"))
    data = load(config(name="somebody/pets"))
    assert (data.class_names, len(data.train), len(data.test)) == (("cat", "dog"), 6, 3)
    np.testing.assert_array_equal(everything(data.test).images[2], read_image(files[8], size=16, channels=3))
    with pytest.raises(
        DataError, match=r"'somebody/else' is not in the cache of .*; set data.source.download: true"
    ) as raised:
        load(config(name="somebody/else"))
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=r"data.source.name 'somebody/else' could not be loaded: ") as raised:
        load(config(name="somebody/else", download=True))
    assert "\n" not in str(raised.value)


def test_either_a_path_or_a_name():
    for fields in ({}, {"path": Path("a"), "name": "b"}):
        with pytest.raises(ValueError, match="expected either path, a folder, or name"):
            HfSource(kind="hf", **fields)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"^data.source.kind: hf needs the extra `hf`: pip install 'cnnjax\[hf\]'$"):
        load(config(tmp_path))
