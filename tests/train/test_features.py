"""Features of a whole data set: what the network computes of each example, by hand and in order; faults are told."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from cnnjax.config import Config
from cnnjax.data.image_files import read_image
from cnnjax.errors import CnnjaxWarning, ConfigError, DataError, RunError, WeightsError
from cnnjax.models import create_model
from cnnjax.train.features import Features, extract_features, save_features
from cnnjax.train.state import init_state
from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def weights() -> Weights:
    """A network whose images are prepared as no data set of ours is."""
    fields = {"num_classes": 7, "norm": "batch"}
    state = init_state(create_model("lenet5_modern", **fields), optax.identity(), 0, (32, 32, 3), ema=False)
    preparation = Preprocessing(
        size=(32, 32), shorter_side=37, interpolation="bicubic", order="bgr", mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1)
    )
    return Weights(
        model="lenet5_modern",
        fields=fields,
        input_shape=(32, 32, 3),
        variables={"params": state.params, "batch_stats": state.batch_stats},
        preprocessing=preparation,
    )


@pytest.fixture
def folder(tmp_path):
    """Eleven pieces of a photograph in each of two classes, of differing sizes."""
    photograph = Image.fromarray(load_sample_image("flower.jpg"))
    for place in range(22):
        (tmp_path / "pieces" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        piece = photograph.crop((25 * place, 10 * place, 25 * place + 70, 10 * place + 60 + 3 * place))
        piece.save(tmp_path / "pieces" / "ab"[place % 2] / f"{place}.png")
    return tmp_path / "pieces"


def data_of(folder, **source) -> Config:
    return Config.model_validate(
        {
            "data": {
                "source": {"kind": "folder", "path": str(folder), **source},
                # What a run would train on; not these weights.
                **{"image_size": 12, "fit": "pad", "mean": 0.9, "std": 0.1, "augment": [{"kind": "flip"}]},
            },
            "eval": {"batch_size": 4},
        }
    )


def by_hand(weights: Weights, images, layer: str) -> np.ndarray:
    """The network's own features, of images prepared one by one."""
    inputs = np.stack([weights.preprocessing.apply(image) for image in images])
    outputs = jax.jit(lambda x: weights.network.apply(weights.variables, x, train=False))(inputs)
    return np.asarray(outputs.features[layer]).reshape(len(inputs), -1)


@pytest.mark.parametrize("in_memory", [False, True])
def test_each_file_as_the_weights_want_it_in_order(weights, folder, in_memory):
    found = extract_features(weights, data_of(folder, in_memory=in_memory))
    assert found.class_names == ("a", "b")
    assert (len(found.train_features), len(found.test_features)) == (17, 5)
    parts = {}
    for part, labels, features in (
        ("train", found.train_labels, found.train_features),
        ("test", found.test_labels, found.test_features),
    ):
        assert features.dtype == np.float32
        assert features.shape == (len(labels), 84)
        parts[part] = features
    # The split is the data's own: found again here by which features are whose.
    paths = [path for name in "ab" for path in sorted((folder / name).iterdir(), key=str)]
    expected = by_hand(weights, [read_image(path, size=None, channels=3) for path in paths], "f6")
    places = {
        part: [int(np.abs(expected - row).max(-1).argmin()) for row in features] for part, features in parts.items()
    }
    for part, features in parts.items():
        np.testing.assert_allclose(features, expected[places[part]], atol=1e-5)
        assert places[part] == sorted(places[part])
    assert sorted(places["train"] + places["test"]) == list(range(22))
    np.testing.assert_array_equal(found.train_labels, [place >= 11 for place in places["train"]])
    np.testing.assert_array_equal(found.test_labels, [place >= 11 for place in places["test"]])


def test_grey_arrays_become_colours(weights):
    config = Config.model_validate({"data": {"source": {"kind": "digits"}}, "eval": {"batch_size": 1000}})
    found = extract_features(weights, config)
    digits = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    assert len(found.train_labels) + len(found.test_labels) == len(digits)
    expected = by_hand(weights, [np.stack([digit] * 3, -1) for digit in digits], "f6")
    order = np.lexsort(expected.T)
    both = np.concatenate([found.train_features, found.test_features])
    np.testing.assert_allclose(both[np.lexsort(both.T)].mean(0), expected[order].mean(0), atol=1e-5)
    for row in both[::100]:
        assert np.abs(expected - row).max(-1).min() < 1e-5


