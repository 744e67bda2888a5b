"""Random-resized crops and centre crops: where they lie, what they show, and that they follow from seed and number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from cnnjax.config import Config
from cnnjax.config_augment import ResizedCrop
from cnnjax.data.crops import draw_crops, random_box
from cnnjax.data.examples import ArrayExamples, ChosenExamples
from cnnjax.data.files import Decoding, FileExamples
from cnnjax.data.image_files import read_image, read_mask
from cnnjax.data.images import fit_images
from cnnjax.data.loader import Shard, TrainBatches
from cnnjax.weights.preprocessing import Preprocessing

PHOTOGRAPH = load_sample_image("flower.jpg")  # 427 high, 640 wide
CROP = ResizedCrop(kind="resized_crop")
sides = st.integers(1, 700)


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(0, 2**32))
def test_boxes_lie_within_and_are_what_was_asked_for(height, width, seed):
    draws = np.random.default_rng(seed).random((10, 4))
    area, aspect = (0.2, 0.6), (0.5, 2.0)
    top, left, box_height, box_width = random_box(height, width, area, aspect, draws)
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert min(box_height, box_width) > 0
    if min(height, width) >= 40 and 0.5 <= width / height <= 2:  # otherwise rounding or the fallback has its say
        assert 0.18 <= box_height * box_width / (height * width) <= 0.62
        assert 0.47 <= box_width / box_height <= 2.1


def test_an_image_that_no_box_fits_gives_its_middle():
    """As torchvision has it: the whole of the shorter side, and the aspect nearest to the image's."""
    draws = np.full((10, 4), 0.5)
    assert random_box(100, 1000, (1.0, 1.0), (0.75, 4 / 3), draws) == (0, 433, 100, 133)
    assert random_box(1000, 100, (1.0, 1.0), (0.75, 4 / 3), draws) == (433, 0, 133, 100)
    assert random_box(120, 100, (1.0, 1.0), (0.75, 4 / 3), draws * 0 + 0.95) == (0, 0, 120, 100)


def test_areas_and_aspects_are_spread_evenly():
    draws = np.random.default_rng(0).random((4000, 10, 4))
    boxes = np.array([random_box(1000, 1000, (0.1, 0.4), (0.5, 2.0), each) for each in draws])
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 1e6, np.log(boxes[:, 3] / boxes[:, 2])
    for values, low, high in ((areas, 0.1, 0.4), (aspects, np.log(0.5), np.log(2))):
        fractions = np.histogram(values, 4, (low, high))[0] / len(boxes)
        np.testing.assert_allclose(fractions, 0.25, atol=0.03)
    assert abs(np.mean((boxes[:, 0] + boxes[:, 2] / 2) / 1000) - 0.5) < 0.01


def test_crops_follow_from_seed_epoch_and_number():
    def boxes(seed, epoch, numbers):
        return [crop(300, 400) for crop in draw_crops(CROP, seed=seed, epoch=epoch, indices=np.array(numbers))]

    first = boxes(1, 2, [5, 3, 9])
    assert boxes(1, 2, [9, 5]) == [first[2], first[0]]
    assert len({*first, *boxes(0, 2, [5]), *boxes(1, 1, [5])}) == 5
    assert draw_crops(None, seed=0, epoch=0, indices=np.arange(3)) is None


