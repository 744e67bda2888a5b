"""Processes that read: the same batches whatever their number, errors and warnings as without them, and no orphans."""

import json
import multiprocessing
import os
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from read_elsewhere import Numbers, SlowNumbers, train_with_a_worker
from sklearn.datasets import load_sample_image

from cnnjax.config import Config
from cnnjax.config_augment import ResizedCrop
from cnnjax.data.examples import ArrayExamples
from cnnjax.data.files import Decoding, FileExamples
from cnnjax.data.loader import Shard, train_batches
from cnnjax.data.workers import InProcesses
from cnnjax.errors import CnnjaxWarning, DataError
from cnnjax.train.loop import fit
from cnnjax.train.reporting import Reporter

PHOTOGRAPH = Image.fromarray(load_sample_image("china.jpg"))
COUNT, BATCH = 12, 5


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(COUNT):
        made.append(str(tmp_path / f"{number}.jpg"))
        PHOTOGRAPH.crop((20 * number, 0, 20 * number + 90, 80)).save(made[-1])
    return made


def examples(paths, **fields):
    return FileExamples(paths, np.arange(COUNT, dtype=np.int32), classes=COUNT, decoding=Decoding(16, 3, **fields))


def batches_of(examples, **options):
    options = {"batch_size": BATCH, "seed": 1, "shard": Shard(), "crop": ResizedCrop(kind="resized_crop")} | options
    return train_batches(examples, **options)


def assert_same(found, expected):
    for one, two in zip(found, expected, strict=True):
        for name in two:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_batches_are_the_same_for_any_number_of_workers_and_after_a_stop(paths):
    plain = batches_of(examples(paths), prefetch=0)
    expected = [next(plain) for _ in range(8)]  # two batches an epoch
    for before, after in ((2, 1), (1, 0), (0, 2)):
        first = batches_of(examples(paths), workers=before)
        assert_same([next(first) for _ in range(3)], expected[:3])
        state = json.loads(json.dumps(first.get_state()))
        first.close()
        second = batches_of(examples(paths), workers=after)
        second.set_state(state)
        assert_same([next(second) for _ in range(5)], expected[3:])
        second.close()


def test_a_broken_file_is_named_from_a_worker(paths):
    with open(paths[3], "wb") as file:
        file.write(b"nothing")
    batches = batches_of(examples(paths), workers=1)
    with pytest.raises(DataError, match=r"3.jpg' is not an image"):
        [next(batches) for _ in range(6)]
    batches.close()


def test_a_skipped_file_is_told_by_the_process_that_trains(paths):
    with open(paths[3], "wb") as file:
        file.write(b"nothing")
    batches = batches_of(examples(paths, skip_broken=True), workers=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = [next(batches)["mask"] for _ in range(6)]
    batches.close()
    assert sum(np.sum(mask == 0) for mask in masks) >= 1
    (told,) = [each for each in caught if issubclass(each.category, CnnjaxWarning)]
    assert "3.jpg' is not an image in a format that Pillow reads; it is left out" in str(told.message)


def test_examples_in_memory_need_no_worker():
    images = np.zeros((COUNT, 16, 16, 3), np.uint8)
    before = set(multiprocessing.active_children())
    batches = batches_of(ArrayExamples(images, np.arange(COUNT, dtype=np.int32)), workers=2)
    next(batches)
    assert set(multiprocessing.active_children()) <= before
    batches.close()


def children_since(before):
    return set(multiprocessing.active_children()) - before


def test_workers_end_with_their_batches(paths):
    before = set(multiprocessing.active_children())
    batches = batches_of(examples(paths), workers=2)
    next(batches)
    assert len(children_since(before)) == 2
    batches.close()
    assert not children_since(before)


def test_workers_end_where_something_fails(paths):
    before = set(multiprocessing.active_children())

    def fail():
        with batches_of(examples(paths), workers=1) as batches:
            next(batches)
            assert len(children_since(before)) == 1
            raise ArithmeticError("in the middle")

    with pytest.raises(ArithmeticError, match="in the middle"):
        fail()
    assert not children_since(before)


def test_training_leaves_no_worker(paths, tmp_path):
    for number, path in enumerate(paths):
        folder = tmp_path / "classes" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        os.rename(path, folder / os.path.basename(path))
    source = {"kind": "folder", "path": str(tmp_path / "classes"), "test_fraction": 0.5}
    data = {"source": source, "image_size": 32, "batch_size": 4, "workers": 1}
    model = {"name": "lenet5_modern"}
    train, parallel = {"duration": {"steps": 2}}, {"devices": 1}
    config = Config.model_validate({"model": model, "data": data, "train": train, "parallel": parallel})
    before, started = set(multiprocessing.active_children()), []

    class Watching(Reporter):
        def start(self, *_):
            started.append(children_since(before))

        def message(self, text):
            started.append(children_since(before))

    fit(config, tmp_path / "run", reporter=Watching())
    assert max(map(len, started)) == 1
    assert not children_since(before)


def test_workers_ignore_what_stops_a_job_and_a_dead_one_is_told():
    source = InProcesses(Numbers(), 1)
    pid = int(source[0]["pid"])
    assert pid != os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    time.sleep(0.1)
    assert int(source[1]["pid"]) == pid
    with pytest.raises(DataError, match="a process that reads the data has died, perhaps for want of memory"):
        source[9]
    source.close()


def test_a_dead_one_leaves_no_other_behind():
    before = set(multiprocessing.active_children())
    source = InProcesses(SlowNumbers(), 2)
    with ThreadPoolExecutor(2) as threads:
        while len({int(each["pid"]) for each in threads.map(source.__getitem__, range(4))}) < 2:
            pass  # until both have begun
    with pytest.raises(DataError, match="has died"):
        source[9]
    source.close()
    assert not children_since(before)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc, which tells a process from its remains")
def test_workers_end_with_the_process_that_trains():
    context = multiprocessing.get_context("spawn")
    pids = context.SimpleQueue()
    process = context.Process(target=train_with_a_worker, args=(pids,))
    process.start()
    worker = pids.get()
    process.join()
    for _ in range(100):
        try:
            os.kill(worker, 0)
            with open(f"/proc/{worker}/stat") as file:  # a zombie has ended, whoever inherits it
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {worker} lives on")
