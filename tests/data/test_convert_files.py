"""Conversion of image files: what is written, what is refused, and that nothing half-written is left."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from image_files import write_classes
from PIL import Image

import cnnjax.data.convert
from cnnjax.config_data import ArrayRecordSource, DataConfig, DigitsSource, FolderSource, ManifestSource, MasksSource
from cnnjax.data.convert import convert, describe_converted
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxWarning, ConfigError, DataError


@pytest.fixture
def pets(tmp_path) -> Path:
    return write_classes(tmp_path / "pets", {"cat": 6, "dog": 5})


def folder(path: Path, **fields) -> FolderSource:
    return FolderSource(kind="folder", path=path, **fields)


def contents(path: Path, split: str) -> list[bytes]:
    """The image files in a folder of records, in its order."""
    shards = sorted(path.glob(f"{split}-*.arrayrecord"))
    return [record[4:] for shard in shards for record in ArrayRecordReader(str(shard)).read_all()]


def test_tells_what_it_wrote(pets, tmp_path):
    described = describe_converted(convert(folder(pets), tmp_path / "out"))
    files = load(DataConfig(source=folder(pets), image_size=8))
    sets = {"train": files.train, "test": files.test}
    assert json.loads(json.dumps(described)) == {
        "path": str(tmp_path / "out"),
        "records": "label",
        "class_names": ["cat", "dog"],
        "examples": {"train": 8, "test": 3},
        "classes": {name: np.bincount(each.image_labels).tolist() for name, each in sets.items()},
        "skipped": {"train": 0, "test": 0},
        "shards": {"train": 1, "test": 1},
        "bytes": {name: (tmp_path / "out" / f"{name}-00000-of-00001.arrayrecord").stat().st_size for name in sets},
    }
    assert not list(tmp_path.glob("*.partial"))


def test_a_manifest_keeps_its_order_and_sets(pets, tmp_path):
    paths = sorted(pets.rglob("*.*"), reverse=True)
    lines = [f"{path},{path.parent.name},{'test' if place % 4 == 0 else 'train'}" for place, path in enumerate(paths)]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,set", *lines]))
    source = ManifestSource(kind="manifest", path=tmp_path / "all.csv", split_column="set")
    convert(source, tmp_path / "out")
    assert contents(tmp_path / "out", "test") == [path.read_bytes() for path in paths[::4]]
    assert contents(tmp_path / "out", "train") == [
        path.read_bytes() for place, path in enumerate(paths) if place % 4
    ]  # fmt: skip


@pytest.mark.parametrize("block", [1, 3, 64])
def test_files_end_before_they_become_larger(pets, tmp_path, monkeypatch, block):
    monkeypatch.setattr(cnnjax.data.convert, "_BLOCK", block)
    monkeypatch.setattr(cnnjax.data.convert, "_MEGABYTE", 1000)
    sizes = [path.stat().st_size + 4 for path in pets.rglob("*.*")]
    convert(folder(pets), tmp_path / "out", shard_megabytes=2)
    shards = sorted((tmp_path / "out").glob("train-*.arrayrecord"))
    held = [[len(record) for record in ArrayRecordReader(str(path)).read_all()] for path in shards]
    assert len(shards) > 1
    assert max(sizes) < 2000
    assert all(sum(each) <= 2000 for each in held)
    assert all(sum(each) + following[0] > 2000 for each, following in itertools.pairwise(held))
    convert(folder(pets), tmp_path / "tiny", shard_megabytes=0)  # each in a file of its own
    assert len(list((tmp_path / "tiny").glob("train-*.arrayrecord"))) == 8
    assert contents(tmp_path / "tiny", "train") == contents(tmp_path / "out", "train")


def test_broken_files_end_it_or_are_counted(pets, tmp_path):
    broken = sorted(pets.rglob("*.jpg"))
    for path in broken:
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"^image '.*\.jpg' is damaged"):
        convert(folder(pets), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]
    with pytest.warns(CnnjaxWarning, match=r"jpg' is damaged.*; it is left out") as warned:
        converted = convert(folder(pets, broken="skip"), tmp_path / "out")
    assert len(warned) == sum(converted.skipped.values()) == len(broken)
    whole = {path.read_bytes() for path in pets.rglob("*.*")} - {path.read_bytes() for path in broken}
    assert {*contents(tmp_path / "out", "train"), *contents(tmp_path / "out", "test")} == whole
    data = load(DataConfig(source=ArrayRecordSource(kind="arrayrecord", path=tmp_path / "out"), image_size=8))
    assert len(data.train) + len(data.test) == len(whole)
    assert data.train.read(np.arange(len(data.train))).mask.all()


def test_nothing_but_broken_files_is_an_error(pets, tmp_path):
    for path in pets.rglob("*.*"):
        path.write_bytes(b"no image")
    with (
        pytest.warns(CnnjaxWarning),
        pytest.raises(DataError, match="none of the 8 images of the set train can be read"),
    ):
        convert(folder(pets, broken="skip"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_broken_masks_are_broken_files(tmp_path):
    write_classes(tmp_path, {"images": 5}, ("png",))
    for path in (tmp_path / "images").iterdir():
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.new("L", (1, 1)).save(tmp_path / "masks" / path.name)
    named = {"images": tmp_path / "images", "masks": tmp_path / "masks", "class_names": ("a", "b")}
    with pytest.raises(DataError, match=r"masks/.*png' has another size than its image '.*images/"):
        convert(MasksSource(kind="masks", **named), tmp_path / "out")
    for path in (tmp_path / "images").iterdir():
        with Image.open(path) as image:
            size = image.size[:: -1 if image.getexif().get(0x0112) == 6 else 1]
        Image.new("L", size, 2).save(tmp_path / "masks" / path.name)
    with pytest.raises(DataError, match=r"masks/.*png' holds the label 2 \(entry 0\), expected 0 to 1"):
        convert(MasksSource(kind="masks", **named), tmp_path / "out")


def test_folders_that_it_does_not_write_to(pets, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "begun.partial").mkdir()
    for name, sentence in (
        ("full", "full' is not empty; name another folder"),
        ("file", "file' is a file, expected the name of a folder"),
        ("begun", "begun.partial' exists: another conversion writes it, or one was killed"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            convert(folder(pets), tmp_path / name)
    with pytest.raises(DataError, match=r"file/out' cannot be written: (Not a directory|File exists)"):
        convert(folder(pets), tmp_path / "file" / "out")
    assert (tmp_path / "full" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"data.source.kind: digits is not converted; expected image files"):
        convert(DigitsSource(), tmp_path / "digits")
    with pytest.raises(DataError, match=r"x' cannot be written: File name too long"):
        convert(folder(pets), tmp_path / ("x" * 255))
    with pytest.raises(ConfigError, match=r"'/' is not empty; name another folder"):
        convert(folder(pets), Path("/"))


def test_empty_folders_and_links_to_them_are_written_to(pets, tmp_path, monkeypatch):
    for name in ("empty", "linked", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("linked")
    (tmp_path / "ahead").symlink_to("later")
    monkeypatch.chdir(tmp_path / "here")
    for out, written in (
        (tmp_path / "empty", "empty"),
        (tmp_path / "link", "linked"),
        (tmp_path / "ahead", "later"),
        (Path(), "here"),
    ):
        assert convert(folder(pets), out).path == tmp_path / written
        assert (tmp_path / written / "info.json").is_file()
    assert (tmp_path / "link").is_symlink()


def test_a_name_that_no_file_has_is_told(pets, tmp_path):
    (tmp_path / "all.csv").write_text("path,label\n" + "a\0.png,1\nb\0.png,2\n" * 2, encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot be read: embedded null byte"):
        convert(ManifestSource(kind="manifest", path=tmp_path / "all.csv", test_fraction=0.5), tmp_path / "out")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_stops_half_way_leaves_nothing(pets, tmp_path, monkeypatch, failure):
    save, saved = np.save, []

    def fail_at_the_second(path, array):
        saved.append(path)
        if len(saved) == 2:
            assert path.parent == tmp_path / "out.partial"
            assert not (tmp_path / "out").exists()
            raise failure
        save(path, array)

    monkeypatch.setattr(np, "save", fail_at_the_second)
    with pytest.raises((DataError, KeyboardInterrupt)) as raised:
        convert(folder(pets), tmp_path / "out")
    if isinstance(failure, OSError):
        assert str(raised.value) == f"'{tmp_path / 'out'}' cannot be written: No space left on device"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]


def test_what_a_killed_conversion_leaves_is_not_taken_for_whole(pets, tmp_path):
    convert(folder(pets), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "out.partial")
    (tmp_path / "out.partial" / "info.json").unlink()  # it is written last
    with pytest.raises(DataError, match=r"has no info.json"):
        load(DataConfig(source=ArrayRecordSource(kind="arrayrecord", path=tmp_path / "out.partial"), image_size=8))
    with pytest.raises(ConfigError, match=re.escape("out.partial' exists")):
        convert(folder(pets), tmp_path / "out")
    shutil.rmtree(tmp_path / "out.partial")
    convert(folder(pets), tmp_path / "out")


def test_records_that_did_not_arrive_are_noticed(pets, tmp_path, monkeypatch):
    class Forgetful:
        def __init__(self, path, options):
            self.path = path

        def write(self, record):
            pass

        def close(self):
            Path(self.path).touch()

    module = cnnjax.data.convert.array_record()

    class Module:
        ArrayRecordWriter = Forgetful
        ArrayRecordReader = module.ArrayRecordReader

    monkeypatch.setattr(cnnjax.data.convert, "array_record", lambda: Module)
    with pytest.raises(DataError, match=r"(is damaged|0 of 8 records arrived)"):
        convert(folder(pets), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