@pytest.fixture
def files(tmp_path):
    """Photographs, and masks that hold the red channel's upper bits."""
    names = []
    for number in range(4):
        image = PHOTOGRAPH[50 * number : 50 * number + 200, : 300 + number]
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        Image.fromarray(image[..., 0] // 64).save(tmp_path / f"mask{number}.png")
        names.append((str(tmp_path / f"{number}.png"), str(tmp_path / f"mask{number}.png")))
    return names


def test_files_are_cut_as_pillow_cuts_them_and_masks_follow(files):
    paths, masks = zip(*files, strict=True)
    examples = FileExamples(paths, masks, classes=4, decoding=Decoding(32, 3))
    indices = np.array([3, 1])
    crops = draw_crops(CROP, seed=0, epoch=0, indices=indices)
    read = examples.read(indices, crops)
    for image, label, number, crop in zip(read.images, read.labels, indices, crops, strict=True):
        own = Image.open(paths[number])
        top, left, height, width = crop(own.height, own.width)
        cut = own.crop((left, top, left + width, top + height))
        np.testing.assert_array_equal(image, cut.resize((32, 32), Image.Resampling.BILINEAR))
        cut = Image.open(masks[number]).crop((left, top, left + width, top + height))
        np.testing.assert_array_equal(label, cut.resize((32, 32), Image.Resampling.NEAREST))


def test_arrays_are_cut_like_files():
    images = np.stack([PHOTOGRAPH[:64, 64 * each : 64 * each + 64] for each in range(4)])
    examples = ChosenExamples(ArrayExamples(images, (images[..., 0] // 64).astype(np.int32)), np.arange(3))
    crops = draw_crops(CROP, seed=0, epoch=0, indices=np.arange(3))
    read = examples.read(np.arange(3), crops)
    for number, crop in enumerate(crops):
        top, left, height, width = crop(64, 64)
        for source, found, filtered in ((images, read.images, 2), (images[..., 0] // 64, read.labels, 0)):
            cut = Image.fromarray(source[number, top : top + height, left : left + width])
            np.testing.assert_array_equal(found[number], cut.resize((64, 64), filtered))


def test_training_batches_are_cut_anew_in_each_epoch():
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3)).astype(np.uint8)
    examples = ArrayExamples(images, np.arange(8, dtype=np.int32))
    batches = TrainBatches(examples, batch_size=8, seed=3, shard=Shard(), crop=CROP)
    parts = [TrainBatches(examples, batch_size=8, seed=3, shard=Shard(index, 2), crop=CROP)[1] for index in range(2)]
    whole = batches[1]
    np.testing.assert_array_equal(np.concatenate([part["image"] for part in parts]), whole["image"])
    crops = draw_crops(CROP, seed=3, epoch=1, indices=whole["index"])
    np.testing.assert_array_equal(whole["image"], examples.read(whole["index"], crops).images)
    by_number = [batch["image"][np.argsort(batch["index"])] for batch in (batches[0], whole)]
    assert all(not np.array_equal(one, two) for one, two in zip(*by_number, strict=True))


@pytest.mark.parametrize(("height", "width"), [(427, 640), (640, 427), (300, 301), (64, 64), (32, 50)])
@pytest.mark.parametrize("shorter_side", [None, 37, 64])
def test_centre_crops_are_those_of_weights_preparation(tmp_path, height, width, shorter_side):
    image = np.asarray(Image.fromarray(PHOTOGRAPH).resize((width, height)))
    expected = Preprocessing(size=(32, 32), fit="crop", shorter_side=shorter_side).fit_size(image)
    np.testing.assert_array_equal(fit_images(image[None], 32, "crop", shorter_side)[0], expected)
    Image.fromarray(image).save(tmp_path / "image.png")
    found = read_image(tmp_path / "image.png", size=32, channels=3, fit="crop", shorter_side=shorter_side)
    np.testing.assert_array_equal(found, expected)


def test_masks_follow_centre_crops(tmp_path):
    classes = np.zeros((100, 200), np.uint8)
    classes[:, 80:120], classes[:, 60:80] = 1, 2
    Image.fromarray(classes).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", size=20, fit="crop", shorter_side=25)
    expected = np.zeros((20, 20), int)
    expected[:, 5:15], expected[:, :5] = 1, 2
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_decoding_leaves_enough_of_what_is_cut_out(tmp_path, orientation):
    photograph = Image.fromarray(PHOTOGRAPH)
    exif = photograph.getexif()
    exif[0x0112] = orientation
    photograph.save(tmp_path / "photo.jpg", quality=95, exif=exif)
    upright = (427, 640) if orientation == 1 else (640, 427)
    seen = []

    def crop(height, width):
        seen.append((height, width))
        return height // 4, width // 4, height // 2, width // 2

    images = [
        read_image(tmp_path / "photo.jpg", size=48, channels=3, scaled_decoding=scaled, crop=crop)
        for scaled in (False, True)
    ]
    assert seen == [upright, upright]
    assert (images[0] != images[1]).any()  # 213 of the shorter side are cut out, and twice 48 are needed
    assert np.abs(images[0].astype(int) - images[1]).mean() < 2


def test_scaled_decoding_cuts_out_what_is_cut_out_of_the_mask(tmp_path):
    height, width = 427, 640
    ramp = np.repeat(np.linspace(0, 255, height).astype(np.uint8)[:, None], width, 1)
    Image.fromarray(ramp).save(tmp_path / "image.jpg", quality=95)
    Image.fromarray(ramp).save(tmp_path / "mask.png")
    examples, scaled = (
        FileExamples(
            [str(tmp_path / "image.jpg")], [str(tmp_path / "mask.png")], classes=256,
            decoding=Decoding(48, 1, scaled_decoding=each),
        )
        for each in (False, True)
    )  # fmt: skip
    # The first draw is wider than the whole image by less than a pixel, and does not stick out of a smaller one.
    draws = np.full((10, 4), 0.5)
    draws[0] = (213 * 640.9 / (427 * 640), 1, 0.9, 0.9)

    def crop(height, width):
        return random_box(height, width, (0, 1), (0.1, 640.9 / 213), draws)

    assert crop(height, width)[2:] == (427, 640)
    assert crop(107, 160)[2:] == (53, 160)
    for each in (examples, scaled):
        read = each.read(np.arange(1), [crop])
        assert np.abs(read.images[0, ..., 0].astype(int) - read.labels[0]).max() <= 5


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"augment": [{"kind": "flip"}, {"kind": "resized_crop"}]}, "expected resized_crop first"),
        ({"augment": [{"kind": "resized_crop", "area": [0.5, 1.5]}]}, "parts of the image, of at most 1, got 1.5"),
        ({"shorter_side": 40}, "it is for fit: crop, and fit is resize"),
        ({"fit": "crop", "shorter_side": 20}, "20 is smaller than image_size 32"),
        ({"fit": "crop", "image_size": None}, "fit: crop needs an image_size"),
    ],
)
def test_what_does_not_go_together_is_refused(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config.model_validate({"data": data})
