"""Pictures become what the library of the weights makes of them, pixel for pixel."""

import importlib
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from cnnjax.data.image_files import read_image
from cnnjax.data.images import fit_images
from cnnjax.errors import DataError, WeightsError
from cnnjax.weights.preprocessing import Preprocessing
from cnnjax.weights.published import imagenet_labels, published, published_preprocessing


def noise(height, width, channels=3):
    return np.random.default_rng(height + width).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(
    ("own", "top", "left"),
    [((4, 4), 0, 0), ((8, 4), 2, 0), ((4, 9), 0, 2), ((4, 7), 0, 2), ((4, 5), 0, 0)],
)
def test_the_centre_is_cut_out_and_a_half_goes_to_the_even_pixel(own, top, left):
    image = noise(*own)
    found = Preprocessing(size=(4, 4), scale=1.0).apply(image)
    np.testing.assert_array_equal(found, image[top : top + 4, left : left + 4].astype(np.float32))


def test_a_smaller_crop_than_the_shorter_side():
    image = noise(8, 12)
    found = Preprocessing(size=(4, 6), shorter_side=8, scale=1.0).apply(image)
    np.testing.assert_array_equal(found, image[2:6, 3:9].astype(np.float32))


@pytest.mark.parametrize(("rounding", "width"), [("down", 384), ("nearest", 385)])
def test_the_longer_side_becomes_whole_as_asked(rounding, width):
    image = noise(300, 451)
    resized = np.asarray(Image.fromarray(image).resize((width, 256), Image.Resampling.BICUBIC))
    prepared = Preprocessing(size=(224, 224), shorter_side=256, rounding=rounding, interpolation="bicubic", scale=1.0)
    left = round((width - 224) / 2)
    np.testing.assert_array_equal(prepared.apply(image), resized[16:240, left : left + 224].astype(np.float32))


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("shape", [(5, 9, 1), (21, 40, 3), (12, 12, 3), (3, 3, 2)])
def test_a_run_is_shown_the_pictures_that_it_was_trained_on(fit, shape, tmp_path):
    image = noise(*shape)
    found = Preprocessing(size=(12, 12), fit=fit, scale=1.0).apply(image)
    assert found.shape == (12, 12, shape[-1])
    if shape[-1] == 2:
        return
    Image.fromarray(image.squeeze()).save(tmp_path / "image.png")
    expected = read_image(tmp_path / "image.png", size=12, channels=shape[-1], fit="pad" if fit == "pad" else "resize")
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    if fit == "stretch":
        np.testing.assert_array_equal(found, fit_images(image[None], 12, "resize")[0].astype(np.float32))


def test_arithmetic_of_each_kind():
    image = np.full((2, 2, 3), (10, 20, 30), np.uint8)

    def value(name):
        small = {"size": (2, 2), "shorter_side": None}
        return published_preprocessing(name).model_copy(update=small).apply(image)[0, 0]

    imagenet = (np.array([10, 20, 30]) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(value("torchvision/resnet50"), imagenet, rtol=1e-6)
    np.testing.assert_allclose(value("keras/EfficientNetB0"), imagenet, rtol=1e-6)
    np.testing.assert_allclose(value("timm/inception_v4"), np.array([10, 20, 30]) / 127.5 - 1, rtol=1e-6)
    np.testing.assert_allclose(value("keras/Xception"), np.array([10, 20, 30]) / 127.5 - 1, rtol=1e-6)
    np.testing.assert_allclose(value("keras/VGG16"), (30 - 103.939, 20 - 116.779, 10 - 123.68), rtol=1e-6)
    lite = value("efficientnet-lite-pytorch/efficientnet-lite0")
    np.testing.assert_array_equal(lite, (np.array([10, 20, 30]) - 127) / 128)


def test_another_number_of_channels():
    prepared = Preprocessing(size=(2, 2), mean=(0.3, 0.6, 0.9), std=(1.0, 2.0, 3.0))
    assert prepared.for_channels(3) == prepared
    grey = prepared.for_channels(1)
    assert (grey.mean, grey.std) == (pytest.approx(0.6), pytest.approx(2.0))
    five = prepared.for_channels(5)
    assert (five.mean, five.std) == ((0.3, 0.6, 0.9, 0.3, 0.6), (1.0, 2.0, 3.0, 1.0, 2.0))
    assert Preprocessing(size=(2, 2)).for_channels(4).apply(noise(2, 2, 4)).shape == (2, 2, 4)


def test_survives_json():
    for name in ("keras/ResNet50", "timm/resnet50.a1_in1k", "efficientnet-lite-pytorch/efficientnet-lite0"):
        prepared = published_preprocessing(name)
        assert Preprocessing.model_validate_json(prepared.model_dump_json()) == prepared


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4, 3), np.float32), "expected a uint8 array"),
        (np.zeros((4, 4), np.uint8), "expected a uint8 array"),
        (np.zeros((0, 4, 3), np.uint8), "expected a uint8 array"),
        (np.zeros((4, 4, 1), np.uint8), "expected an image of 3 channels, got 1"),
    ],
)
def test_what_is_no_picture_is_refused(image, sentence):
    with pytest.raises(DataError, match=sentence):
        published_preprocessing("timm/resnet50").apply(image)


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(ValidationError, match="shorter_side 4 is smaller than the crop"):
        Preprocessing(size=(8, 8), shorter_side=4)


