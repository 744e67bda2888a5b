"""A data set of TensorFlow Datasets, built here: what went in comes out, without TensorFlow; and mistakes."""

import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import photograph, write_photograph

from cnnjax.config_data import DataConfig, TfdsSource
from cnnjax.data.examples import ArrayExamples
from cnnjax.data.image_files import read_image, read_pixels
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxWarning, ConfigError, DataError

COUNTS = {"train": 10, "test": 4, "unlabelled": 1}


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets", reason="needs the extra `tfds`")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Photographs of many sizes, formats and modes, one of them turned."""
    folder = tmp_path_factory.mktemp("files")
    endings = ("jpg", "png")
    return [write_photograph(folder / f"{number}.{endings[number % 2]}", number) for number in range(16)]


def array(number: int) -> np.ndarray:
    return np.asarray(photograph(number))[:16, :18]


@pytest.fixture(scope="module")
def builder_class(tfds, files):
    """Its `number` says which file an example was made of; number 13 is no image."""

    class CnnjaxPets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "array": tfds.features.Tensor(shape=(16, 18, 3), dtype=np.uint8),
                "real": tfds.features.Tensor(shape=(16, 18, 3), dtype=np.float32),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                "number": tfds.features.Scalar(dtype=np.int64),
                "boxes": tfds.features.Sequence({"box": tfds.features.BBoxFeature()}),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {name: self._generate_examples(name) for name in COUNTS}

        def _generate_examples(self, split):
            first = 10 if split == "test" else 14 if split == "unlabelled" else 0
            for number in range(first, first + COUNTS[split]):
                content = b"no image" if number == 13 else files[number].read_bytes()
                yield (
                    number,
                    {
                        "image": io.BytesIO(content),
                        "array": array(number),
                        "real": array(number).astype(np.float32),
                        "label": -1 if split == "unlabelled" else number % 2,
                        "number": number,
                        "boxes": [{"box": tfds.features.BBox(0.0, 0.0, 0.5, 1.0)}],
                    },
                )

    return CnnjaxPets


