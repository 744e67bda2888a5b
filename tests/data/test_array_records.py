"""Folders of records: the same examples as the files they were made of, from threads and processes; and damage."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from image_files import write_classes
from PIL import Image

from cnnjax.config_data import ArrayRecordSource, DataConfig, FolderSource, MasksSource
from cnnjax.data.convert import convert
from cnnjax.data.examples import ArrayExamples, Examples
from cnnjax.data.records import Records, pack, unpack_label, unpack_mask
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxWarning, ConfigError, DataError


def config(path: Path, **fields) -> DataConfig:
    return DataConfig(source=ArrayRecordSource(kind="arrayrecord", path=path, **fields), image_size=16)


def everything(examples: Examples) -> tuple[np.ndarray, ...]:
    read = examples.read(np.arange(len(examples)))
    return read.images, read.labels, read.mask


def require_equal(one: Examples, other: Examples) -> None:
    assert len(one) == len(other) > 0
    for left, right in zip(everything(one), everything(other), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert (one.image_shape, one.label_shape) == (other.image_shape, other.label_shape)


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    return write_classes(tmp_path_factory.mktemp("pets"), {"cat": 9, "dog": 11, "fish": 5})


@pytest.fixture(scope="module")
def converted(pets, tmp_path_factory) -> Path:
    """Several files of records each set: a megabyte would hold them all."""
    folder = tmp_path_factory.mktemp("records") / "pets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnjax.data.convert._MEGABYTE", 4000)
        convert(FolderSource(kind="folder", path=pets), folder, shard_megabytes=1)
    return folder


@pytest.fixture
def copied(converted, tmp_path) -> Path:
    """A folder of records to be damaged."""
    return Path(shutil.copytree(converted, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("fields", "fit"),
    [({}, "resize"), ({"channels": 1}, "pad"), ({"scaled_decoding": True}, "resize"), ({"in_memory": True}, "resize")],
)
def test_holds_the_examples_of_the_files(pets, converted, fields, fit):
    files = load(DataConfig(source=FolderSource(kind="folder", path=pets, **fields), image_size=16, fit=fit))
    records = load(config(converted, **fields).model_copy(update={"fit": fit}))
    assert records.class_names == files.class_names == ("cat", "dog", "fish")
    assert isinstance(records.train, ArrayExamples) == bool(fields.get("in_memory"))
    for one, other in ((records.train, files.train), (records.test, files.test)):
        require_equal(one, other)
        np.testing.assert_array_equal(one.image_labels, other.image_labels)
    asked = np.array([7, 0, 7, 19])
    np.testing.assert_array_equal(records.train.read(asked).images, files.train.read(asked).images)


def test_is_laid_out_as_it_says(pets, converted):
    names = sorted(path.name for path in converted.iterdir())
    shards = [name for name in names if name.startswith("train") and name.endswith(".arrayrecord")]
    assert len(shards) > 2
    assert shards[0] == f"train-00000-of-{len(shards):05d}.arrayrecord"
    info = json.loads((converted / "info.json").read_text())
    assert (info["format"], info["version"], info["records"]) == ("cnnjax arrayrecord", 1, "label")
    assert info["train"]["classes"] == [7, 9, 4]
    records, labels = [], np.load(converted / "train-labels.npy")
    for name, shard in zip(shards, info["train"]["shards"], strict=True):
        reader = ArrayRecordReader(str(converted / name))
        assert "group_size:1," in reader.writer_options_string()
        assert (reader.num_records(), os.path.getsize(converted / name)) == (shard["examples"], shard["bytes"])
        records += reader.read_all()
    files = {path.read_bytes(): path.parent.name for path in pets.rglob("*.*")}
    assert len(labels) == len(records) == 20
    for record, label in zip(records, labels, strict=True):
        assert record[:4] == int(label).to_bytes(4, "little")
        assert files[record[4:]] == info["class_names"][label]


def test_masks_come_along(tmp_path):
    write_classes(tmp_path, {"images": 8})
    for number, path in enumerate(sorted((tmp_path / "images").iterdir())):
        with Image.open(path) as image:
            height, width = image.size[:: -1 if image.getexif().get(0x0112) != 6 else 1]
        (tmp_path / "masks").mkdir(exist_ok=True)
        indices = np.random.default_rng(number).integers(0, 3, (height, width)).astype(np.uint8)
        Image.fromarray(indices).save(tmp_path / "masks" / f"{path.stem}.png")
    masks = {"images": tmp_path / "images", "masks": tmp_path / "masks", "class_names": ("a", "b", "c")}
    source = MasksSource(kind="masks", **masks)
    convert(source, tmp_path / "records")
    files, records = load(DataConfig(source=source, image_size=16)), load(config(tmp_path / "records"))
    assert records.class_names == ("a", "b", "c")
    assert records.train.image_labels is None
    require_equal(records.train, files.train)
    require_equal(records.test, files.test)


def test_packs_and_unpacks():
    assert unpack_label(pack(258, b"image")) == (258, b"image")
    assert pack(258, b"image")[:4] == b"\x02\x01\x00\x00"
    assert unpack_mask(pack(b"mask", b"image")) == (b"mask", b"image")
    for unpack, record in ((unpack_label, b"\x00\x00"), (unpack_mask, b"\x00"), (unpack_mask, b"\x05\x00\x00\x00mask")):
        with pytest.raises(struct.error):
            unpack(record)


def test_threads_read_the_same(converted):
    train = load(config(converted)).train
    expected = everything(train)[0]
    fresh = load(config(converted)).train
    orders = [np.random.default_rng(seed).permutation(len(train)) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for order, read in zip(orders, pool.map(fresh.read, orders), strict=True):
            np.testing.assert_array_equal(read.images, expected[order])


ANOTHER_PROCESS = """
import os, pickle, sys
import numpy as np
train = pickle.load(open(sys.argv[1], "rb"))
read = lambda: train.read(np.arange(len(train))).images
np.save(sys.argv[2], read())
child = os.fork()  # inherits what is open
if not child:
    np.save(sys.argv[3], read())
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_other_processes_open_the_files_themselves(converted, tmp_path):
    train = load(config(converted)).train
    expected = everything(train)[0]
    (tmp_path / "train.pickle").write_bytes(pickle.dumps(train))
    names = [tmp_path / name for name in ("train.pickle", "spawned.npy", "forked.npy")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", ANOTHER_PROCESS, *names], check=True, timeout=120)
    for name in names[1:]:
        np.testing.assert_array_equal(np.load(name), expected)


def test_nothing_is_open_before_it_is_read_nor_in_another_process(converted, monkeypatch):
    train = load(config(converted)).train
    records: Records = train.records
    assert records._open[1] == {}
    first = records[0]
    assert list(records._open[1]) == [0]
    assert pickle.loads(pickle.dumps(records))._open[1] == {}
    reader = records._open[1][0]
    monkeypatch.setattr(os, "getpid", lambda: -5)
    assert records[0] == first
    assert records._open[0] == -5
    assert records._open[1][0] is not reader


def first_shard(folder: Path) -> Path:
    return sorted(folder.glob("train-*.arrayrecord"))[0]


def rewrite(path: Path, change) -> None:
    """Writes a file of records anew, with its records changed."""
    records = ArrayRecordReader(str(path)).read_all()
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for number, record in enumerate(records):
        writer.write(change(number, record))
    writer.close()


def test_a_damaged_record_is_named_or_left_out(copied):
    path = first_shard(copied)
    content = bytearray(path.read_bytes())
    middle = content.index(ArrayRecordReader(str(path)).read_all()[2]) + 100
    content[middle] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^record 2 of '{path}' is damaged: ") as raised:
        everything(load(config(copied)).train)
    assert "\n" not in str(raised.value)
    train = load(config(copied, broken="skip")).train
    with pytest.warns(CnnjaxWarning, match=rf"record 2 of '{path}' is damaged.*; it is left out"):
        read = train.read(np.arange(len(train)))
    np.testing.assert_array_equal(np.flatnonzero(read.mask == 0), [2])
    assert not read.images[2].any()
    with pytest.warns(CnnjaxWarning, match="record 2 of"):
        assert len(load(config(copied, broken="skip", in_memory=True)).train) == len(train) - 1


def test_an_image_that_is_none_is_named_by_its_record(copied):
    path = first_shard(copied)
    size = path.stat().st_size
    rewrite(path, lambda number, record: record[:4] + b"\x00" * (len(record) - 4) if number == 1 else record)
    assert path.stat().st_size == size
    with pytest.raises(DataError, match=rf"^record 1 of '{path}' is not an image in a format that Pillow reads$"):
        everything(load(config(copied)).train)


def test_a_label_of_another_conversion_is_refused(copied):
    path = first_shard(copied)
    rewrite(path, lambda number, record: b"\x02\x00\x00\x00" + record[4:] if number == 0 else record)
    with pytest.raises(DataError, match=rf"^record 0 of '{path}' has the label 2, and the set's file of labels says 0"):
        everything(load(config(copied)).train)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_labels(path: Path) -> None:
    np.save(path, np.zeros(20, np.int32))


def open_bracket(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"}", b"("))


