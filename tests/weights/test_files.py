"""Arrays come back from files as they went in, and a file that is not what it should be is told in a sentence."""

import errno
import pickle
import sys
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cnnjax.errors import WeightsError
from cnnjax.weights.files import read_arrays, write_arrays
from cnnjax.weights.keras_layers import layers_by_class

PARITY = pytest.mark.parity  # needs PyTorch
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def some_arrays():
    random = np.random.default_rng(0)
    return {
        "a.weight": random.normal(size=(4, 3, 2, 2)).astype(np.float32).transpose(2, 3, 1, 0),  # not contiguous
        "a.bias": random.normal(size=4).astype(np.float32),
        "count": np.array(7),
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("kind", [".safetensors", *(pytest.param(kind, marks=PARITY) for kind in (".pth", ".pt"))])
def test_there_and_back(kind, tmp_path):
    path = tmp_path / f"file{kind}"
    write_arrays(path, some_arrays(), metadata={"key": "value"})
    found = read_arrays(path)
    assert_same(found.arrays, some_arrays())
    assert found.metadata == ({"key": "value"} if kind == ".safetensors" else {})
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_bfloat16_is_widened(tmp_path):
    array = np.array([1.0, -2.5, 3e38], np.float32).astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"a": array, "b": np.ones(2, np.float16)}, tmp_path / "x.safetensors")
    found = read_arrays(tmp_path / "x.safetensors").arrays
    assert_same(found, {"a": array.astype(np.float32), "b": np.ones(2, np.float16)})


def resnet_layers():
    """A few of ResNet50's, not in their order, with the number of dimensions of each array."""
    layers = ("conv2_block1_3", "conv2_block1_0", "conv2_block10_1", "conv2_block1_1", "conv2_block2_1", "conv1")
    shapes = {f"{layer}_conv/kernel": 4 for layer in layers} | {f"{layer}_conv/bias": 1 for layer in layers}
    norms = {f"{layer}_bn/{leaf}": 1 for layer in layers for leaf in NORM}
    return shapes | norms | {"predictions/kernel": 2, "predictions/bias": 1}


def test_layers_of_keras_are_in_the_order_of_its_models():
    found = layers_by_class("ResNet50", resnet_layers())
    order = ("conv1", "conv2_block1_1", "conv2_block1_0", "conv2_block1_3", "conv2_block2_1", "conv2_block10_1")
    assert found == {
        "conv2d": [f"{layer}_conv" for layer in order],
        "batch_normalization": [f"{layer}_bn" for layer in order],
        "dense": ["predictions"],
    }
    with pytest.raises(WeightsError, match=r"keras\.applications\.ResNet50 has no layer 'block1_conv1'"):
        layers_by_class("ResNet50", {"block1_conv1/kernel": 4})
    dense = {f"{layer}/kernel": 2 for layer in ("predictions", "fc2", "fc1")}
    assert layers_by_class("VGG16", dense) == {"dense": ["fc1", "fc2", "predictions"]}
    names = {f"{layer}/kernel": 4 for layer in ("conv_dw_2", "conv_pw_1", "conv1", "conv_dw_1", "conv_preds")}
    assert layers_by_class("MobileNet", names, frozenset({"conv_dw_1", "conv_dw_2"})) == {
        "depthwise_conv2d": ["conv_dw_1", "conv_dw_2"],
        "conv2d": ["conv1", "conv_pw_1", "conv_preds"],
    }


def test_keras_there_and_back(tmp_path):
    random = np.random.default_rng(1)
    arrays = {name: random.normal(size=(2,) * count).astype(np.float32) for name, count in resnet_layers().items()}
    layers = layers_by_class("ResNet50", resnet_layers())
    path = tmp_path / "x.weights.h5"
    write_arrays(path, arrays, layers=layers)
    assert_same(read_arrays(path).arrays, arrays)
    with h5py.File(path, "a") as file:
        third = file["layers/conv2d_2/vars"]
        np.testing.assert_array_equal(third["0"], arrays["conv2_block1_0_conv/kernel"])
        np.testing.assert_array_equal(third["1"], arrays["conv2_block1_0_conv/bias"])
        np.testing.assert_array_equal(file["layers/batch_normalization/vars/2"], arrays["conv1_bn/moving_mean"])
        for group in file["layers"].values():
            del group["vars"].attrs["name"]  # as Keras' early releases left it out
    assert_same(read_arrays(path, layers).arrays, arrays)
    assert "conv2d_2/kernel" in read_arrays(path).arrays


