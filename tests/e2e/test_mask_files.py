"""`cnnjax predict` with a network that gives each pixel a class: a mask beside each picture, and what was found."""

import numpy as np
import pytest
from PIL import Image
from thresholds import threshold_weights

from cnnjax.weights.bundle import save_weights


@pytest.fixture
def weights(tmp_path):
    """A file of weights that tell white from black."""
    save_weights(tmp_path / "weights.safetensors", threshold_weights())
    return tmp_path / "weights.safetensors"


@pytest.fixture
def picture(tmp_path):
    """32 x 64, white in its left half."""
    pixels = np.zeros((32, 64), np.uint8)
    pixels[:, :32] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=100)
    return tmp_path / "photo.jpg"


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def test_a_mask_is_written_and_told(weights, picture, tmp_path, cnnjax):
    outcome = cnnjax("predict", weights, picture, "--out", tmp_path / "masks" / "new").done
    mask = tmp_path / "masks" / "new" / "photo_mask.png"
    assert outcome.out == f"{picture} -> {mask}: ground (50.0%), ink (50.0%)\n"
    assert (read(mask) == [1] * 32 + [0] * 32).all()
    assert read(mask).shape == (32, 64)


def test_the_working_directory_is_the_default(weights, picture, tmp_path, monkeypatch, cnnjax):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "-> photo_mask.png:" in cnnjax("predict", weights, picture).done.out
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["photo_mask.png"]


def test_json_has_the_file_and_the_shares(weights, picture, tmp_path, cnnjax):
    Image.new("L", (5, 7), 255).save(tmp_path / "white.png")
    pictures = (picture, tmp_path / "white.png")
    outcome = cnnjax("predict", weights, *pictures, "--out", tmp_path, "--invert", "--json").done
    assert outcome.json == {
        "predictions": [
            {
                "image": str(picture),
                "mask": str(tmp_path / "photo_mask.png"),
                "shares": [{"class": "ground", "share": 0.5}, {"class": "ink", "share": 0.5}],
                "unlabelled": 0.0,
            },
            {
                "image": str(tmp_path / "white.png"),
                "mask": str(tmp_path / "white_mask.png"),
                "shares": [{"class": "ground", "share": 1.0}],
                "unlabelled": 0.0,
            },
        ]
    }
    assert read(tmp_path / "white_mask.png").shape == (7, 5)


def test_a_margin_is_told_as_well(picture, tmp_path, cnnjax):
    save_weights(tmp_path / "valid.safetensors", threshold_weights(padding="valid"))
    out = cnnjax("predict", tmp_path / "valid.safetensors", picture, "--out", tmp_path).done.out
    # 12 of the network's 16 rows and columns have a class, half of them each.
    assert out.endswith(": ground (28.1%), ink (28.1%), no class (43.8%)\n")
    assert (read(tmp_path / "photo_mask.png")[:4] == 255).all()


def test_what_is_there_stays(weights, picture, tmp_path, cnnjax):
    mask = tmp_path / "photo_mask.png"
    mask.write_bytes(b"mine")
    words = ("predict", weights, picture, "--out", tmp_path)
    assert cnnjax(*words).error == f"'{mask}' exists already; choose another --out, or give --overwrite"
    assert mask.read_bytes() == b"mine"
    Image.new("L", (8, 8)).save(mask)
    before = mask.read_bytes()
    assert "would overwrite the image" in cnnjax(*words, mask, "--overwrite").error
    assert mask.read_bytes() == before
    assert cnnjax(*words, "--overwrite").done
    assert read(mask).shape == (32, 64)


def test_nothing_is_written_where_one_picture_is_damaged(weights, picture, tmp_path, cnnjax):
    (tmp_path / "notes.png").write_text("not a picture")
    error = cnnjax("predict", weights, picture, tmp_path / "notes.png", "--out", tmp_path / "masks").error
    assert error == f"'{tmp_path / 'notes.png'}' is not an image in a format that Pillow reads"
    assert not (tmp_path / "masks").exists()


def test_options_of_the_other_kind_are_refused(weights, picture, bars, tmp_path, cnnjax):
    assert cnnjax("predict", weights, picture, "--top", "2").error.startswith("--top: unet gives each pixel")
    for words in (("--out", tmp_path), ("--overwrite",)):
        error = cnnjax("predict", bars, picture, *words).error
        assert error == "--out, --overwrite: lenet5_modern gives each picture one class, and writes no masks"
    (tmp_path / "file").touch()
    error = cnnjax("predict", weights, picture, "--out", tmp_path / "file").error
    assert error.startswith(f"'{tmp_path / 'file' / 'photo_mask.png'}' cannot be written: ")