def change_info(**values):
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("shard", Path.unlink, r"train-00000-of-\d+.arrayrecord' does not exist; its folder is not whole"),
        ("shard", truncate, r"train-00000-of-\d+.arrayrecord' (is damaged|has 0 records in \d+ bytes)"),
        ("shard", lambda path: path.write_bytes(b""), r"train-00000-of-\d+.arrayrecord' (is damaged|has 0 records)"),
        ("info.json", Path.unlink, r"copy' has no info.json; expected a folder that `cnnjax data convert` wrote"),
        ("info.json", truncate, r"info.json' is damaged, or not of `cnnjax data convert`"),
        ("info.json", lambda path: path.write_text("[]"), r"info.json' is damaged, or not of `cnnjax data convert`"),
        ("info.json", lambda path: path.write_bytes(b"\xff{"), r"info.json' is damaged, or not of"),
        ("info.json", change_info(format="tfds"), r"info.json' is damaged, or not of `cnnjax data convert`: format"),
        ("info.json", change_info(version=2), r"info.json' is of version 2, and this cnnjax reads version 1"),
        ("info.json", change_info(test={"classes": None, "shards": []}), r"info.json' is damaged: it names no records"),
        ("train-labels.npy", Path.unlink, r"train-labels.npy' does not exist; its folder is not whole"),
        ("train-labels.npy", truncate, r"train-labels.npy' is damaged, or no file of labels"),
        ("train-labels.npy", open_bracket, r"train-labels.npy' is damaged, or no file of labels"),
        ("train-labels.npy", other_labels, r"train-labels.npy' does not fit info.json"),
    ],
)  # fmt: skip
def test_damaged_folders(copied, name, damage, sentence):
    damage(first_shard(copied) if name == "shard" else copied / name)
    with pytest.raises(DataError, match=sentence) as raised:
        load(config(copied, broken="skip"))  # which is for records, not for the whole
    assert "\n" not in str(raised.value)


def test_folders_that_are_none(tmp_path, pets):
    for path, sentence in (
        (tmp_path / "absent", "does not exist; expected a folder that `cnnjax data convert` wrote"),
        (next(pets.rglob("*.jpg")), "is not a folder"),
        (pets, "has no info.json"),
    ):
        with pytest.raises(DataError, match=sentence):
            load(config(path))


def test_a_platform_without_the_library_says_so(converted, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(ConfigError, match="ArrayRecord files need the package array-record"):
        load(config(converted))
