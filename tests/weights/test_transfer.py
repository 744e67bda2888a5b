"""Weights go in and out without a bit lost, and what does not fit is refused unless it is allowed."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from random_weights import SHAPE, assert_same, cifar_weights, images, logits, random_variables

from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import create_model
from cnnjax.weights.bundle import Weights, load_weights, save_weights
from cnnjax.weights.convert import to_peer
from cnnjax.weights.files import read_arrays, write_arrays
from cnnjax.weights.published import imagenet_labels
from cnnjax.weights.transfer import export_weights, import_weights, inspect_file

PEER = "pytorchcv/resnet20_cifar10"
# A network of torchvision's, so narrow that it is quick; only its names are torchvision's.
NARROW = {"width": 0.125}


@functools.cache
def narrow_arrays(classes=1000, channels=3):
    network = create_model("torchvision/resnet18", **NARROW, num_classes=classes)
    return to_peer("torchvision/resnet18", random_variables(network, (224, 224, channels)))


def test_our_own_file_holds_all_that_there_is(tmp_path):
    weights = cifar_weights()
    save_weights(tmp_path / "own.safetensors", weights)
    found = load_weights(tmp_path / "own.safetensors")
    assert_same(found.arrays, weights.arrays)
    for name in ("model", "input_shape", "preprocessing", "labels", "origin", "network"):
        assert getattr(found, name) == getattr(weights, name), name
    np.testing.assert_array_equal(logits(found, images(SHAPE)), logits(weights, images(SHAPE)))
    with safetensors.safe_open(tmp_path / "own.safetensors", framework="numpy") as file:
        description = json.loads(file.metadata()["cnnjax"])
        assert "stage1/block1/conv1/conv/kernel" in file.keys()  # noqa: SIM118 -- no mapping
    assert description["format"] == 1
    assert description["fields"] == {"num_classes": 10}
    assert description["preprocessing"]["mean"] == [0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"model": "cifar_resnet21_b"},
            "is of a network that is not here: unknown model 'cifar_resnet21_b'",
        ),
        ({"fields": {"num_clases": 10}}, "is of a network that is not here: .*did you mean 'num_classes'"),
        ({"fields": {"num_classes": 11}}, r"2 mis-shaped \(head/bias: \(11,\) here, \(10,\) there"),
        ({"model": "cifar_resnet32_b"}, r"does not fit: .* missing"),
        ({"format": 2}, "has format 2, this version reads 1; update cnnjax"),
        ({"labels": 3}, r"its metadata cannot be understood \(1 faults\)"),
    ],
)
def test_our_own_file_of_something_else_is_refused(change, sentence, tmp_path):
    weights = cifar_weights()
    metadata = {"cnnjax": json.dumps({**weights.describe(), **change})}
    write_arrays(tmp_path / "own.safetensors", weights.arrays, metadata=metadata)
    with pytest.raises(WeightsError, match=sentence) as raised:
        load_weights(tmp_path / "own.safetensors")
    assert "\n" not in str(raised.value)


def test_another_librarys_file_is_not_ours(tmp_path):
    export_weights(cifar_weights(), tmp_path / "theirs.safetensors", PEER)
    with pytest.raises(WeightsError, match="does not say which network it is of; 'cnnjax weights import"):
        load_weights(tmp_path / "theirs.safetensors")
    with pytest.raises(WeightsError, match=r"our own weights are written as \.safetensors"):
        save_weights(tmp_path / "own.pth", cifar_weights())


def test_out_and_in_again_bit_for_bit(tmp_path):
    export_weights(cifar_weights(), tmp_path / "theirs.safetensors", PEER)
    theirs = read_arrays(tmp_path / "theirs.safetensors")
    assert theirs.metadata == {"format": "pt"}
    assert theirs.arrays["features.stage1.unit1.body.conv1.conv.weight"].shape == (16, 16, 3, 3)
    imported = import_weights(PEER, tmp_path / "theirs.safetensors", prepared_as="timm/resnet50.tv_in1k")
    assert_same(imported.weights.arrays, cifar_weights().arrays)
    assert imported.report.missing == imported.report.unexpected == imported.report.mis_shaped == ()
    assert imported.weights.origin == f"theirs.safetensors, {PEER}"
    assert imported.weights.preprocessing.interpolation == "bilinear"
    export_weights(imported.weights, tmp_path / "again.safetensors", PEER)
    assert_same(read_arrays(tmp_path / "again.safetensors").arrays, theirs.arrays)


def test_what_nobody_published_says_so(tmp_path):
    export_weights(cifar_weights(), tmp_path / "x.safetensors", PEER)
    imported = import_weights(PEER, tmp_path / "x.safetensors")
    assert imported.weights.preprocessing is None
    assert imported.weights.labels == ()
    (note,) = imported.notes
    assert note.startswith(f"how images are prepared for {PEER} is not known")


def test_published_kinds_bring_preparation_and_labels(tmp_path):
    write_arrays(tmp_path / "x.safetensors", narrow_arrays())
    imported = import_weights("torchvision/resnet18", tmp_path / "x.safetensors", fields=NARROW)
    assert imported.weights.labels == imagenet_labels()
    assert imported.weights.preprocessing.shorter_side == 256
    assert imported.weights.input_shape == (224, 224, 3)
    assert imported.notes == ()
    # timm's default preparation is not that of all its published weights: that is told.
    imported = import_weights("timm/resnet18", tmp_path / "x.safetensors", fields=NARROW)
    (note,) = imported.notes
    assert note.startswith("images are prepared as for timm/resnet18.a1_in1k; of its other published weights a3_in1k,")
    chosen = "timm/resnet18.a3_in1k"
    imported = import_weights("timm/resnet18", tmp_path / "x.safetensors", fields=NARROW, prepared_as=chosen)
    assert imported.weights.input_shape == (224, 224, 3)
    assert imported.weights.preprocessing.size == (160, 160)
    assert imported.notes == ("images are prepared as for timm/resnet18.a3_in1k",)


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


def test_what_does_not_fit_is_refused_unless_each_is_allowed(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = without(narrow_arrays(), "layer1.0.conv1.weight")
    arrays |= {"fc.extra": np.ones(3, np.float32), "bn1.weight": np.ones(5, np.float32)}
    write_arrays(path, arrays)

    def load(*allow):
        return import_weights("torchvision/resnet18", path, fields=NARROW, allow=allow)

    missing, unexpected, wrong = "stage1/block1/conv1/conv/kernel", "fc.extra", "stem/norm/scale"
    with pytest.raises(WeightsError, match=rf"1 missing \({missing}\)"):
        load()
    with pytest.raises(WeightsError, match=rf"1 unexpected \({unexpected}\)"):
        load(missing)
    with pytest.raises(WeightsError, match=rf"1 mis-shaped \({wrong}: \(8,\) here, \(5,\) as 'bn1.weight' there\)"):
        load(missing, "fc.*")
    imported = load("stage1/*", "fc.*", wrong)
    assert imported.report.missing == (missing,)
    assert imported.report.unexpected == (unexpected,)
    assert {note.partition(" ")[0] for note in imported.notes} == {"allowed:"}
    expected = {**narrow_arrays(), "bn1.weight": None, "layer1.0.conv1.weight": None}
    found = to_peer("torchvision/resnet18", imported.weights.variables)
    assert_same(found, expected, but=("bn1.weight", "layer1.0.conv1.weight"))
    np.testing.assert_array_equal(found["bn1.weight"], np.ones(8))  # as the network begins
    kernel = found["layer1.0.conv1.weight"]
    assert kernel.shape == (8, 8, 3, 3)
    assert 0 < kernel.std() < 1
    assert_same(load("*").weights.arrays, imported.weights.arrays)  # the same seed


def test_another_number_of_classes_swaps_the_head(tmp_path):
    write_arrays(tmp_path / "x.safetensors", narrow_arrays())
    load = functools.partial(import_weights, "torchvision/resnet18", tmp_path / "x.safetensors", fields=NARROW)
    imported = load(classes=7)
    network = imported.weights.network
    assert network.num_classes == 7
    assert imported.weights.labels == ()
    assert "head/bias, head/kernel: new, for 7 classes in place of 1000" in imported.notes
    found = imported.weights.arrays
    assert found["head/kernel"].shape == (64, 7)
    assert 0 < found["head/kernel"].std() < 1
    assert_same(found, load().weights.arrays, but=("head/kernel", "head/bias"))
    assert_same(found, load(classes=7).weights.arrays)
    assert not np.array_equal(found["head/kernel"], load(classes=7, seed=1).weights.arrays["head/kernel"])
    assert load(classes=2, labels=("cat", "dog")).weights.labels == ("cat", "dog")
    with pytest.raises(WeightsError, match="expected 3 labels, got 2"):
        load(classes=3, labels=("cat", "dog"))
    export_weights(imported.weights, tmp_path / "own.safetensors")
    assert_same(load_weights(tmp_path / "own.safetensors").arrays, found)


def test_a_file_for_the_asked_sizes_is_taken_as_it_is(tmp_path):
    write_arrays(tmp_path / "x.safetensors", narrow_arrays(classes=7, channels=1))
    load = functools.partial(import_weights, "torchvision/resnet18", tmp_path / "x.safetensors", fields=NARROW)
    with pytest.raises(WeightsError, match="3 mis-shaped"):
        load()
    with pytest.raises(WeightsError, match=r"1 mis-shaped \(stem/conv/kernel"):
        load(classes=7)
    imported = load(classes=7, channels=1)
    assert imported.notes == ()
    assert imported.weights.labels == ()
    assert imported.weights.input_shape == (224, 224, 1)
    assert imported.weights.preprocessing.mean == pytest.approx(0.449)
    assert_same(to_peer("torchvision/resnet18", imported.weights.variables), narrow_arrays(7, 1))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"shortcut": "identity"}, "shortcut is 'identity', there 'projection'"),
        ({"activation": "gelu"}, "activation is 'gelu', there 'relu'"),
        ({"stem": "imagenet", "width": 2.0}, "width is 2.0, there 1.0"),
    ],
)
def test_another_network_is_not_exported_under_the_librarys_name(fields, sentence, tmp_path):
    network = create_model("cifar_resnet20_b", **fields)
    weights = Weights("cifar_resnet20_b", fields, SHAPE, random_variables(network, SHAPE))
    with pytest.raises(WeightsError, match=sentence):
        export_weights(weights, tmp_path / "x.safetensors", PEER)
    lenet = Weights("lenet5", {}, (32, 32, 1), {})
    with pytest.raises(WeightsError, match="it is a LeNet5, there it is a ResNet"):
        export_weights(lenet, tmp_path / "x.safetensors", PEER)
    assert list(tmp_path.iterdir()) == []


def test_what_only_training_knows_does_not_hinder(tmp_path):
    fields = {"num_classes": 10, "stochastic_depth": 0.3, "dropout": 0.2, "norm_momentum": 0.99, "remat": True}
    weights = dataclasses.replace(cifar_weights(), fields=fields)
    export_weights(weights, tmp_path / "x.safetensors", PEER)
    assert_same(import_weights(PEER, tmp_path / "x.safetensors").weights.arrays, weights.arrays)


def test_keras_names_and_files(tmp_path):
    peer = "keras/MobileNet+alpha0.25_r128"
    fields = {"width": 0.25}
    network = create_model("mobilenet_v1", **fields)
    weights = Weights("mobilenet_v1", fields, (128, 128, 3), random_variables(network, (128, 128, 3)))
    export_weights(weights, tmp_path / "x.weights.h5", peer)
    export_weights(weights, tmp_path / "x.safetensors", peer)
    for name in ("x.weights.h5", "x.safetensors"):
        imported = import_weights(peer, tmp_path / name)
        assert_same(imported.weights.arrays, weights.arrays)
        assert imported.weights.preprocessing.size == (128, 128)
        assert imported.weights.labels[0] == "tench"
    with pytest.raises(WeightsError, match=r"written as \.safetensors or \.weights\.h5"):
        export_weights(weights, tmp_path / "x.pth", peer)
    with pytest.raises(WeightsError, match=r"written as \.safetensors, \.pth or \.pt"):
        export_weights(cifar_weights(), tmp_path / "y.weights.h5", PEER)


@pytest.mark.parametrize(
    ("variance", "std"), [((0.04, 0.09, 0.16), (0.2, 0.3, 0.4)), ((0.229, 0.224, 0.225), (0.229, 0.224, 0.225))]
)
def test_the_layer_of_keras_that_normalises_becomes_the_preparation(variance, std, tmp_path):
    peer, fields = "keras/EfficientNetB0", {"depth": 0.25}
    network = create_model("efficientnet_b0", **fields)
    arrays = to_peer(peer, random_variables(network, (224, 224, 3)))
    arrays |= {"normalization/mean": np.array([0.1, 0.2, 0.3], np.float32), "normalization/count": np.array(0)}
    arrays["normalization/variance"] = np.array(variance, np.float32)
    write_arrays(tmp_path / "x.safetensors", arrays)
    imported = import_weights(peer, tmp_path / "x.safetensors", fields=fields)
    assert imported.weights.preprocessing.mean == (0.1, 0.2, 0.3)
    assert imported.weights.preprocessing.std == std
    assert inspect_file(tmp_path / "x.safetensors", peer)[1].unexpected == ()


def test_inspecting_tells_what_does_not_fit(tmp_path):
    write_arrays(tmp_path / "x.safetensors", {**narrow_arrays(), "other": np.ones(1)})
    file, report = inspect_file(tmp_path / "x.safetensors", "torchvision/resnet18")
    assert report.unexpected == ("other",)
    assert report.missing == ()
    assert len(report.mis_shaped) == len(narrow_arrays()) - 1  # the head's bias fits
    assert file.arrays.keys() == {*narrow_arrays(), "other"}
    assert inspect_file(tmp_path / "x.safetensors")[1] is None


def test_an_unknown_network_is_told_with_the_nearest(tmp_path):
    for call in (
        lambda: import_weights("timm/resnet51", tmp_path / "x.safetensors"),
        lambda: export_weights(cifar_weights(), tmp_path / "x.safetensors", "timm/resnet51"),
        lambda: inspect_file(tmp_path / "x.safetensors", "timm/resnet51"),
    ):
        with pytest.raises(ConfigError, match="unknown network of another library 'timm/resnet51'; did you mean '"):
            call()
