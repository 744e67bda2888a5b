"""Pictures of any size and mode are classified by the weights alone, and what is no picture is named."""

import numpy as np
import pytest
from bars import SIDES, draw_bar
from PIL import Image


def save(picture: np.ndarray, path, mode: str, **options):
    """Saves a black and white picture in a mode that can hold it."""
    grey = Image.fromarray(picture)
    if mode == "I;16":
        image = Image.fromarray(picture.astype(np.uint16) * 257)
    elif mode == "RGBA":
        image = Image.merge("RGBA", (*[Image.new("L", grey.size, 255)] * 3, grey))  # a white bar on nothing
    elif mode == "LA":
        image = Image.merge("LA", (grey, Image.new("L", grey.size, 255)))
    elif mode == "CMYK":
        image = grey.convert("RGB").convert("CMYK")
    else:
        image = grey.convert(mode)
    assert image.mode == mode
    image.save(path, **options)
    return path


@pytest.fixture
def top(bars, cnnjax):
    """The likeliest class of each picture, from JSON."""

    def predict(*words) -> list[dict]:
        found = cnnjax("predict", bars, *words, "--json").done.json
        assert set(found) == {"predictions"}
        return [each["top"][0] for each in found["predictions"]]

    return predict


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "grey.png"),
        ("RGB", "colour.png"),
        ("RGBA", "transparent.png"),
        ("LA", "opaque.png"),
        ("P", "palette.png"),
        ("P", "palette.gif"),
        ("1", "bits.png"),
        ("I;16", "deep.png"),
        ("I;16", "deep.tiff"),
        ("RGB", "photo.jpg"),
        ("CMYK", "print.jpg"),
        ("RGB", "map.bmp"),
        ("RGB", "web.webp"),
    ],
)
def test_a_picture_of_any_mode_is_what_it_shows(mode, name, top, tmp_path):
    pictures = [save(draw_bar(side), tmp_path / f"{side}-{name}", mode) for side in SIDES]
    reference = [save(draw_bar(side), tmp_path / f"{side}.png", "L") for side in SIDES]
    answers = top(*pictures, *reference)
    lossless = not name.endswith((".jpg", ".webp"))
    for side, found, expected in zip(SIDES, answers[:4], answers[4:], strict=True):
        assert found["class"] == expected["class"] == side
        assert found["probability"] == pytest.approx(expected["probability"], abs=1e-6 if lossless else 0.02)


@pytest.mark.parametrize("size", [(12, 12), (33, 65), (400, 300), (1000, 20)])
def test_a_picture_of_any_size_is_what_it_shows(size, top, tmp_path):
    pictures = [save(draw_bar(side, *size), tmp_path / f"{side}.png", "L") for side in SIDES]
    assert [each["class"] for each in top(*pictures)] == list(SIDES)


def test_a_single_pixel_is_a_picture_too(top, tmp_path):
    assert top(save(np.full((1, 1), 9, np.uint8), tmp_path / "pixel.png", "L"))[0]["class"] in SIDES


def test_a_turned_photo_is_looked_at_upright(top, tmp_path):
    upright = save(draw_bar("left", 64, 64), tmp_path / "upright.jpg", "L", quality=100)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(draw_bar("left", 64, 64))))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    turned.save(tmp_path / "turned.jpg", quality=100, exif=exif)
    turned.save(tmp_path / "as it lies.jpg", quality=100)
    found, expected, without = top(tmp_path / "turned.jpg", upright, tmp_path / "as it lies.jpg")
    assert found["class"] == expected["class"] == "left"
    assert found["probability"] == pytest.approx(expected["probability"], abs=1e-3)
    assert without["class"] == "bottom"


def test_dark_on_light_is_inverted_on_request(top, tmp_path):
    path = save(255 - draw_bar("left"), tmp_path / "ink.png", "L")
    assert top(path, "--invert")[0]["class"] == "left"


@pytest.mark.parametrize(("asked", "got"), [(1, 1), (3, 3), (4, 4), (50, 4)])
def test_so_many_classes_are_shown_as_there_are(asked, got, bars, tmp_path, cnnjax):
    path = save(draw_bar("top"), tmp_path / "bar.png", "L")
    (found,) = cnnjax("predict", bars, path, "--top", str(asked), "--json").done.json["predictions"]
    assert found["image"] == str(path)
    assert [set(each) for each in found["top"]] == [{"class", "probability"}] * got
    probabilities = [each["probability"] for each in found["top"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) <= 1 + 1e-6
    assert got < 4 or sum(probabilities) == pytest.approx(1)
    assert found["top"][0]["class"] == "top"


def test_the_table_keeps_every_name_whole(bars, tmp_path, cnnjax):
    name = f"[red]{'long ' * 30}.png"
    save(draw_bar("top"), tmp_path / name, "L")
    lines = cnnjax("predict", bars, tmp_path / name, "--top", "2").done.out.splitlines()
    row = next(line for line in lines if str(tmp_path / name) in line)
    assert " top " in row
    assert row.endswith("%")


def test_another_checkpoint_may_be_asked(bars, tmp_path, cnnjax):
    path = save(draw_bar("top"), tmp_path / "bar.png", "L")
    answers = [
        cnnjax("predict", bars, path, "--checkpoint", which, "--json").done.json for which in ("20", "40", "last")
    ]
    assert answers[0] != answers[1] == answers[2]


@pytest.mark.parametrize("cut", [0, 5, 20, 2000], ids=["empty", "in the signature", "in the header", "in the pixels"])
def test_a_damaged_picture_is_named(cut, bars, tmp_path, cnnjax):
    good = save(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), tmp_path / "good.png", "L")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:cut])
    error = cnnjax("predict", bars, good, tmp_path / "cut.png").error
    assert f"'{tmp_path / 'cut.png'}' is " in error
    assert cnnjax("predict", bars, good).done


def test_what_is_no_picture_is_named(bars, tmp_path, cnnjax):
    (tmp_path / "notes.png").write_text("not a picture")
    assert cnnjax("predict", bars, tmp_path / "notes.png").error == (
        f"'{tmp_path / 'notes.png'}' is not an image in a format that Pillow reads"
    )
    assert cnnjax("predict", bars, tmp_path / "none.png").error == (
        f"image '{tmp_path / 'none.png'}' cannot be read: No such file or directory"
    )
    assert cnnjax("predict", bars, tmp_path).error == f"image '{tmp_path}' cannot be read: Is a directory"
    assert cnnjax("predict", tmp_path, tmp_path / "notes.png").error == (
        f"{tmp_path} is not a run folder: it has no config.yaml"
    )
