"""Which files a source of images finds, in which order, with which labels."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.config_data import DataConfig, FolderSource, ManifestSource, MasksSource
from cnnjax.data.examples import ArrayExamples
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError, DataError


def write(path: Path, value: int = 100, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def values(examples) -> list[int]:
    """The first pixel of every image: what `write` gave it."""
    return [int(image[0, 0, 0]) for image in examples.read(np.arange(len(examples))).images]


def labels(examples) -> list[int]:
    return examples.read(np.arange(len(examples))).labels.tolist()


def config(source, **fields) -> DataConfig:
    return DataConfig(source=source, **{"image_size": 4, **fields})


def folder(path: Path, **fields) -> DataConfig:
    return config(FolderSource(kind="folder", path=path, **fields))


@pytest.fixture
def pets(tmp_path):
    """Five images of cats, deep and shallow, and five of dogs, among other files."""
    for index in range(5):
        write(tmp_path / "pets" / "cat" / ("deep/er" if index == 0 else "") / f"{index}.png", index)
        write(tmp_path / "pets" / "dog" / f"{index}.PNG", 100 + index)
    for name in ("cat/notes.txt", "cat/.hidden.png", ".cache/1.png", "README"):
        (tmp_path / "pets" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "pets" / name).write_text("no image")
    return tmp_path / "pets"


def test_classes_are_sub_folders_and_each_is_split(pets):
    data = load(folder(pets))
    assert data.class_names == ("cat", "dog")
    assert sorted(values(data.train) + values(data.test)) == [*range(5), *range(100, 105)]
    assert (len(data.train), len(data.test)) == (8, 2)
    assert sorted(labels(data.test)) == [0, 1]
    for examples in (data.train, data.test):
        assert [value >= 100 for value in values(examples)] == [bool(label) for label in labels(examples)]
    again, other = load(folder(pets)), [load(folder(pets, split_seed=seed)) for seed in range(1, 5)]
    assert values(again.test) == values(data.test)
    assert any(values(each.test) != values(data.test) for each in other)
    assert len(load(folder(pets, test_fraction=0.4)).test) == 4


def test_named_folders_are_not_split(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for name in ("b", "a"):
            for index in range(count):
                write(tmp_path / part / name / f"{index}.jpg", 10 * index)
    data = load(folder(tmp_path, train="train", test="val"))
    assert (data.class_names, len(data.train), len(data.test)) == (("a", "b"), 6, 4)
    assert labels(data.test) == [0, 0, 1, 1]
    with pytest.raises(DataError, match=r"sub-folders train, val, which look like sets, not classes; name them"):
        load(folder(tmp_path))


def test_in_memory_holds_the_same(pets):
    lazy, eager = load(folder(pets)), load(folder(pets, in_memory=True))
    assert isinstance(eager.train, ArrayExamples)
    for one, other in ((lazy.train, eager.train), (lazy.test, eager.test)):
        indices = np.array([1, 0, 1])
        np.testing.assert_array_equal(one.read(indices).images, other.read(indices).images)
        np.testing.assert_array_equal(one.read(indices).labels, other.read(indices).labels)
        assert (one.image_shape, one.label_shape) == (other.image_shape, other.label_shape) == ((4, 4, 3), ())


def test_folders_that_are_none(tmp_path, pets):
    for path, sentence in (
        (tmp_path / "absent", "does not exist"),
        (pets / "README", "is not a folder"),
        (pets / "cat", "holds images of one class, expected"),
        (write(tmp_path / "empty" / "sub" / "x.png").parent.parent / "sub", "holds images of no class, expected"),
    ):
        with pytest.raises(DataError, match=sentence):
            load(folder(path))
    with pytest.raises(ConfigError, match=r"data.image_size: photographs differ in size"):
        load(folder(pets).model_copy(update={"image_size": None}))
    with pytest.raises(ValueError, match="expected train and test together"):
        FolderSource(kind="folder", path=pets, train="train")
    write(pets / "fish" / "only.png")
    with pytest.raises(ConfigError, match=r"class 2 .* has a single example"):
        load(folder(pets))


def test_links_to_folders_are_followed_but_not_in_circles(pets, tmp_path):
    for index in range(3):
        write(tmp_path / "elsewhere" / "sub" / f"{index}.png", 50 + index)
    (pets / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    data = load(folder(pets))
    assert sorted(values(data.train) + values(data.test)) == [*range(5), 50, 51, 52, *range(100, 105)]
    for place, target in ((pets / "cat" / "again", pets), (tmp_path / "elsewhere" / "back", pets / "cat")):
        place.symlink_to(target)
        with pytest.raises(DataError, match=rf"{place.name}' is a link to a folder that it lies in; remove it"):
            load(folder(pets))
        place.unlink()


def test_folders_that_cannot_be_listed_or_named(pets, monkeypatch):
    (pets / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DataError, match=r"sub-folder 'caf\\udce9' of .* names a class, but not in UTF-8; rename it"):
        load(folder(pets))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(DataError, match=r"pets' cannot be read: Permission denied"):
        load(folder(pets))


def test_unknown_class_in_the_held_out_folder(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"):
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"has a class that .*train' has not: 'c'"):
        load(folder(tmp_path, train="train", test="test"))


def test_classes_of_one_number_have_an_order_of_their_own(tmp_path):
    # 40 names of four numbers: a set's own order would not be this one by chance.
    names = [f"{'0' * zeros}{number}" for number in (1, 2, 10, 11) for zeros in range(10)]
    for name in names:
        write(tmp_path / name / "0.png")
        write(tmp_path / name / "1.png")
    expected = sorted(names, key=lambda name: (int(name), name))
    assert load(folder(tmp_path, test_fraction=0.5)).class_names == tuple(expected)


def manifest(path: Path, text: str, **fields) -> DataConfig:
    path.write_text(text, encoding="utf-8")
    return config(ManifestSource(kind="manifest", path=path, **fields))


def test_manifest_with_and_without_splits(tmp_path):
    for index in range(12):
        write(tmp_path / "photos" / f"{index}.png", index)
    lines = [f"photos/{index}.png,{index % 3 + 9},{'test' if index > 8 else 'train'}" for index in range(12)]
    text = "\n".join(["path,label,split", *lines])
    data = load(manifest(tmp_path / "all.csv", text, split_column="split"))
    assert data.class_names == ("9", "10", "11")  # numbers in their order
    assert (values(data.train), values(data.test)) == (list(range(9)), [9, 10, 11])
    assert labels(data.train) == [index % 3 for index in range(9)]
    halved = load(manifest(tmp_path / "all.csv", text, test_fraction=0.5))
    assert (len(halved.train), sorted(labels(halved.test))) == (6, [0, 0, 1, 1, 2, 2])
    named = "\ufefffile,what\n0.png,b\n1.png,a\n2.png,b\n3.png,a\n"
    elsewhere = manifest(
        tmp_path / "named.csv",
        named,
        folder=tmp_path / "photos",
        path_column="file",
        label_column="what",
        test_fraction=0.5,
    )
    assert load(elsewhere).class_names == ("a", "b")
    # A comma at the end of each line is no field.
    (tmp_path / "named.csv").write_text("file,what\n0.png,b,\n1.png,a,\n2.png,b,\n3.png,a,\n", encoding="utf-8")
    assert load(elsewhere).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "fields", "sentence"),
    [
        ("file,label\n", {}, r"has no column 'path'; known: file, label"),
        ("path,label\na.png,\n", {}, r"line 2 of .* has no label"),
        ("path,label\na.png\n", {}, r"line 2 of .* has no label"),
        (
            "path,label,set\na.png,1,dev\n",
            {"split_column": "set"},
            r"line 2 of .*: set is 'dev', expected train or test",
        ),
        ("path,label,set\na.png,1,train\n", {"split_column": "set"}, r"names no image whose set is test"),
        ("path,label\n", {}, r"names no image$"),
        ("path,label\na.png,1\nb.png,Boxer, dog\n", {}, r"line 3 of .* has more fields than .* put quotes around"),
        ("path,label\na,1.png,2\n", {}, r"line 2 of .* has more fields"),
        (
            "path,label,set\na.png,dog,train\nb.png,dgo,test\n",
            {"split_column": "set"},
            r"has a class in set test that train has not: 'dgo'",
        ),
        ("", {}, r"has no column 'path'"),
    ],
)
def test_bad_manifests(tmp_path, text, fields, sentence):
    with pytest.raises(DataError, match=sentence):
        load(manifest(tmp_path / "bad.csv", text, **fields))


def test_manifests_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(config(ManifestSource(kind="manifest", path=tmp_path / "absent.csv")))
    (tmp_path / "bytes.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="is no CSV file in UTF-8"):
        load(config(ManifestSource(kind="manifest", path=tmp_path / "bytes.csv")))


def masks(path: Path, **fields) -> DataConfig:
    names = ("none", "some", "more")
    return config(MasksSource(kind="masks", images=path / "images", masks=path / "masks", class_names=names, **fields))


def write_mask(path: Path, indices: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8))
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def test_masks_follow_their_images(tmp_path):
    random = np.random.default_rng(0)
    indices = random.integers(0, 3, (10, 8, 8))
    for number, mask in enumerate(indices):
        write(tmp_path / "images" / f"{number}.jpg", 20 * number, (8, 8))
        write_mask(tmp_path / "masks" / f"{number}.png", mask, "P" if number % 2 else "L")
    data = load(masks(tmp_path, scaled_decoding=False).model_copy(update={"image_size": 8}))
    assert (data.train.label_shape, data.train.image_shape, len(data.test)) == ((8, 8), (8, 8, 3), 2)
    for examples in (data.train, data.test):
        read = examples.read(np.arange(len(examples)))
        for image, label in zip(read.images, read.labels, strict=True):
            np.testing.assert_array_equal(label, indices[round(int(image[0, 0, 0]) / 20)])
    nearest = load(masks(tmp_path)).train.read(np.arange(1)).labels[0]  # 8x8 to 4x4
    full = load(masks(tmp_path).model_copy(update={"image_size": 8})).train.read(np.arange(1)).labels[0]
    np.testing.assert_array_equal(nearest, full[1::2, 1::2])


@pytest.mark.parametrize(
    ("mask", "image", "sentence"),
    [
        (np.full((6, 8), 3), (8, 6), r"1.png' holds the label 3 \(entry 0\), expected 0 to 2"),
        (np.zeros((8, 6)), (8, 6), r"1.png' is 8x6, expected the size of its image '.*1.png', 6x8"),
        (np.zeros((6, 8, 3)), (8, 6), r"its pixels are colours \(RGB\), expected class indices"),
    ],
)
def test_bad_masks(tmp_path, mask, image, sentence):
    for number in range(4):
        write(tmp_path / "images" / f"{number}.png", size=image)
        write_mask(tmp_path / "masks" / f"{number}.png", mask, "P" if mask.ndim == 2 else "RGB")
    data = load(masks(tmp_path, test_fraction=0.25))
    with pytest.raises(DataError, match=sentence.replace("1.png", r"\d.png")):
        data.train.read(np.arange(1))


def test_lonely_images_and_masks(tmp_path):
    for name in ("images/a.png", "masks/a.png", "images/b.png"):
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"b.png' has no mask: expected a file of that name"):
        load(masks(tmp_path))
    write(tmp_path / "masks" / "b.png")
    write(tmp_path / "masks" / "c.png")
    with pytest.raises(DataError, match=r"c.png' has no image"):
        load(masks(tmp_path))
    write(tmp_path / "images" / "c.png")
    write(tmp_path / "images" / "c.jpg")
    with pytest.raises(DataError, match="have the same name but for the ending"):
        load(masks(tmp_path))