def test_a_layers_maps_are_averaged_or_kept(weights, folder):
    kept = extract_features(weights, data_of(folder), layer="s4", maps=True)
    meant = extract_features(weights, data_of(folder), layer="s4")
    assert kept.train_features.shape == (17, 5, 5, 16)
    np.testing.assert_allclose(kept.train_features.mean((1, 2)), meant.train_features, atol=1e-6)
    f6 = extract_features(weights, data_of(folder), layer="f6")
    read = extract_features(weights, data_of(folder))
    np.testing.assert_allclose(np.maximum(f6.test_features, 0), read.test_features, atol=1e-6)


def test_broken_files_are_named_or_left_out(weights, folder):
    for name in ("a/0.png", "b/21.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"\.png' is not an image"):
        extract_features(weights, data_of(folder))
    with pytest.warns(CnnjaxWarning, match="it is left out"):
        found = extract_features(weights, data_of(folder, broken="skip"))
    assert found.skipped == 2
    assert len(found.train_labels) + len(found.test_labels) == 20
    assert len(found.train_features) == len(found.train_labels)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.warns(CnnjaxWarning), pytest.raises(DataError, match="none of its files can be read"):
        extract_features(weights, data_of(folder, broken="skip"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layer": "f66"}, r"layer 'f66': no such layer; did you mean 'f6'\?"),
        ({"maps": True}, r"--maps: keeps the positions of a layer's maps; name the layer with --layer"),
        ({"layer": "output", "maps": True}, r"--maps: the output of 'output' has no positions to keep"),
    ],
)
def test_wrong_layers(weights, folder, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        extract_features(weights, data_of(folder), **options)


def test_what_does_not_go_together(weights):
    composites = {"kind": "digits_on_photographs", "train_examples": 2, "test_examples": 2}
    with pytest.raises(ConfigError, match="a class for each pixel, expected one for each image"):
        extract_features(weights, Config.model_validate({"data": {"source": composites}}))
    synthetic = {"kind": "synthetic", "channels": 4, "train_examples": 16, "test_examples": 16}
    with pytest.raises(ConfigError, match="its images have 4 channels, and lenet5_modern takes 3"):
        extract_features(weights, Config.model_validate({"data": {"source": synthetic}}))
    with pytest.raises(ConfigError, match="has no data of its own; name a config"):
        extract_features(weights)
    with pytest.raises(WeightsError, match="do not say how images are prepared"):
        extract_features(dataclasses.replace(weights, preprocessing=None), Config())
    pixels = create_model("unet_same", levels=2, width=0.125)
    given = init_state(pixels, optax.identity(), 0, (32, 32, 3), ema=False)
    unet = Weights("unet_same", {"levels": 2, "width": 0.125}, (32, 32, 3), {"params": given.params})
    with pytest.raises(ConfigError, match="unet_same gives each pixel a class"):
        extract_features(unet, Config())


def test_an_archive_is_whole_or_not_there(tmp_path, monkeypatch):
    features = Features(*(np.arange(count, dtype=np.float32) for count in (3, 3, 2, 2)), class_names=("a", "é"))
    with pytest.raises(ConfigError, match=r"'.*x.csv': expected a name that ends in .npz"):
        save_features(features, tmp_path / "x.csv")
    save_features(features, tmp_path / "new" / "x.npz")
    with np.load(tmp_path / "new" / "x.npz", allow_pickle=False) as read:
        assert set(read) == {"train_features", "train_labels", "test_features", "test_labels", "class_names"}
        assert list(read["class_names"]) == ["a", "é"]
    before = (tmp_path / "new" / "x.npz").read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device; choose another --out"):
        save_features(features, tmp_path / "new" / "x.npz")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.npz"]
    assert (tmp_path / "new" / "x.npz").read_bytes() == before
