"""Pictures of what a network looks at: that they are written, of what was asked, and that faults are told."""

import numpy as np
import optax
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cnnjax.errors import ConfigError, RunError, WeightsError
from cnnjax.models import create_model
from cnnjax.train.explain import draw_attributions, draw_filters, draw_maps
from cnnjax.train.state import init_state
from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def weights() -> Weights:
    fields = {"num_classes": 3, "norm": "batch"}
    state = init_state(create_model("lenet5_modern", **fields), optax.identity(), 0, (32, 32, 3), ema=False)
    return Weights(
        model="lenet5_modern",
        fields=fields,
        input_shape=(32, 32, 3),
        variables={"params": state.params, "batch_stats": state.batch_stats},
        preprocessing=Preprocessing(size=(32, 32), fit="stretch", mean=0.4, std=0.3),
        labels=("cat", "dog", "fish"),
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(folder / f"{name}.jpg")
    return [folder / "china.jpg", folder / "flower.jpg"]


def test_a_line_for_each_image(weights, pictures, tmp_path):
    told = draw_attributions(weights, pictures, tmp_path / "new" / "two.png")
    assert [each["image"] for each in told] == [str(path) for path in pictures]
    assert all(each["class"] in weights.labels and 1 / 3 <= each["probability"] <= 1 for each in told)
    draw_attributions(weights, pictures[:1], tmp_path / "one.png", class_asked="fish", layer="c1")
    two, one = (Image.open(tmp_path / name) for name in ("new/two.png", "one.png"))
    assert two.width == one.width
    assert two.height > 1.5 * one.height
    assert np.asarray(one.convert("L")).std() > 20


def test_a_class_may_be_asked_by_name_or_number(weights, pictures, tmp_path):
    for asked in ("fish", "2"):
        (told,) = draw_attributions(weights, pictures[:1], tmp_path / "x.svg", class_asked=asked, layer="s2")
        assert (told["class"], told["layer"]) == ("fish", "s2")


def test_filters_and_maps(weights, pictures, tmp_path):
    draw_filters(weights, tmp_path / "filters.png")
    assert draw_maps(weights, pictures[0], tmp_path / "maps.png") == "c1"
    assert draw_maps(weights, pictures[0], tmp_path / "maps.png", layer="s2") == "s2"
    for name in ("filters.png", "maps.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 20


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"class_asked": "fisch"}, r"--class 'fisch': no such class; did you mean 'fish'\?"),
        ({"class_asked": "3"}, r"--class '3': no such class; known: cat, dog, fish"),
        ({"layer": "c11"}, r"layer 'c11': no such layer; did you mean 'c1'\?"),
        ({"layer": "output"}, r"layer 'output': its output has no positions, expected a layer of maps such as s4"),
    ],
)
def test_wrong_questions(weights, pictures, tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        draw_attributions(weights, pictures[:1], tmp_path / "x.png", **options)
    assert not list(tmp_path.iterdir())


def test_maps_have_positions_and_a_picture_has_an_end(weights, pictures, tmp_path):
    with pytest.raises(ConfigError, match="layer 'output': its output has no positions"):
        draw_maps(weights, pictures[0], tmp_path / "x.png", layer="output")
    with pytest.raises(ConfigError, match="expected 200 images at most for one picture, got 201"):
        draw_attributions(weights, pictures[:1] * 201, tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written: Not a directory; choose another --out"):
        draw_filters(weights, tmp_path / "file" / "new" / "x.png")


def test_what_cannot_be_explained(weights, pictures, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a name that ends in .png, .pdf, .svg"):
        draw_filters(weights, tmp_path / "x.jpg")
    unprepared = Weights(weights.model, weights.fields, weights.input_shape, weights.variables)
    with pytest.raises(WeightsError, match="do not say how images are prepared"):
        draw_attributions(unprepared, pictures, tmp_path / "x.png")
