"""Bringing images to a size, and reading them from files of every kind."""

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnjax.data.image_files import read_image
from cnnjax.data.images import fit_images, resize_images
from cnnjax.errors import ConfigError, DataError
from cnnjax.weights.preprocessing import Preprocessing


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (5, 3), (13, 40), (7, 8), (8, 7), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_equals_pillow_image_by_image(monkeypatch, size, channels):
    monkeypatch.setattr("cnnjax.data.images._BLOCK_BYTES", 2000)
    images = random_images(9, 8, 8, channels)
    resized = resize_images(images, *size)
    for image, result in zip(images, resized, strict=True):
        alone = Image.fromarray(image[..., 0] if channels == 1 else image).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(result, np.asarray(alone).reshape(*size, channels))


@pytest.mark.parametrize("own", [(90, 30), (30, 90), (40, 41)])
@pytest.mark.parametrize("size", [(16, 16), (20, 60), (95, 20)])
def test_resize_goes_across_and_then_down_whatever_the_release_of_pillow(own, size):
    """In training as in predicting, or a tall picture would not be the same in both."""
    image = random_images(*own, 3)
    across = Image.fromarray(image).resize((size[1], own[0]), Image.Resampling.BILINEAR)
    down = np.asarray(across.resize(size[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_images(image[None], *size)[0], down)
    np.testing.assert_array_equal(Preprocessing(size=size, fit="stretch").fit_size(image), down)
    at_once = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(at_once.astype(int) - down).max() <= 2


def test_resize_takes_any_number_of_channels():
    images = random_images(4, 8, 8, 5)
    resized = resize_images(images, 12, 6)
    for channel in range(5):
        alone = resize_images(images[..., channel : channel + 1], 12, 6)
        np.testing.assert_array_equal(resized[..., channel : channel + 1], alone)


@pytest.mark.parametrize(
    ("size", "top", "left"), [((32, 32), 2, 2), ((33, 33), 2, 2), ((28, 31), 0, 1), ((29, 28), 0, 0)]
)
def test_pad_centres_with_the_odd_pixel_right_and_below(size, top, left):
    images = random_images(2, 28, 28, 3)
    padded = fit_images(images, size, "pad")
    assert padded.shape == (2, *size, 3)
    np.testing.assert_array_equal(padded[:, top : top + 28, left : left + 28], images)
    assert padded.sum(dtype=int) == images.sum(dtype=int)


def test_images_of_the_right_size_are_left_alone():
    images = random_images(2, 8, 8, 1)
    assert fit_images(images, 8, "pad") is images
    assert fit_images(images, 8, "resize") is images
    with pytest.raises(ConfigError, match="choose an image_size of 8 or more, or fit: resize"):
        fit_images(images, (9, 7), "pad")


def grey_of(mode: str, bright: bool) -> Image.Image:
    """A plain white or black picture in that mode."""
    value = {"I;16": 65535, "I;16B": 65535, "I": 65535, "F": 255.0, "1": 1, "P": 255}.get(mode)
    if value is not None:
        picture = Image.new(mode, (4, 3), value if bright else 0)
        if mode == "P":
            picture.putpalette([level for level in range(256) for _ in range(3)])
        return picture
    return Image.new("RGBA", (4, 3), "white" if bright else "black").convert("RGB").convert(mode)


FORMATS = {
    "1": "png",
    "L": "png",
    "LA": "png",
    "P": "gif",
    "RGB": "png",
    "RGBA": "png",
    "CMYK": "jpg",
    "YCbCr": "tiff",
    "LAB": "tiff",
    "I;16": "png",
    "I;16B": "tiff",
    "I": "tiff",
    "F": "tiff",
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize("mode", FORMATS)
def test_every_mode_has_its_white_and_black(tmp_path, mode, bright, channels):
    path = tmp_path / f"picture.{FORMATS[mode]}"
    grey_of(mode, bright).save(path)
    with Image.open(path) as saved:
        assert saved.mode == mode or mode == "1"
    image = read_image(path, size=None, channels=channels)
    assert image.shape == (3, 4, channels)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, 255 if bright else 0, atol=1)


@pytest.mark.parametrize(("scale", "dtype"), [(257, np.uint16), (1, np.float32), (1 / 255, np.float32)])
def test_more_than_8_bits_are_scaled_not_cut(tmp_path, scale, dtype):
    grey = random_images(6, 5)
    grey[0, 0] = 255
    Image.fromarray((grey * np.float64(scale)).astype(dtype)).save(tmp_path / "deep.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tiff", size=None, channels=1)[..., 0], grey)


@pytest.mark.parametrize("value", [-1.0, 300.0, np.nan, np.inf])
def test_floating_point_beyond_any_white_is_refused(tmp_path, value):
    Image.fromarray(np.array([[0, value]], np.float32)).save(tmp_path / "deep.tiff")
    with pytest.raises(DataError, match=r"deep.tiff' is damaged.* expected 0 to"):
        read_image(tmp_path / "deep.tiff", size=None, channels=1)


def test_colours_keep_their_channels_and_grey_is_luma(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    np.testing.assert_array_equal(read_image(tmp_path / "colours.png", size=None, channels=3), colours)
    grey = read_image(tmp_path / "colours.png", size=None, channels=1)
    np.testing.assert_array_equal(grey[0, :, 0], [76, 150, 29])  # 255 times 0.299, 0.587, 0.114


def transparent_palette() -> Image.Image:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 255, 255, 255, 255, 255])
    picture.putpixel((1, 0), 1)
    picture.info["transparency"] = 0
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(np.array([[[255, 255, 255, 0], [255, 255, 255, 255]]], np.uint8)),
        Image.merge("LA", [Image.new("L", (2, 1), 255), Image.fromarray(np.array([[0, 255]], np.uint8))]),
        transparent_palette(),
    ],
    ids=["RGBA", "LA", "P"],
)
def test_transparent_parts_are_black(tmp_path, picture):
    picture.save(tmp_path / "clear.png")
    image = read_image(tmp_path / "clear.png", size=None, channels=3)
    np.testing.assert_array_equal(image, [[[0, 0, 0], [255, 255, 255]]])


