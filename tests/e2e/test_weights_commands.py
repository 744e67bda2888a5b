"""`cnnjax weights`: in from other libraries, out to them, and a sentence for whatever does not fit."""

import json

import numpy as np
import pytest
import safetensors.numpy
from bars import SIDES, draw_bar
from commands import in_this_process
from PIL import Image

PEER = "pytorchcv/nin_cifar10"
CIFAR = """
model: {name: nin_cifar10, args: {pool_padding: symmetric}}
data:
  source: {kind: synthetic, train_examples: 8, test_examples: 8, image_size: 32, channels: 3, classes: 10}
  batch_size: 8
  mean: [0.4, 0.5, 0.6]
  std: 0.25
train: {duration: {steps: 1}}
eval: {batch_size: 8}
parallel: {devices: 1}
"""


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A finished run of a network that another library has."""
    folder = tmp_path_factory.mktemp("cifar")
    (folder / "cifar.yaml").write_text(CIFAR)
    in_this_process("train", folder / "cifar.yaml", "--run-dir", folder / "run").done  # noqa: B018 -- checks
    return folder / "run"


@pytest.fixture(scope="module")
def theirs(cifar, tmp_path_factory):
    """Its weights as the other library has them."""
    path = tmp_path_factory.mktemp("theirs") / "theirs.safetensors"
    in_this_process("weights", "export", cifar, path, "--as", PEER).done  # noqa: B018 -- checks
    return path


@pytest.fixture
def picture(tmp_path):
    """A photograph of noise."""
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 61, 3), np.uint8)).save(path)
    return path


def answers(outcome):
    """The predictions, without the names of the files."""
    return [each["top"] for each in outcome.done.json["predictions"]]


def test_a_run_in_one_file_gives_the_runs_answers(bars, tmp_path, cnnjax):
    out = tmp_path / "bars.safetensors"
    said = cnnjax("weights", "export", bars, out).done.out
    assert said == f"{out}: 10 arrays, 61,196 numbers of lenet5_modern, step 40 of run bars\n"
    pictures = []
    for side in SIDES:
        pictures.append(tmp_path / f"{side}.png")
        Image.fromarray(draw_bar(side, 50, 33)).save(pictures[-1])
    found = answers(cnnjax("predict", out, *pictures, "--top", 4, "--json"))
    assert found == answers(cnnjax("predict", bars, *pictures, "--top", 4, "--json"))
    assert [each[0]["class"] for each in found] == list(SIDES)
    earlier = cnnjax("weights", "export", bars, out, "--checkpoint", "20", "--json").done.json
    assert earlier == {"out": str(out), "model": "lenet5_modern", "as": None, "origin": "step 20 of run bars"}
    assert answers(cnnjax("predict", out, *pictures, "--top", 4, "--json")) == answers(
        cnnjax("predict", bars, *pictures, "--top", 4, "--checkpoint", 20, "--json")
    )


def test_out_and_in_again_bit_for_bit(cifar, theirs, picture, tmp_path, cnnjax):
    own, direct, again = (tmp_path / f"{name}.safetensors" for name in ("own", "direct", "again"))
    outcome = cnnjax("weights", "import", PEER, theirs, "--out", own, "--prepared-as", "torchvision/resnet18").done
    notes, last = outcome.out.splitlines()
    assert notes == "images are prepared as for torchvision/resnet18"
    assert last == f"{own}: 18 arrays, 966,986 numbers of nin_cifar10, from {theirs} as {PEER}"
    cnnjax("weights", "export", cifar, direct).done  # noqa: B018 -- checks
    expected = safetensors.numpy.load_file(direct)
    found = safetensors.numpy.load_file(own)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    cnnjax("weights", "export", own, again, "--as", PEER).done  # noqa: B018 -- checks
    assert again.read_bytes() == theirs.read_bytes()
    assert answers(cnnjax("predict", direct, picture, "--json")) == answers(cnnjax("predict", cifar, picture, "--json"))
    assert len(answers(cnnjax("predict", own, picture, "--json"))[0]) == 3


def test_another_head_and_other_channels(theirs, picture, tmp_path, cnnjax):
    (tmp_path / "labels.txt").write_text("cat\ndog\n\n")
    own = tmp_path / "own.safetensors"
    words = ("--classes", 2, "--channels", 1, "--labels", tmp_path / "labels.txt", "--prepared-as", "timm/resnet18")
    found = cnnjax("weights", "import", PEER, theirs, "--out", own, *words, "--json").done.json
    assert found["notes"] == [
        "images are prepared as for timm/resnet18",
        "stage1/conv1/conv/kernel: for 1 channels in place of 3, summed",
        "stage3/conv3/conv/bias, stage3/conv3/conv/kernel: new, for 2 classes in place of 10",
    ]
    assert found["missing"] == found["unexpected"] == found["mis-shaped"] == []
    (top,) = answers(cnnjax("predict", own, picture, "--json"))
    assert {each["class"] for each in top} == {"cat", "dog"}
    assert sum(each["probability"] for each in top) == pytest.approx(1)


def test_inspecting(theirs, tmp_path, cnnjax):
    lines = cnnjax("weights", "inspect", theirs, "--as", PEER).done.out.splitlines()
    row = next(line for line in lines if "features.stage1.unit1.conv.weight" in line)
    assert row.split() == ["features.stage1.unit1.conv.weight", "192x3x5x5", "float32"]
    assert lines[-5:] == [
        "18 arrays, 966,986 numbers",
        "format: pt",
        *(f"{kind} as {PEER}: none" for kind in ("missing", "unexpected", "mis-shaped")),
    ]
    found = cnnjax("weights", "inspect", theirs, "--as", "pytorchcv/nin_cifar100", "--json").done.json
    assert len(found["arrays"]) == 18
    assert found["arrays"]["output.final_conv.conv.bias"] == {"shape": [10], "dtype": "float32"}
    assert found["metadata"] == {"format": "pt"}
    assert found["missing"] == found["unexpected"] == []
    assert sorted(entry.partition(":")[0] for entry in found["mis-shaped"]) == [
        "stage3/conv3/conv/bias",
        "stage3/conv3/conv/kernel",
    ]
    own = tmp_path / "own.safetensors"
    cnnjax("weights", "import", PEER, theirs, "--out", own).done  # noqa: B018 -- checks
    found = cnnjax("weights", "inspect", own, "--json").done.json
    assert found["metadata"]["cnnjax"]["model"] == "nin_cifar10"
    assert found["metadata"]["cnnjax"]["preprocessing"] is None
    lines = cnnjax("weights", "inspect", own).done.out.splitlines()
    assert "model: nin_cifar10" in lines
    assert f"origin: theirs.safetensors, {PEER}" in lines


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["import", "timm/resnet51", "FILE", "--out", "OUT"], "unknown network of another library 'timm/resnet51'"),
        (["import", "resnet50", "FILE", "--out", "OUT"], "unknown network of another library 'resnet50'; did you mean"),
        (["import", "timm/resnet51", "--out", "OUT"], "unknown published weights 'timm/resnet51'; did you mean"),
        (["import", "timm/resnet50.x", "FILE", "--out", "OUT"], "unknown published weights 'timm/resnet50.x'"),
        (["import", PEER, "--out", "OUT"], f"of {PEER} the network is known, but no published weights"),
        (["import", PEER, "none.pth", "--out", "OUT"], "there is no file none.pth"),
        (["import", PEER, ".", "--out", "OUT"], "expected a file that ends in one of"),
        (
            ["import", "pytorchcv/resnet20_cifar10", "FILE", "--out", "OUT"],
            "107 missing (head/bias, head/kernel, stage1",
        ),
        (["import", "keras/MobileNet", "FILE", "--out", "OUT"], "missing (head/bias, head/kernel"),
        (["import", PEER, "FILE", "widht=2", "--out", "OUT"], "widht: unknown key; did you mean 'width'?"),
        (
            ["import", PEER, "FILE", "width=2", "--out", "OUT"],
            "(stage1/conv1/conv/bias: (384,) here, (192,) as",
        ),
        (["import", PEER, "FILE", "num_classes=7", "--out", "OUT"], "bias: (7,) here, (10,) as 'output.final_conv"),
        (["import", PEER, "FILE", "--out", "OUT", "--prepared-as", "timm/resnet50.x"], "unknown published weights"),
        (["import", PEER, "FILE", "--out", "OUT", "--labels", "none.txt"], "none.txt cannot be read: No such file"),
        (["import", PEER, "FILE", "--out", "out.pth"], "our own weights are written as .safetensors"),
        (["import", PEER, "FILE", "--out", "none/out.safetensors"], "there is no folder"),
        (["import", PEER, "FILE"], "Missing option '--out'"),
        (["import", PEER, "FILE", "--out", "OUT", "--classes", "0"], "--classes"),
        (["import", PEER, "CUT", "--out", "OUT"], "is damaged, or no safetensors file"),
        (["export", "none", "OUT"], "there is no run folder none"),
        (["export", "FILE", "OUT"], "does not say which network it is of"),
        (["export", "RUN", "OUT", "--as", "timm/resnet18"], "the network is not that of timm/resnet18: "),
        (["export", "RUN", "OUT", "--as", "nin_cifar10"], "unknown network of another library"),
        (["export", "RUN", "OUT", "--checkpoint", "9"], "has no checkpoint of step 9"),
        (["export", "RUN", "OUT", "--checkpoint", "newest"], "--checkpoint: expected last, best or a step"),
        (["export", "OWN", "OUT", "--checkpoint", "best"], "a file of weights has no checkpoints"),
        (["export", "RUN", "out.weights.h5", "--as", PEER], "written as .safetensors, .pth or .pt"),
        (["inspect", "none.safetensors"], "there is no file none.safetensors"),
        (["inspect", "FILE", "--as", "x"], "unknown network of another library 'x'"),
        (["inspect", "TEXT"], "is damaged, or no h5 file"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(words, sentence, cifar, theirs, tmp_path, monkeypatch, cnnjax):
    own = tmp_path / "own.safetensors"
    cnnjax("weights", "export", cifar, own).done  # noqa: B018 -- checks
    cut, text = tmp_path / "cut.safetensors", tmp_path / "text.h5"
    cut.write_bytes(theirs.read_bytes()[:-100])
    text.write_text("no weights")
    places = {"FILE": theirs, "RUN": cifar, "OWN": own, "CUT": cut, "TEXT": text, "OUT": "out.safetensors"}
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    given = [places.get(word, word) for word in words]
    assert sentence in cnnjax("weights", *given).error
    assert sorted(tmp_path.iterdir()) == before


def test_predicting_with_what_cannot(theirs, picture, tmp_path, cnnjax):
    own = tmp_path / "own.safetensors"
    assert "does not say which network it is of" in cnnjax("predict", theirs, picture).error
    assert cnnjax("predict", "none.safetensors", picture).error == "there is no file none.safetensors"
    assert cnnjax("predict", "none.pth", picture).error == "there is no run folder none.pth"
    cnnjax("weights", "import", PEER, theirs, "--out", own).done  # noqa: B018 -- checks
    error = cnnjax("predict", own, picture).error
    assert "do not say how images are prepared; import them again with --prepared-as" in error
    assert "a file of weights has no checkpoints" in cnnjax("predict", own, picture, "--checkpoint", "best").error
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "is damaged, or no safetensors file" in cnnjax("predict", tmp_path / "text.safetensors", picture).error


def test_the_metadata_can_be_read_by_anyone(theirs, tmp_path, cnnjax):
    own = tmp_path / "own.safetensors"
    cnnjax("weights", "import", PEER, theirs, "--out", own, "--prepared-as", "keras/ResNet50").done  # noqa: B018 -- checks
    with safetensors.safe_open(own, framework="numpy") as file:
        description = json.loads(file.metadata()["cnnjax"])
    assert (description["model"], description["fields"]) == ("nin_cifar10", {"pool_padding": "symmetric"})
    assert description["input_shape"] == [32, 32, 3]
    assert description["preprocessing"]["size"] == [224, 224]
    assert description["preprocessing"]["order"] == "bgr"


def test_a_full_disk_leaves_nothing_behind(cifar, disk, cnnjax):
    disk.fill(leave=100_000)
    before = sorted(disk.folder.iterdir())
    error = cnnjax("weights", "export", cifar, disk.folder / "out.safetensors").error
    assert error.endswith("cannot be written: No space left on device; make room")
    assert sorted(disk.folder.iterdir()) == before
    disk.make_room()
    assert cnnjax("weights", "export", cifar, disk.folder / "out.safetensors").done