def test_published_weights_are_found_by_network_and_by_tag():
    default, v1 = (published_preprocessing(f"torchvision/resnet50{tag}") for tag in ("", ".IMAGENET1K_V1"))
    assert (default.shorter_side, v1.shorter_side) == (232, 256)
    assert published("torchvision/resnet50")[0].tags == ("IMAGENET1K_V2",)
    assert published("timm/resnet50")[0].tags[0] == "a1_in1k"
    assert published_preprocessing("keras/MobileNet+alpha0.25_r128").size == (128, 128)
    assert published("pytorchcv/resnet50") == ()
    with pytest.raises(WeightsError, match=r"unknown published weights 'timm/resnet50\.a1_in2k'; did you mean 'timm/"):
        published_preprocessing("timm/resnet50.a1_in2k")


def test_labels_are_the_thousand_of_imagenet():
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    known = {0: "tench", 282: "tiger cat", 285: "Egyptian cat", 657: "missile", 872: "tripod", 999: "toilet tissue"}
    assert {number: labels[number] for number in known} == known


@pytest.fixture
def _across_then_down(monkeypatch):
    """As every Pillow before 13 resizes, with which the weights were made; now and then 13 goes down first."""
    resize = Image.Image.resize

    def in_order(image, size, *args, **options):
        return resize(resize(image, (size[0], image.height), *args, **options), size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", in_order)


PICTURES = [(300, 451), (512, 512), (427, 640), (224, 224), (60, 31), (1000, 20)]


@pytest.mark.parity
@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize(
    "name",
    [
        "resnet50.IMAGENET1K_V1",
        "resnet50.IMAGENET1K_V2",
        "efficientnet_b0.IMAGENET1K_V1",
        "inception_v3.IMAGENET1K_V1",
    ],
)
@pytest.mark.usefixtures("_across_then_down")
def test_equals_torchvision(name, shape):
    torchvision = pytest.importorskip("torchvision")
    image = noise(*shape)
    model, tag = name.split(".")
    expected = torchvision.models.get_model_weights(model)[tag].transforms()(Image.fromarray(image))
    if model == "inception_v3":  # which changes images once more, within the network
        within = types.SimpleNamespace(transform_input=True)
        expected = torchvision.models.Inception3._transform_input(within, expected[None])[0]
    found = published_preprocessing(f"torchvision/{name}").apply(image)
    np.testing.assert_allclose(found, expected.numpy().transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k",
        "inception_v4.tf_in1k",
        "legacy_xception.tf_in1k",
        "tf_efficientnet_b1.ns_jft_in1k",
        "efficientnet_b5.sw_in12k_ft_in1k",
    ],
)
@pytest.mark.usefixtures("_across_then_down")
def test_equals_timm(name, shape):
    timm = pytest.importorskip("timm")
    image = noise(*shape)
    options = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    expected = timm.data.create_transform(**options)(Image.fromarray(image))
    found = published_preprocessing(f"timm/{name}").apply(image)
    np.testing.assert_allclose(found, expected.numpy().transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize(
    ("name", "module"), [("ResNet50", "resnet"), ("InceptionV3", "inception_v3"), ("DenseNet121", "densenet")]
)
def test_equals_keras(name, module, shape, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    image = noise(*shape)
    Image.fromarray(image).save(tmp_path / "image.png")
    prepared = published_preprocessing(f"keras/{name}")
    read = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "image.png", target_size=prepared.size))
    expected = getattr(keras.applications, module).preprocess_input(read)
    np.testing.assert_allclose(prepared.apply(image), expected, atol=1e-5)


@pytest.mark.parity
def test_the_tables_are_those_of_the_libraries(monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "parity")
    tables = importlib.import_module("published_tables")
    assert (tables.FOLDER / "published.txt").read_text() == tables.published_table()
    assert (tables.FOLDER / "imagenet_classes.txt").read_text() == tables.imagenet_classes()