def test_half_transparent_white_is_half_grey(tmp_path):
    Image.new("RGBA", (2, 2), (255, 255, 255, 128)).save(tmp_path / "half.png")
    np.testing.assert_array_equal(read_image(tmp_path / "half.png", size=None, channels=1), 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    upright = random_images(4, 6)
    # What a camera held that way stores: the transformation that undoes the one EXIF asks for.
    stored = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.T,
        6: np.rot90(upright),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("turned.png", "turned.tif"):
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / name, size=None, channels=1)[..., 0], upright)


def test_first_frame_of_several(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200, 90)]
    frames[0].save(tmp_path / "frames.tiff", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "frames.tiff", size=None, channels=1), 10)


@pytest.mark.parametrize(
    ("own", "fit", "shown"),
    [
        ((28, 28), "pad", (2, 2, 28, 28)),
        ((64, 64), "pad", (0, 0, 32, 32)),
        ((64, 32), "pad", (0, 8, 32, 16)),
        ((10, 320), "pad", (15, 0, 1, 32)),
        ((3, 5), "pad", (14, 13, 3, 5)),
        ((64, 32), "resize", (0, 0, 32, 32)),
        ((3, 5), "resize", (0, 0, 32, 32)),
    ],
)
def test_fit_of_a_white_picture(tmp_path, own, fit, shown):
    Image.new("L", own[::-1], 255).save(tmp_path / "white.png")
    top, left, height, width = shown
    expected = np.zeros((32, 32, 1), np.uint8)
    expected[top : top + height, left : left + width] = 255
    np.testing.assert_array_equal(read_image(tmp_path / "white.png", size=32, channels=1, fit=fit), expected)


def test_size_may_be_height_and_width_and_path_a_string(tmp_path):
    Image.new("RGB", (10, 10)).save(tmp_path / "picture.png")
    assert read_image(str(tmp_path / "picture.png"), size=(7, 9), channels=3).shape == (7, 9, 3)


def test_shrinking_averages_instead_of_skipping(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    np.testing.assert_allclose(read_image(tmp_path / "stripes.png", size=8, channels=1), 127.5, atol=8)


def encoded(format_name: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(random_images(40, 40, 3)).save(stream, format_name)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no image at all", "is not an image in a format that Pillow reads"),
        (encoded("PNG")[:1000], "is damaged"),
        (encoded("JPEG")[:1000], "is damaged"),
        (encoded("GIF")[:1000], "is damaged"),
        (encoded("PNG")[:20], "is damaged"),
    ],
    ids=["empty", "text", "png", "jpeg", "gif", "png_header"],
)
def test_files_that_are_no_image(tmp_path, content, message):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_image(path, size=8, channels=3)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"absent.png' cannot be read: No such file"):
        read_image(tmp_path / "absent.png", size=8, channels=3)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_image(tmp_path, size=8, channels=3)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png' is a pipe or a device, expected a file"):
        read_image(tmp_path / "pipe.png", size=8, channels=3)


@pytest.mark.parametrize("limit", [1500, 700])  # once where Pillow would only warn, once where it refuses
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    (tmp_path / "bomb.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=rf"bomb.png' claims more than {limit:,} pixels"):
        read_image(tmp_path / "bomb.png", size=8, channels=3)


def test_other_numbers_of_channels_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not with 4"):
        read_image(tmp_path / "any.png", size=8, channels=4)


FUZZED = [encoded(name) for name in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM")]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(FUZZED), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(0.3, 1)
)
def test_damage_gives_an_image_or_a_data_error(tmp_path_factory, content, changes, kept):
    damaged = bytearray(content)
    for place, value in changes:
        # Squared, for most of the structure stands at the beginning.
        damaged[int(place**2 * (len(damaged) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: int(len(damaged) * kept)])
    fault = None
    try:
        assert read_image(path, size=16, channels=3).shape == (16, 16, 3)
    except DataError as error:
        fault = str(error)
    assert fault is None or str(path) in fault
