"""Each pixel of a mask is the class of what lies there in the picture, whatever its size and its preparation."""

import numpy as np
import pytest
from PIL import Image
from thresholds import threshold_weights

from cnnjax.errors import ConfigError, DataError, WeightsError
from cnnjax.train.masks import NO_CLASS, Mask, mask_files, place_back, write_mask
from cnnjax.train.predict import predict, predict_masks
from cnnjax.weights.bundle import save_weights
from cnnjax.weights.preprocessing import Preprocessing


def draw(height: int, width: int) -> np.ndarray:
    """(height, width, 1) uint8: white in the upper left quarter."""
    picture = np.zeros((height, width, 1), np.uint8)
    picture[: height // 2, : width // 2] = 255
    return picture


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (64, 16), (16, 96), (8, 4)])
def test_a_mask_has_the_size_and_the_shapes_of_its_picture(size):
    picture = draw(*size)
    (mask,) = predict_masks(threshold_weights(), [picture])
    np.testing.assert_array_equal(mask.classes, picture[..., 0] // 255)
    assert mask.classes.dtype == np.uint8
    assert mask.shares == {"ground": 0.75, "ink": 0.25}
    assert mask.unlabelled == 0


def test_pictures_of_several_sizes_have_a_mask_each_in_their_order(tmp_path):
    Image.fromarray(draw(40, 20)[..., 0]).save(tmp_path / "file.png")
    masks = predict_masks(threshold_weights(), [draw(16, 16), tmp_path / "file.png"])
    assert [mask.classes.shape for mask in masks] == [(16, 16), (40, 20)]
    assert [mask.image for mask in masks] == ["array", str(tmp_path / "file.png")]


@pytest.mark.parametrize("size", [(16, 16), (10, 7), (32, 32), (48, 24), (5, 64)])
def test_a_padded_picture_is_cut_out_of_its_frame(size):
    picture = draw(*size)
    (mask,) = predict_masks(threshold_weights(fit="pad"), [picture])
    assert mask.classes.shape == size
    assert NO_CLASS not in mask.classes
    # Shrinking may move an edge by half a pixel of the network's, here up to two of the picture's.
    inside, outside = mask.classes[: size[0] // 2 - 2, : size[1] // 2 - 2], mask.classes[size[0] // 2 + 2 :]
    assert inside.all()
    assert not outside.any()
    if max(size) <= 16:
        np.testing.assert_array_equal(mask.classes, picture[..., 0] // 255)


def test_a_pixel_has_the_class_that_its_middle_lies_in():
    found = np.tile(np.arange(16, dtype=np.uint8), (16, 1))
    placed = place_back(found, (2, 5), Preprocessing(size=(16, 16), fit="stretch"))
    # Middles at 1.6, 4.8, 8.0, 11.2 and 14.4 of the network's columns.
    np.testing.assert_array_equal(placed, [[1, 4, 8, 11, 14]] * 2)


@pytest.mark.parametrize("scale", [1, 2])
def test_without_padding_the_margin_has_no_class(scale):
    picture = draw(16 * scale, 16 * scale)
    (mask,) = predict_masks(threshold_weights(padding="valid"), [picture])
    margin = 2 * scale
    np.testing.assert_array_equal(
        mask.classes[margin:-margin, margin:-margin], picture[margin:-margin, margin:-margin, 0] // 255
    )
    mask.classes[margin:-margin, margin:-margin] = NO_CLASS
    assert (mask.classes == NO_CLASS).all()


def test_shares_are_of_all_pixels_and_the_most_frequent_comes_first():
    classes = np.array([[2, 2, 0, NO_CLASS], [2, 0, 1, NO_CLASS]], np.uint8)
    mask = Mask("picture", classes, ("a", "b", "c", "d"))
    assert list(mask.shares.items()) == [("c", 3 / 8), ("a", 2 / 8), ("b", 1 / 8)]
    assert mask.unlabelled == 2 / 8


def test_inverting_swaps_the_classes_and_outputs_without_a_name_have_a_number():
    (mask,) = predict_masks(threshold_weights(), [draw(16, 16)], invert=True)
    assert mask.shares == {"ink": 0.75, "ground": 0.25}
    assert mask.names == ("ground", "ink", "class 2")


def test_a_file_of_weights_gives_the_same_mask(tmp_path):
    save_weights(tmp_path / "weights.safetensors", threshold_weights())
    (mask,) = predict_masks(tmp_path / "weights.safetensors", [draw(32, 32)])
    np.testing.assert_array_equal(mask.classes, draw(32, 32)[..., 0] // 255)


def test_a_mask_is_written_with_its_classes_and_in_colours(tmp_path):
    classes = np.array([[0, 1, 2], [3, 21, NO_CLASS]], np.uint8)
    write_mask(tmp_path / "new" / "mask.png", Mask("picture", classes, ()))
    with Image.open(tmp_path / "new" / "mask.png") as image:
        assert (image.format, image.mode) == ("PNG", "P")
        np.testing.assert_array_equal(np.asarray(image), classes)
        # The PASCAL VOC data set's own, from its devkit.
        colours = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (128, 64, 128), (224, 224, 192)]
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")).reshape(-1, 3), colours)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"mask\.png' cannot be written"):
        write_mask(tmp_path / "file" / "mask.png", Mask("picture", classes, ()))


def test_masks_overwrite_nothing_that_was_not_offered(tmp_path):
    assert mask_files(["a.png", tmp_path / "b.c.jpg"], tmp_path, overwrite=False) == [
        tmp_path / "a_mask.png",
        tmp_path / "b.c_mask.png",
    ]
    (tmp_path / "a_mask.png").touch()
    with pytest.raises(ConfigError, match=r"a_mask\.png' exists already"):
        mask_files(["a.png"], tmp_path, overwrite=False)
    assert mask_files(["a.png"], tmp_path, overwrite=True) == [tmp_path / "a_mask.png"]
    with pytest.raises(ConfigError, match="would overwrite the image"):
        mask_files([tmp_path / "a.png", tmp_path / "a_mask.png"], tmp_path, overwrite=True)
    with pytest.raises(ConfigError, match="would both be"):
        mask_files(["one/a.png", "two/a.jpg"], tmp_path, overwrite=True)


def test_what_cannot_be_is_one_sentence():
    weights = threshold_weights()
    with pytest.raises(ConfigError, match=r"^unet gives each pixel a class, not the image; predict_masks finds them$"):
        predict(weights, [draw(16, 16)])
    with pytest.raises(ConfigError, match=r"^a mask holds 255 classes at most; unet has 256$"):
        predict_masks(threshold_weights(num_classes=256), [draw(16, 16)])
    with pytest.raises(DataError, match=r"^expected a uint8 array .* got uint8 of shape \(4, 4, 3\)$"):
        predict_masks(weights, [np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(WeightsError, match="do not say how images are prepared"):
        predict_masks(threshold_weights(fit=None), [draw(16, 16)])
    with pytest.raises(ConfigError, match="cuts parts of it away"):
        place_back(np.zeros((16, 16), np.uint8), (16, 16), Preprocessing(size=(16, 16), fit="crop"))
