"""Variables to other libraries' names and layouts and back, by what the arrays mean there; and what does not fit."""

import jax
import numpy as np
import pytest

from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import create_model, get_variant
from cnnjax.weights import convert
from cnnjax.weights.convert import (
    LoadReport,
    flatten,
    from_peer,
    library_of,
    name_map,
    peer_tensors,
    shapes_of,
    to_peer,
    unflatten,
)
from cnnjax.weights.name_map import NameMap

LIBRARIES = ("torchvision/toy", "timm/toy", "pytorchcv/toy", "keras/toy")
TORCH, KERAS = "timm/toy", "keras/toy"
random = np.random.default_rng(0)


def normal(*shape):
    return random.normal(size=shape).astype(np.float32)


@pytest.fixture
def rules(monkeypatch):
    """Sets the rules of every `LIBRARY/toy`."""

    def set_rules(*rules):
        monkeypatch.setattr(convert, "name_map", lambda peer: NameMap(rules))

    return set_rules


def there_and_back(peer, kernel, layout, rules):
    """The array that a library has for a kernel of ours; back again it is the same, bit for bit."""
    rules(("layer", "layer", layout) if layout else ("layer", "layer"))
    variables = {"params": {"layer": {"kernel": kernel, "bias": kernel.reshape(-1)[: kernel.shape[-1]]}}}
    arrays = to_peer(peer, variables)
    back, report = from_peer(peer, arrays, variables)
    assert report == LoadReport((), (), ())
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    separator, leaf = ("/", "kernel") if library_of(peer) == "keras" else (".", "weight")
    assert list(arrays) == [f"layer{separator}{leaf}", f"layer{separator}bias"]
    np.testing.assert_array_equal(arrays[f"layer{separator}bias"], variables["params"]["layer"]["bias"])
    return arrays[f"layer{separator}{leaf}"]


# What each layout means: the same output from the arrays as the other library reads them.


@pytest.mark.parametrize("peer", LIBRARIES)
@pytest.mark.parametrize("layout", ["", "depthwise"])
def test_convolutions(peer, layout, rules):
    kernel = normal(3, 2, 1 if layout else 5, 7)
    there = there_and_back(peer, kernel, layout, rules)
    for row, column, seen, out in np.ndindex(kernel.shape):
        if library_of(peer) != "keras":
            index = (out, seen, row, column)
        else:
            index = (row, column, out, seen) if layout else (row, column, seen, out)
        assert there[index] == kernel[row, column, seen, out]


@pytest.mark.parametrize("peer", LIBRARIES)
def test_dense(peer, rules):
    kernel, x = normal(6, 4), normal(6)
    there = there_and_back(peer, kernel, "", rules)
    np.testing.assert_array_equal(there, kernel if library_of(peer) == "keras" else kernel.T)
    np.testing.assert_allclose(x @ there if library_of(peer) == "keras" else there @ x, x @ kernel, rtol=1e-5)


def test_dense_as_a_convolution_of_one_pixel(rules):
    kernel, x = normal(6, 4), normal(6)
    there = there_and_back(TORCH, kernel, "pointwise", rules)
    assert there.shape == (4, 6, 1, 1)
    np.testing.assert_allclose(np.einsum("oihw,i->o", there, x), x @ kernel, rtol=1e-5)
    there = there_and_back(KERAS, kernel, "pointwise", rules)
    assert there.shape == (1, 1, 6, 4)
    np.testing.assert_allclose(np.einsum("hwio,i->o", there, x), x @ kernel, rtol=1e-5)


