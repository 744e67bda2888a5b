"""`cnnjax features`: a run's own data or another's, to a file that scikit-learn fits in the page's own lines."""

import os
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from cnnjax.config_files import load_config
from cnnjax.data.sources import load
from cnnjax.train.run_weights import run_weights

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def test_a_runs_own_data(trained, small, tmp_path, cnnjax):
    out = tmp_path / "new" / "x.npz"
    told = cnnjax("features", trained, "--out", out, "--json").done.json
    assert (told["out"], told["train_features"], told["test_features"]) == (str(out), [64, 84], [32, 84])
    assert (told["train_labels"], told["test_labels"], told["skipped"], told["layer"]) == ([64], [32], 0, None)
    weights, data = run_weights(trained), load(load_config(small).data)
    with np.load(out) as found:
        for part, examples in (("train", data.train), ("test", data.test)):
            read = examples.read(np.arange(len(examples)))
            inputs = read.images.astype(np.float32) / 255
            by_hand = weights.network.apply(weights.variables, inputs, train=False).features["f6"].reshape(-1, 84)
            np.testing.assert_allclose(found[f"{part}_features"], by_hand, atol=1e-5)
            np.testing.assert_array_equal(found[f"{part}_labels"], read.labels)
        assert tuple(found["class_names"]) == data.class_names


def test_exported_weights_and_a_config_give_the_same(trained, small, tmp_path, cnnjax):
    cnnjax("export", trained, tmp_path / "w.safetensors").done  # noqa: B018 -- checks
    cnnjax("features", trained, "--out", tmp_path / "own.npz").done  # noqa: B018
    words = ("features", tmp_path / "w.safetensors", small, "eval.batch_size=24", "--out", tmp_path / "other.npz")
    out = cnnjax(*words).done.out
    assert out == f"{tmp_path / 'other.npz'}: 84 numbers of 64 training and 32 held-out examples\n"
    with np.load(tmp_path / "own.npz") as own, np.load(tmp_path / "other.npz") as other:
        for name in own:
            if name.endswith("features"):
                np.testing.assert_allclose(own[name], other[name], atol=1e-6)
            else:
                np.testing.assert_array_equal(own[name], other[name])


def test_a_layer_and_a_checkpoint(trained, tmp_path, cnnjax):
    words = ("features", trained, "--out", tmp_path / "x.npz", "--json", "--layer", "c3")
    assert cnnjax(*words).done.json["train_features"] == [64, 16]
    last = np.load(tmp_path / "x.npz")["test_features"]
    assert cnnjax(*words, "--maps", "--checkpoint", "2").done.json["test_features"] == [32, 10, 10, 16]
    assert not np.allclose(np.load(tmp_path / "x.npz")["test_features"].mean((1, 2)), last)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{trained}", "--out", "x.csv"], "'x.csv': expected a name that ends in .npz"),
        (["{trained}", "--layer", "c9"], "layer 'c9': no such layer; known: "),
        (["{trained}", "--maps"], "--maps: keeps the positions of a layer's maps; name the layer with --layer"),
        (["{trained}", "--checkpoint", "5"], "has no checkpoint of step 5; it has 2, 4, 6"),
        (["{trained}", "{small}", "data.sorce.seed=1"], "data.sorce: unknown key; did you mean 'source'?"),
        (["{trained}", "none.yaml"], "config file 'none.yaml' cannot be read"),
        (["none"], "there is no run folder none"),
        (["none.safetensors", "{small}"], "none.safetensors"),
    ],
)
def test_slips(words, sentence, trained, small, tmp_path, monkeypatch, cnnjax):
    monkeypatch.chdir(tmp_path)
    assert sentence in cnnjax("features", *(word.format(trained=trained, small=small) for word in words)).error
    assert not os.listdir()


def test_data_that_a_run_was_not_trained_on(copied, tmp_path, cnnjax):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("train_examples: 64", "train_examples: 48"))
    refused = cnnjax("features", copied, "--out", tmp_path / "x.npz").error
    assert refused.startswith(f"the data is not what {copied} was trained on")
    assert not (tmp_path / "x.npz").exists()


def test_the_lines_of_the_page(trained, tmp_path, monkeypatch, capsys, cnnjax):
    """A linear probe of a hardly trained network beats chance, by the file and by the function alike."""
    monkeypatch.chdir(tmp_path)
    cnnjax("features", trained, "--layer", "c5").done  # noqa: B018 -- checks
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(trained)
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)):
        (tmp_path / f"{number}.py").write_text(code)
        runpy.run_path(str(tmp_path / f"{number}.py"))
    scores = [float(line) for line in capsys.readouterr().out.split()]
    assert len(scores) == 2
    assert scores[0] == scores[1] > 0.3


def test_the_commands_of_the_page_parse(cnnjax):
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for line in block.splitlines():
        assert re.match(r"there is no run folder|.*\.safetensors|config file", cnnjax(*line.split()[1:]).error)