@pytest.fixture(scope="module")
def prepared(builder_class, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    builder_class(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture(scope="module")
def numbers(tfds, prepared) -> list[int]:
    """Which file each training example was made of: preparation shuffles."""
    examples = tfds.data_source("cnnjax_pets", split="train", data_dir=prepared)
    return [int(example["number"]) for example in examples]


def config(path: Path, **fields) -> DataConfig:
    return DataConfig(source=TfdsSource(kind="tfds", **{"name": "cnnjax_pets", "path": path} | fields), image_size=16)


def everything(examples):
    return examples.read(np.arange(len(examples)))


@pytest.mark.parametrize(
    "fields",
    [{}, {"channels": 1}, {"in_memory": True, "test": "train"}, {"name": "cnnjax_pets:1.2.0"}],
    ids=str,
)
def test_encoded_images_are_decoded_as_files_are(prepared, files, numbers, fields):
    data = load(config(prepared, **fields))
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (10, 10 if "test" in fields else 4)
    assert isinstance(data.train, ArrayExamples) == bool(fields.get("in_memory"))
    read = everything(data.train)
    for image, label, number in zip(read.images, read.labels, numbers, strict=True):
        np.testing.assert_array_equal(image, read_image(files[number], size=16, channels=fields.get("channels", 3)))
        assert label == number % 2
    np.testing.assert_array_equal(data.train.image_labels, read.labels)
    assert read.labels.dtype == data.train.image_labels.dtype == np.int32


def test_arrays_are_taken_as_they_are(prepared, numbers):
    data = load(config(prepared, image="array"))
    for image, number in zip(everything(data.train).images, numbers, strict=True):
        np.testing.assert_array_equal(image, read_pixels(array(number), "it", size=16, channels=3))
    with pytest.raises(
        DataError, match=r"^example 0 of 'train' of cnnjax_pets/1.2.0 is an array of float32 of 16x18x3"
    ):
        everything(load(config(prepared, image="real")).train)


def test_parts_of_splits(prepared):
    data = load(config(prepared, train="train[:70%]", test="train[70%:]"))
    assert (len(data.train), len(data.test)) == (7, 3)


def test_a_broken_image_is_named_or_left_out(prepared):
    with pytest.raises(DataError, match=r"^example \d of 'test' of cnnjax_pets/1.2.0 is not an image in a format"):
        everything(load(config(prepared)).test)
    test = load(config(prepared, broken="skip")).test
    with pytest.warns(CnnjaxWarning, match=r"example \d of 'test' .*; it is left out"):
        assert everything(test).mask.sum() == 3


def test_other_processes_read_without_tensorflow_and_without_the_code(prepared, tmp_path):
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(config(prepared)))
    code = (
        "import pickle, sys, numpy as np; from cnnjax.data.sources import load;"
        "train = load(pickle.load(open(sys.argv[1], 'rb'))).train; indices = np.arange(len(train));"
        "first = train.read(indices).images; again = pickle.loads(pickle.dumps(train)).read(indices).images;"
        "assert (first == again).all(); np.save(sys.argv[2], first);"
        "print(sorted({'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    names = [tmp_path / name for name in ("config.pickle", "read.npy")]
    said = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
    np.testing.assert_array_equal(np.load(names[1]), everything(load(config(prepared)).train).images)


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"name": "cnnjax_pest"}, DataError, r"'cnnjax_pest' is neither prepared in '.*' nor known .*'cnnjax_pets'\?"),
        ({"name": "mnist"}, DataError, r"'mnist' is not prepared in '.*'; name its folder .*download: true"),
        ({"name": "cnnjax_pets:9.0.0"}, DataError, r"'cnnjax_pets:9.0.0' cannot be used: .*9.0.0"),
        ({"name": "cnnjax_pets/big"}, DataError, r"'cnnjax_pets/big' cannot be used: .*big"),
        ({"name": "pets pets"}, DataError, r"'pets pets' cannot be used: "),
        ({"name": "huggingface:mnist"}, ConfigError, r"'huggingface:mnist' is of a community, .*; use "),
        ({"train": "trian"}, ConfigError, r"data.source.train: 'trian' is no split: Unknown split 'trian'"),
        ({"test": "test[:0]"}, ConfigError, r"data.source.test: 'test\[:0\]' (holds no example|is no split)"),
        ({"test": "test["}, ConfigError, r"data.source.test: 'test\[' is no split"),
        ({"image": "imag"}, ConfigError, r"data.source.image: 'cnnjax_pets' has no feature 'imag'; did you"),
        ({"label": "number"}, ConfigError, r"data.source.label: feature 'number' is of kind Scalar, expected"),
    ],
)  # fmt: skip
def test_mistakes(prepared, caplog, capsys, fields, error, sentence):
    with pytest.raises(error, match=sentence) as raised:
        load(config(prepared, **fields))
    assert "\n" not in str(raised.value)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_a_split_without_labels_is_refused(prepared):
    with pytest.raises(DataError, match=r"example 0 of 'unlabelled' .* has the label -1, expected 0 to 1; a split"):
        everything(load(config(prepared, test="unlabelled")).test)


def test_missing_files_are_named(prepared, tmp_path):
    copy = Path(shutil.copytree(prepared, tmp_path / "copy"))
    for path in copy.rglob("*train*.array_record*"):
        path.unlink()
    with pytest.raises(DataError, match=r"train.*(cannot be read|is damaged)") as raised:
        everything(load(config(copy)).train)
    assert "\n" not in str(raised.value)


def test_another_format_is_refused(builder_class, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra `hf`")
    builder_class(data_dir=tmp_path, file_format="parquet").download_and_prepare()
    with pytest.raises(DataError, match=r"is prepared in '.*' as parquet, which .*; prepare it again, with"):
        load(config(tmp_path))


def test_downloads_only_if_told(builder_class, tmp_path):
    with pytest.raises(DataError, match=r"'cnnjax_pets' is not prepared in"):
        load(config(tmp_path))
    assert not list(tmp_path.iterdir())
    assert len(load(config(tmp_path, download=True)).train) == 10  # builds what it has no need to download
    assert len(load(config(tmp_path)).train) == 10


def test_a_download_that_fails_is_told(tfds, builder_class, tmp_path, monkeypatch):
    def fail(self, _):
        raise ConnectionError("no route to host.\nTry again.")

    monkeypatch.setattr(builder_class, "_split_generators", fail)
    with pytest.raises(DataError, match=r"'cnnjax_pets' could not be downloaded and prepared: no route to host$"):
        load(config(tmp_path, download=True))


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        ConfigError, match=r"^data.source.kind: tfds needs the extra `tfds`: pip install 'cnnjax\[tfds\]'$"
    ):
        load(config(tmp_path))
    with pytest.raises(ConfigError, match=r"data.image_size: photographs differ in size"):
        load(config(tmp_path).model_copy(update={"image_size": None}))