def test_dense_after_a_flattened_map(rules):
    """PyTorch flattens (channels, height, width), Keras as we do."""
    x = normal(3, 2, 5)
    kernel = normal(x.size, 4)
    there = there_and_back(TORCH, kernel, "flatten3x2", rules)
    assert there.shape == (4, 30)
    np.testing.assert_allclose(there @ x.transpose(2, 0, 1).reshape(-1), x.reshape(-1) @ kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(there_and_back(KERAS, kernel, "flatten3x2", rules), kernel)


def test_dense_as_a_convolution_with_the_maps_size(rules):
    x = normal(3, 2, 5)
    kernel = normal(x.size, 4)
    there = there_and_back(TORCH, kernel, "window3x2", rules)
    assert there.shape == (4, 5, 3, 2)
    np.testing.assert_allclose(np.einsum("oihw,hwi->o", there, x), x.reshape(-1) @ kernel, rtol=1e-4, atol=1e-5)


# What does not fit.


@pytest.mark.parametrize(
    ("peer", "layout", "ours", "theirs"),
    [
        (TORCH, "", (3, 3, 2, 4), (4, 2, 3, 5)),
        (TORCH, "", (3, 3, 2, 4), (4, 2)),
        (TORCH, "", (6, 4), (4, 6, 1, 1)),
        (TORCH, "", (6, 4), (6, 4)),
        (TORCH, "pointwise", (6, 4), (4, 6)),
        (TORCH, "pointwise", (6, 4), (4, 6, 3, 3)),
        (TORCH, "pointwise", (6, 4), (4, 7, 1, 1)),
        (KERAS, "pointwise", (6, 4), (3, 3, 6, 4)),
        (KERAS, "depthwise", (3, 3, 1, 4), (3, 3, 2, 2)),
        (KERAS, "", (3, 3, 2, 4), (3, 3, 4, 2)),
        (TORCH, "flatten3x2", (30, 4), (4, 31)),
        (TORCH, "flatten3x2", (30, 4), (4, 36)),
        (TORCH, "flatten3x2", (30, 4), (4, 5, 3, 2)),
        (TORCH, "window3x2", (30, 4), (4, 5, 2, 3)),
        (TORCH, "window3x2", (30, 4), (4, 30)),
    ],
)
def test_another_shape_is_reported_and_leaves_ours_alone(peer, layout, ours, theirs, rules):
    rules(("layer", "layer", layout))
    like = {"params": {"layer": {"kernel": normal(*ours)}}}
    name = "layer/kernel" if peer == KERAS else "layer.weight"
    variables, report = from_peer(peer, {name: normal(*theirs)}, like)
    assert report == LoadReport((), (), (f"layer/kernel: {ours} here, {theirs} as '{name}' there",))
    np.testing.assert_array_equal(variables["params"]["layer"]["kernel"], like["params"]["layer"]["kernel"])


def test_missing_and_unexpected_are_reported(rules):
    rules(("layer{n}", "module.{n-1}"), ("norm", "bn"))
    like = {
        "params": {"layer1": {"kernel": normal(2, 3), "bias": normal(3)}, "norm": {"scale": normal(3)}},
        "batch_stats": {"norm": {"mean": normal(3), "var": normal(3)}},
    }
    arrays = {
        "module.0.weight": normal(3, 2),
        "bn.running_var": normal(3),
        "bn.num_batches_tracked": np.int64(7),
        "num_batches_tracked": np.int64(7),
        "module.1.weight": normal(3, 2),
    }
    variables, report = from_peer(TORCH, arrays, like)
    assert report == LoadReport(("layer1/bias", "norm/scale", "norm/mean"), ("module.1.weight",), ())
    np.testing.assert_array_equal(variables["params"]["layer1"]["kernel"], arrays["module.0.weight"].T)
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["var"], arrays["bn.running_var"])
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["mean"], like["batch_stats"]["norm"]["mean"])


def test_values_take_our_type(rules):
    rules(("layer", "layer"))
    like = {"params": {"layer": {"kernel": normal(2, 3)}}}
    variables, _ = from_peer(TORCH, {"layer.weight": np.ones((3, 2), np.float16)}, like)
    assert variables["params"]["layer"]["kernel"].dtype == np.float32


def test_two_with_one_name_raise(rules):
    rules(("layer{n}", "layer"))
    like = {"params": {"layer1": {"kernel": normal(2, 3)}, "layer2": {"kernel": normal(2, 3)}}}
    with pytest.raises(WeightsError, match=r"'layer\.weight' would be both"):
        from_peer(TORCH, {}, like)


def test_a_report_is_refused_but_for_what_is_allowed():
    LoadReport((), (), ()).refuse("weights.npz")
    report = LoadReport(("head/kernel", "head/bias"), ("fc.weight",), ("stem/conv/kernel: (7, 7) here, (3, 3) there",))
    with pytest.raises(WeightsError, match=r"^weights\.npz does not fit: 2 missing \(head/kernel, head/bias\); allow"):
        report.refuse("weights.npz")
    with pytest.raises(WeightsError, match=r"1 missing \(head/bias\)"):
        report.refuse("weights.npz", ("head/kernel",))
    with pytest.raises(WeightsError, match=r"1 unexpected \(fc\.weight\)"):
        report.refuse("weights.npz", ("head/*",))
    with pytest.raises(WeightsError, match=r"1 mis-shaped \(stem/conv/kernel: \(7, 7\) here, \(3, 3\) there\)"):
        report.refuse("weights.npz", ("head/*", "fc.*"))
    report.refuse("weights.npz", ("head/*", "fc.*", "stem/conv/kernel"))