def test_automatic_names_of_keras_are_numbered_from_zero_in_order(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        for number in range(12):
            group = file.create_group(f"layers/conv2d{f'_{number}' if number else ''}/vars")
            group.attrs["name"] = "stem" if number == 1 else f"conv2d_{number + 40}"
            group["0"] = np.full((1, 1, 1, 1), number, np.float32)
        file.create_group("layers/activation/vars").attrs["name"] = "relu"
        file.create_group("vars")
    found = read_arrays(tmp_path / "x.weights.h5").arrays
    assert list(found) == ["conv2d_0/kernel", "stem/kernel", *(f"conv2d_{number}/kernel" for number in range(1, 11))]
    assert [int(array.item()) for array in found.values()] == list(range(12))


@pytest.mark.parametrize("group", ["/", "/model_weights"])
def test_the_older_layout_of_keras(group, tmp_path):
    arrays = {"conv2d_7": ["kernel"], "bn": NORM, "dw": ["depthwise_kernel"], "conv2d_9": ["kernel", "bias"]}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        root = file.require_group(group)
        root.attrs["layer_names"] = [name.encode() for name in ("input_1", *arrays)]
        root.create_group("input_1").attrs["weight_names"] = []
        for number, (layer, leaves) in enumerate(arrays.items()):
            root.create_group(layer).attrs["weight_names"] = [f"{layer}/{leaf}:0".encode() for leaf in leaves]
            for leaf in leaves:
                root[layer][f"{layer}/{leaf}:0"] = np.full(2, number, np.float32)
    found = read_arrays(tmp_path / "x.h5").arrays
    norm = [f"bn/{leaf}" for leaf in NORM]
    assert list(found) == ["conv2d_0/kernel", *norm, "dw/kernel", "conv2d_1/kernel", "conv2d_1/bias"]
    assert [int(array[0]) for array in found.values()] == [0, 1, 1, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("kind", [".safetensors", ".weights.h5", pytest.param(".pth", marks=PARITY)])
def test_what_is_no_such_file_is_told(kind, tmp_path):
    path = tmp_path / f"file{kind}"
    with pytest.raises(WeightsError, match="there is no file"):
        read_arrays(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="is empty"):
        read_arrays(path)
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(WeightsError, match="is damaged, or no"):
        read_arrays(path)
    (tmp_path / f"folder{kind}").mkdir()
    with pytest.raises(WeightsError, match="is a folder"):
        read_arrays(tmp_path / f"folder{kind}")


@pytest.mark.parametrize("kind", [".safetensors", ".weights.h5", pytest.param(".pth", marks=PARITY)])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_told(kind, kept, tmp_path):
    path = tmp_path / f"file{kind}"
    arrays = {"conv1_conv/kernel": np.ones((3, 3, 20, 20), np.float32), "conv1_bn/gamma": np.ones(20, np.float32)}
    arrays |= {f"conv1_bn/{leaf}": np.ones(20, np.float32) for leaf in ("beta", "moving_mean", "moving_variance")}
    dimensions = {name: array.ndim for name, array in arrays.items()}
    write_arrays(path, arrays, layers=layers_by_class("ResNet50", dimensions) if "h5" in kind else None)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(WeightsError) as raised:
        read_arrays(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_other_endings_and_empty_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"expected a file that ends in one of \.safetensors"):
        read_arrays(tmp_path / "weights.bin")
    (tmp_path / "x.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match="holds no arrays"):
        read_arrays(tmp_path / "x.safetensors")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(WeightsError, match="not one of Keras' weights"):
        read_arrays(tmp_path / "x.h5")
    with pytest.raises(WeightsError, match=r"written as \.safetensors, \.pth or \.pt"):
        write_arrays(tmp_path / "x.weights.h5", some_arrays())
    with pytest.raises(WeightsError, match=r"written as \.safetensors or \.weights\.h5"):
        write_arrays(tmp_path / "x.pth", some_arrays(), layers={})


def test_without_pytorch_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pth").write_bytes(b"x")
    for call in (lambda path: read_arrays(path), lambda path: write_arrays(path, some_arrays())):
        with pytest.raises(WeightsError, match=r"pip install 'cnnjax\[torch\]'"):
            call(tmp_path / "x.pth")


def test_a_file_that_cannot_be_written_leaves_the_old_one(monkeypatch, tmp_path):
    path = tmp_path / "x.safetensors"
    write_arrays(path, some_arrays())
    before = path.read_bytes()

    def fail(arrays, name, metadata):
        Path(name).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(WeightsError, match="cannot be written: No space left on device; make room"):
        write_arrays(path, {"other": np.zeros(3)})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    with pytest.raises(WeightsError, match="there is no folder"):
        write_arrays(tmp_path / "none" / "x.safetensors", some_arrays())


class Dangerous:
    """Unpickling it would write a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "run")


@pytest.mark.parity
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    trace = tmp_path / "trace"
    torch.save({"a": torch.ones(2), "b": Dangerous(trace)}, tmp_path / "zip.pth")
    for protocol in (2, 4):
        with open(tmp_path / f"protocol{protocol}.pth", "wb") as file:
            pickle.dump({"b": Dangerous(trace)}, file, protocol)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("zip", "protocol2", "module"):
        with pytest.raises(WeightsError, match=r"holds more than weights: '[\w.]+' would have to run") as raised:
            read_arrays(tmp_path / f"{name}.pth")
        assert "\n" not in str(raised.value)
    with pytest.raises(WeightsError, match="no PyTorch file of weights alone"):
        read_arrays(tmp_path / "protocol4.pth")
    assert not trace.exists()


@pytest.mark.parity
def test_state_dicts_in_training_checkpoints_are_found(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    expected = {name: tensor.numpy() for name, tensor in state.items()}
    forms = {
        "alone": state,
        "checkpoint": {"state_dict": state, "epoch": 3},
        "model": {"model": dict(state), "optimizer": {"lr": 0.1}},
        "parallel": {f"module.{name}": tensor for name, tensor in state.items()},
        "half": {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
    }
    for name, value in forms.items():
        torch.save(value, tmp_path / f"{name}.pth")
        found = read_arrays(tmp_path / f"{name}.pth").arrays
        if name == "half":
            assert found["0.weight"].dtype == np.float32
            np.testing.assert_allclose(found["0.weight"], expected["0.weight"], rtol=1e-2)
        else:
            assert_same(found, expected)
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match="'epoch' is none"):
        read_arrays(tmp_path / "nothing.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="got an object of type list"):
        read_arrays(tmp_path / "list.pth")
