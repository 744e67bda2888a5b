"""Digits on photographs: what is labelled is what was drawn, and nothing of the test set was trained on."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from cnnjax.config_files import load_config
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError


def composites(*settings):
    source = "data.source={kind: digits_on_photographs, train_examples: 24, test_examples: 12}"
    return load(load_config(None, [source, "data.image_size=null", *settings]).data)


def test_shapes_and_classes():
    data = composites("data.source.image_size=48")
    assert data.class_names == ("photograph", *"0123456789")
    for examples, count in ((data.train, 24), (data.test, 12)):
        assert examples.images.shape == (count, 48, 48, 3)
        assert examples.images.dtype == np.uint8
        assert examples.labels.shape == (count, 48, 48)
        assert examples.labels.dtype == np.int32
        assert set(np.unique(examples.labels)) <= set(range(11))
        assert 0.02 < (examples.labels > 0).mean() < 0.5


def test_the_same_config_gives_the_same_bytes_and_another_seed_others():
    first, again, other = composites(), composites(), composites("data.source.source_seed=1")
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.labels, again.test.labels)
    assert (first.train.images != other.train.images).any()


@pytest.mark.parametrize("part", ["train", "test"])
def test_what_has_no_digit_is_a_photograph_of_its_own_side(part):
    photographs = load_sample_images().images
    sides = {
        "train": [photograph[:, :384] for photograph in photographs],
        "test": [photograph[:, 384:] for photograph in photographs],
    }
    rows = {
        side: [np.lib.stride_tricks.sliding_window_view(photograph, (1, 64, 3))[:, :, 0, 0] for photograph in those]
        for side, those in sides.items()
    }

    def occurs(row, side):
        return any((those == row).all((-2, -1)).any() for those in rows[side])

    # A row that no digit touches is one of the photograph's.
    ends = [image[end] for image in getattr(composites(), part).images[:6] for end in (0, -1)]
    other = "test" if part == "train" else "train"
    assert sum(occurs(row, part) for row in ends) >= 4
    assert not any(occurs(row, other) for row in ends)


@pytest.mark.parametrize(("digits", "cells"), [(1, 1), (3, 2), (4, 2), (9, 3)])
def test_each_digit_has_a_cell_of_its_own(digits, cells):
    room = 64 // cells
    for label in composites(f"data.source.digits={digits}", "data.source.train_examples=8").train.labels:
        found = [
            set(np.unique(label[row * room : (row + 1) * room, column * room : (column + 1) * room])) - {0}
            for row in range(cells)
            for column in range(cells)
        ]
        assert sorted(map(len, found)) == [0] * (cells**2 - digits) + [1] * digits
        assert not label[cells * room :].any()


def test_digits_stand_out_from_the_photograph_in_each_primary():
    data = composites("data.source.digits=1")
    for image, label in zip(data.train.images.astype(float), data.train.labels, strict=True):
        difference = np.median(image[label > 0], 0) - image[label == 0].mean(0)
        # A colour is a tenth of the range away from the ground at least, and ink lets no more than 0.6 of that through.
        assert (np.abs(difference) > 0.4 * 25.5).all()


def test_labelled_pixels_form_the_digit():
    data = composites("data.source.digits=1", "data.source.train_examples=200")
    names, pictures = [], []
    for label in data.train.labels:
        rows, columns = np.nonzero(label)
        shape = label[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] > 0
        names.append(label.max() - 1)
        pictures.append(np.asarray(Image.fromarray(np.uint8(255 * shape)).resize((6, 8), Image.Resampling.BILINEAR)))
    names, pictures = np.array(names), np.array(pictures, float).reshape(len(names), -1)
    assert set(names) == set(range(10))
    # The nearest mean shape of the digits, made from one half, names most of the other half.
    half = len(names) // 2
    means = np.stack([pictures[:half][names[:half] == digit].mean(0) for digit in range(10)])
    found = np.square(pictures[half:, None] - means).sum(-1).argmin(1)
    assert (found == names[half:]).mean() > 0.6


def test_resizing_the_images_alone_is_refused():
    with pytest.raises(ConfigError, match=r"^data\.image_size: 32 would part the images from their pixels' classes"):
        composites("data.image_size=32")
    assert composites("data.image_size=64").train.images.shape[1:3] == (64, 64)
