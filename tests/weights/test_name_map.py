"""The language of name maps: placeholders, offsets, alternatives, leaves, layouts, and what it refuses."""

import pytest

from cnnjax.errors import WeightsError
from cnnjax.weights.name_map import PeerTensor, translate


def names(rules, *paths, library="timm"):
    return {path: tensor.name for path, tensor in translate(rules, dict.fromkeys(paths), library).items()}


def test_numbers_keep_their_value_or_are_moved():
    rules = (("stage{s}/block{b}/conv{c}", "layer{s}.{b-1}.conv{c}"), ("part{n}", "features.{n+10}"))
    assert names(rules, "stage2/block1/conv3/kernel", "stage12/block10/conv1/kernel", "part3/kernel") == {
        "stage2/block1/conv3/kernel": "layer2.0.conv3.weight",
        "stage12/block10/conv1/kernel": "layer12.9.conv1.weight",
        "part3/kernel": "features.13.weight",
    }


def test_a_number_may_be_repeated_or_left_out():
    rules = (("a{n}/b{m}", "x{n}.y{n+1}"),)
    assert names(rules, "a1/b7/kernel") == {"a1/b7/kernel": "x1.y2.weight"}


def test_words_stand_for_one_of_some():
    rules = (("se/{part:reduce|expand}", "gate.conv_{part}"), ("{side:left|right}{n}", "{n-1}_{side}"))
    assert names(rules, "se/reduce/bias", "se/expand/bias", "right2/bias") == {
        "se/reduce/bias": "gate.conv_reduce.bias",
        "se/expand/bias": "gate.conv_expand.bias",
        "right2/bias": "1_right.bias",
    }
    with pytest.raises(WeightsError, match="no rule for timm names 'se/squeeze/bias'"):
        names(rules, "se/squeeze/bias")


@pytest.mark.parametrize(
    "path", ["stageA/conv/kernel", "stage/conv/kernel", "stage1/conv/extra/kernel", "xstage1/conv/kernel"]
)
def test_a_rule_fits_whole_paths_only(path):
    with pytest.raises(WeightsError, match=f"^no rule for timm names '{path}'; the network is not one that it has$"):
        names((("stage{s}/conv", "layer{s}"),), path)


def test_signs_stand_for_themselves():
    rules = (("a.b+c", "theirs"),)
    assert names(rules, "a.b+c/kernel") == {"a.b+c/kernel": "theirs.weight"}
    with pytest.raises(WeightsError, match="no rule"):
        names(rules, "aXbbc/kernel")


def test_the_first_rule_that_fits_counts():
    rules = (("conv1", "first"), ("conv{n}", "other{n}"), ("conv2", "never"))
    assert names(rules, "conv1/kernel", "conv2/kernel") == {
        "conv1/kernel": "first.weight",
        "conv2/kernel": "other2.weight",
    }


def test_a_rule_may_name_one_parameter():
    rules = (("conv/kernel", "own_name"), ("conv", "module"))
    assert names(rules, "conv/kernel", "conv/bias") == {"conv/kernel": "own_name", "conv/bias": "module.bias"}


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("timm", ["c.weight", "c.bias", "n.weight", "n.bias", "n.running_mean", "n.running_var"]),
        ("torchvision", ["c.weight", "c.bias", "n.weight", "n.bias", "n.running_mean", "n.running_var"]),
        ("pytorchcv", ["c.weight", "c.bias", "n.weight", "n.bias", "n.running_mean", "n.running_var"]),
        ("keras", ["c/kernel", "c/bias", "n/gamma", "n/beta", "n/moving_mean", "n/moving_variance"]),
    ],
)
def test_leaves_have_each_librarys_names(library, expected):
    paths = ["conv/kernel", "conv/bias", "norm/scale", "norm/bias", "norm/mean", "norm/var"]
    found = names((("conv", "c"), ("norm", "n")), *paths, library=library)
    assert [found[path] for path in paths] == expected


def test_a_normalisation_without_scale_has_a_beta_in_keras():
    assert names((("norm", "n"),), "norm/bias", library="keras") == {"norm/bias": "n/beta"}


def test_a_layout_is_of_kernels():
    rules = (("gate", "g", "pointwise"), ("conv", "c"), ("dense/kernel", "d", "flatten7x7"), ("dense", "d"))
    found = translate(
        rules, dict.fromkeys(["gate/kernel", "gate/bias", "conv/kernel", "dense/kernel", "dense/bias"]), "timm"
    )
    assert found == {
        "gate/kernel": PeerTensor("g.weight", "pointwise"),
        "gate/bias": PeerTensor("g.bias"),
        "conv/kernel": PeerTensor("c.weight"),
        "dense/kernel": PeerTensor("d", "flatten7x7"),
        "dense/bias": PeerTensor("d.bias"),
    }


def test_two_with_one_name_raise():
    rules = (("conv{n}", "layer"),)
    with pytest.raises(WeightsError, match=r"^timm's 'layer\.weight' would be both 'conv1/kernel' and 'conv2/kernel'$"):
        names(rules, "conv1/kernel", "conv2/kernel")
    # In PyTorch a kernel and a scale are both a weight.
    with pytest.raises(WeightsError, match=r"'layer\.weight' would be both"):
        names((("conv", "layer"), ("norm", "layer")), "conv/kernel", "norm/scale")