def test_a_long_report_is_cut():
    report = LoadReport(tuple(f"layer{index}/bias" for index in range(9)), (), ())
    with pytest.raises(WeightsError, match=r"9 missing \(layer0/bias, .*, layer4/bias and 4 more\)"):
        report.refuse("weights.npz")


# Names of networks.


@pytest.mark.parametrize("name", ["resnet50", "torchvision"])
def test_a_name_without_a_library_is_refused(name):
    with pytest.raises(ConfigError, match=f"^expected LIBRARY/NAME such as timm/resnet50, got '{name}'$"):
        library_of(name)


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(ConfigError, match=r"^unknown model 'timm/resnet51'; did you mean 'timm/resnet"):
        name_map("timm/resnet51")


def test_the_first_pattern_that_fits_counts(monkeypatch):
    first, second = NameMap((("a", "b"),)), NameMap((("a", "c"),))
    monkeypatch.setattr(convert, "load_names", lambda family: {"keras/*": second, "timm/resnet*": first, "*": second})
    assert name_map("timm/resnet50") is first
    assert name_map("torchvision/resnet50") is second
    monkeypatch.setattr(convert, "load_names", lambda family: {})
    with pytest.raises(WeightsError, match=r"^the names of 'timm/resnet50' are not known$"):
        name_map("timm/resnet50")


@pytest.mark.parametrize(
    ("peer", "path", "name"),
    [
        ("torchvision/resnet18", "stage2/block1/projection/norm/var", "layer2.0.downsample.1.running_var"),
        ("keras/ResNet50", "stage2/block3/conv2/norm/bias", "conv3_block3_2_bn/beta"),
        ("keras/ResNet50", "stage2/block3/conv2/conv/bias", "conv3_block3_2_conv/bias"),
        ("pytorchcv/resnet20_cifar10", "stem/conv/kernel", "features.init_block.conv.weight"),
        ("timm/resnext50_32x4d", "stage4/block3/conv3/conv/kernel", "layer4.2.conv3.weight"),
        ("timm/legacy_seresnet18", "stage1/block2/squeeze_excite/expand/bias", "layer1.1.se_module.fc2.bias"),
        ("timm/legacy_seresnet18", "head/kernel", "last_linear.weight"),
        ("timm/legacy_senet154", "stem3/norm/mean", "layer0.bn3.running_mean"),
        ("timm/senet154", "stem3/norm/mean", "bn1.running_mean"),
        ("timm/senet154", "stem2/conv/kernel", "conv1.3.weight"),
        ("timm/seresnet18", "stage1/block2/squeeze_excite/reduce/kernel", "layer1.1.se.fc1.weight"),
    ],
)
def test_names_of_real_networks(peer, path, name):
    tensors = peer_tensors(peer, shapes_of(create_model(peer), (64, 64, 3)))
    assert tensors[path].name == name


def test_a_whole_network_there_and_back():
    shapes = shapes_of(create_model("timm/seresnet18"), get_variant("timm/seresnet18").input_shape)
    variables = jax.tree.map(lambda leaf: normal(*leaf.shape), shapes)
    arrays = to_peer("timm/seresnet18", variables)
    assert len(arrays) == len(flatten(variables))
    assert arrays["layer1.0.se.fc1.weight"].shape == (8, 64, 1, 1)
    back, report = from_peer("timm/seresnet18", arrays, shapes)
    report.refuse("itself")
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_flattening_and_its_inverse():
    variables = {"params": {"a": {"b": {"kernel": 1, "bias": 2}}}, "batch_stats": {"a": {"mean": 3}}}
    assert flatten(variables) == {"a/b/kernel": 1, "a/b/bias": 2, "a/mean": 3}
    assert unflatten(flatten(variables), variables) == variables
    assert flatten({"params": {"a": {"kernel": 1}}}) == {"a/kernel": 1}


def test_shapes_are_not_computed():
    shapes = shapes_of(create_model("resnet152"), (224, 224, 3))
    assert shapes["params"]["stem"]["conv"]["kernel"].shape == (7, 7, 3, 64)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
