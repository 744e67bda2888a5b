"""Image files as examples: read right whatever their kind, broken ones named or left out, in any order alike."""

import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cnnjax.data.files import Decoding, FileExamples, in_memory, in_threads
from cnnjax.data.image_files import read_image, read_mask, upright_size
from cnnjax.errors import CnnjaxWarning, DataError

PHOTOGRAPH = Image.fromarray(load_sample_image("china.jpg"))


def examples(paths, **fields) -> FileExamples:
    numbers = np.arange(len(paths), dtype=np.int32)
    return FileExamples([str(path) for path in paths], numbers, classes=len(paths), decoding=Decoding(16, 3, **fields))


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(6):
        made.append(tmp_path / f"{number}.png")
        PHOTOGRAPH.crop((100 * number, 0, 100 * number + 90, 80)).save(made[-1])
    return made


def test_reads_what_is_asked_for_in_that_order(paths):
    asked = np.array([4, 0, 4, 5])
    read = examples(paths).read(asked)
    assert read.images.dtype == np.uint8
    for image, number in zip(read.images, asked, strict=True):
        np.testing.assert_array_equal(image, read_image(paths[number], size=16, channels=3))
    np.testing.assert_array_equal(read.labels, asked)
    np.testing.assert_array_equal(read.mask, np.ones(4))
    assert examples(paths).read(np.zeros(0, int)).images.shape == (0, 16, 16, 3)


def test_a_broken_file_is_named_or_masked(paths):
    paths[2].write_bytes(paths[2].read_bytes()[:300])
    paths[4].unlink()
    with pytest.raises(DataError, match=r"2.png' is damaged"):  # the first in order, whichever thread fails first
        examples(paths).read(np.arange(6))
    skipping = examples(paths, skip_broken=True)
    with pytest.warns(CnnjaxWarning, match=r"\d.png.*; it is left out") as warned:
        read = skipping.read(np.arange(6))
    assert len(warned) == 2
    np.testing.assert_array_equal(read.mask, [1, 1, 0, 1, 0, 1])
    assert not read.images[[2, 4]].any()
    kept = in_memory(skipping)  # has warned of them already
    np.testing.assert_array_equal(kept.labels, [0, 1, 3, 5])
    np.testing.assert_array_equal(kept.images, read.images[[0, 1, 3, 5]])


def test_nothing_but_broken_files_is_an_error(paths):
    for path in paths:
        path.write_bytes(b"no image")
    with pytest.warns(CnnjaxWarning), pytest.raises(DataError, match=r"0.png' is not an image"):
        in_memory(examples(paths, skip_broken=True))


def test_in_threads_raises_what_the_first_item_raised_and_leaves_the_rest():
    done = []

    def work(item):
        if item in (3, 7):
            raise ValueError(item)
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match=r"^3$"):
        in_threads(work, range(2000))
    assert {0, 1, 2} <= set(done)
    assert len(done) < 1000
    done.clear()
    in_threads(done.append, range(50))
    assert sorted(done) == list(range(50))


@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_scaled_decoding_is_nearly_the_same(tmp_path, fit):
    path = tmp_path / "photo.jpg"
    PHOTOGRAPH.save(path, quality=95)
    whole, scaled = (
        read_image(path, size=64, channels=3, fit=fit, scaled_decoding=each).astype(int) for each in (False, True)
    )
    difference = np.abs(whole - scaled)
    assert 0 < difference.mean() < 1.5
    assert np.percentile(difference, 99) <= 8
    small = [read_image(path, size=400, channels=3, scaled_decoding=each) for each in (False, True)]
    np.testing.assert_array_equal(*small)  # twice that is more than the photograph has


def test_masks_take_the_nearest_pixel_and_frame_with_class_0(tmp_path):
    indices = np.arange(1, 49).reshape(6, 8)
    Image.fromarray(indices.astype(np.uint8)).save(tmp_path / "mask.png")
    read = {fit: read_mask(tmp_path / "mask.png", size=(3, 8), fit=fit) for fit in ("resize", "pad")}
    np.testing.assert_array_equal(read["resize"], indices[1::2])
    np.testing.assert_array_equal(read["pad"], np.pad(indices[1::2, 1::2], ((0, 0), (2, 2))))
    nearest = Image.fromarray(indices.astype(np.uint8)).resize((5, 4), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", size=(4, 5)), np.asarray(nearest))
    wide = indices.astype(np.uint16) * 1000
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "wide.png", size=(6, 8)), wide)
    Image.fromarray(indices.astype(np.uint8)).save(tmp_path / "lossy.png", "JPEG")
    with pytest.raises(DataError, match=r"lossy.png' .* it is a JPEG, which does not keep class indices; expected"):
        read_mask(tmp_path / "lossy.png", size=(6, 8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_size_is_that_of_the_upright_picture(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    PHOTOGRAPH.crop((0, 0, 30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert upright_size(tmp_path / "turned.jpg") == ((20, 30) if orientation < 5 else (30, 20))
    assert read_image(tmp_path / "turned.jpg", size=None, channels=3).shape[:2] == upright_size(tmp_path / "turned.jpg")
