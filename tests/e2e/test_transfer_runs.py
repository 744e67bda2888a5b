"""A run that starts from another's weights: what is taken, what is new, what stays; and what is refused."""

import json

import numpy as np
import pytest
from commands import in_this_process

from cnnjax.train.run_weights import run_weights

CONFIG = """
model: {name: lenet5_modern, args: {norm: batch}}
data: {source: {kind: synthetic, classes: 3, train_examples: 32, test_examples: 8}, batch_size: 16}
optimizer: {weight_decay: 0.1}
train: {duration: {steps: 4}}
parallel: {devices: 1}
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run, and the config that it has."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "small.yaml").write_text(CONFIG)
    assert in_this_process("train", folder / "small.yaml", "--run-dir", folder / "run").code == 0
    return folder / "small.yaml", folder / "run"


def train(first, folder, *overrides):
    config, run = first
    source = f"init_from.path={json.dumps(str(run))}"
    return in_this_process("train", config, "--run-dir", folder, source, *overrides)


def test_body_is_kept_and_head_is_new(first, tmp_path):
    other = ("data.source.classes=5", "init_from.new=[output/*]", "train.freeze=['*', '!output/*']")
    outcome = train(first, tmp_path / "run", *other)
    assert outcome.code == 0, outcome.err
    assert "init_from: " in outcome.out
    assert "; output/bias, output/kernel start anew" in outcome.out
    told = json.loads((tmp_path / "run" / "init_from.json").read_text())
    assert (told["new"], told["unused"]) == (["output/bias", "output/kernel"], [])
    assert told["origin"] == "step 4 of run small"
    before, after = (run_weights(run).arrays for run in (first[1], tmp_path / "run"))
    assert set(before) == set(after)
    assert told["loaded"] == len(before) - 2
    for name in before:
        if not name.startswith("output/"):
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert after["output/kernel"].shape == (84, 5)


def test_continuing_does_not_start_from_there_again(first, tmp_path):
    assert train(first, tmp_path / "run", "schedule.kind=constant").code == 0
    longer = train(first, tmp_path / "run", "schedule.kind=constant", "train.duration={steps: 6}", "--force")
    assert longer.code == 0, longer.err
    assert "init_from: " not in longer.out
    whole = train(first, tmp_path / "whole", "schedule.kind=constant", "train.duration={steps: 6}")
    assert whole.code == 0
    for name, leaf in run_weights(tmp_path / "whole").arrays.items():
        np.testing.assert_array_equal(leaf, run_weights(tmp_path / "run").arrays[name])


def test_other_shapes_names_and_places_are_refused(first, tmp_path):
    refused = train(first, tmp_path / "a", "data.source.classes=5").error
    assert refused.startswith("init_from.path: output/bias is 3 there, and 5 in this network; let it start anew with ")
    assert (
        "has no head/bias, which the network needs"
        in train(first, tmp_path / "b", "model={name: cifar_resnet20, args: {stage_sizes: [1, 1, 1]}}").error
    )
    misspelt = train(first, tmp_path / "c", "init_from.new=[outpt/*]").error
    assert "no parameter's name fits 'outpt/*'; did you mean 'output'?" in misspelt
    assert "nowhere" in train(first, tmp_path / "d", "init_from.path=nowhere").error
    both = train(first, tmp_path / "e", "init_from.pretrained=timm/resnet50").error
    assert both == "init_from: expected exactly one of path and pretrained; got both"
    named = ("init_from.path=null", "init_from.pretrained=timm/resnet51")
    unknown = train(first, tmp_path / "f", *named).error
    assert unknown.startswith("init_from.pretrained: unknown published weights 'timm/resnet51'; did you mean 'timm/")
    assert in_this_process("config", first[0], *named).error == unknown
