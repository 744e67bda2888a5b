"""The command line itself: help, tables, JSON, and what it says to a slip of the pen."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from cnnjax.models import list_models

COMMANDS = ("train", "eval", "predict", "features", "config", "models", "summary")


def test_help_names_every_command(cnnjax):
    assert all(re.search(rf"│ {command} ", cnnjax("--help").done.out) for command in COMMANDS)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, flag, cnnjax):
    out = cnnjax(command, flag).done.out
    assert re.search(rf"^ Usage: .*\b{command} \[OPTIONS\]", out, re.MULTILINE)
    assert "--json" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_the_installed_script_is_the_module():
    script = Path(sys.executable).with_name("cnnjax")
    if not script.exists():
        pytest.skip("the package is not installed with its script")
    said = subprocess.run([script, "summary", "lenet5", "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["params"] == 60_000


# No JAX, hence an answer at once.
LIGHT = (
    ["--help"],
    ["train", "--help"],
    ["train", "none.yaml"],
    ["train", "CONFIG", "seed"],
    ["train", "CONFIG", "optimiser.name=adam"],
    ["train", "CONFIG", "data.batch_size=many"],
    ["config", "CONFIG", "model.name=lenet6"],
    ["config", "--schema"],
    ["models", "none*"],
    ["models", "--hepl"],
    ["eval", "none", "--checkpoint", "first"],
    ["features", "none", "CONFIG", "data.batch_size=many"],
)


def test_help_and_slips_are_answered_without_jax(small):
    """In one process of its own, asked after every command."""
    code = f"""
import contextlib, io, sys
from cnnjax.cli import main
for words in {LIGHT!r}:
    sys.argv = ["cnnjax", *(word.replace("CONFIG", {str(small)!r}) for word in words)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit:
            pass
    if "jax" in sys.modules:
        sys.exit(f"JAX was imported by {{words}}")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "none.yaml"], "config file 'none.yaml' cannot be read: there is no such file; "),
        (["train", "{small}x"], "there is no such file; did you mean 'small.yaml'?"),
        (["train", "{small}", "seed"], "override 'seed': expected section.key=value"),
        (["train", "{small}", "=1"], "override '=1': expected section.key=value"),
        (["train", "{small}", "seed=[1"], "override 'seed=[1' line 1, column "),
        (["train", "{small}", "optimiser.name=adam"], "optimiser: unknown key; did you mean 'optimizer'?"),
        (["train", "{small}", "data.bach_size=1"], "data.bach_size: unknown key; did you mean 'batch_size'?"),
        (["train", "{small}", "data.batch_size=0"], "data.batch_size: expected greater than 0, got a number (0)"),
        (["train", "{small}", "data.source.kind=digit"], "data.source: unknown kind 'digit'; did you mean 'digits'?"),
        (["train", "{small}", "model.name=lenet6"], "unknown model 'lenet6'; did you mean 'lenet5'?"),
        (["train", "{small}", "model.args.dropuot=0.5"], "model.args.dropuot: unknown key; did you mean 'dropout'?"),
        (
            ["train", "{small}", "optimizer.name=adamm"],
            "optimizer.name: unknown optax optimizer 'adamm'; did you mean 'adam'?",
        ),
        (
            ["train", "{small}", "optimizer.args.momentun=0.9"],
            "optimizer.args.momentun: optax.sgd has no such argument; did you mean 'momentum'?",
        ),
        (
            ["train", "{small}", "schedule.warmup.steps=9"],
            "schedule.warmup: 9 steps leave none of the run's 6 for the schedule",
        ),
        (["train", "{small}", "--processes", "2"], "parallel: expected coordinator, processes and process_id together"),
        (["config", "{small}", "model.name=lenet6"], "model.name: unknown model 'lenet6'; did you mean 'lenet5'?"),
        (["config", "{small}", "model.args.dropuot=1"], "model.args.dropuot: unknown key; did you mean 'dropout'?"),
        (["config", "{small}", "--diff", "none.yaml"], "config file 'none.yaml' cannot be read: "),
        (["summary", "lenet6"], "unknown model 'lenet6'; did you mean 'lenet5'?"),
        (["summary", "lenet5_modern", "dropuot=1"], "dropuot: unknown key; did you mean 'dropout'?"),
        (["summary", "lenet5", "--input", "5"], "of at least 16x16"),
        (["summary", "lenet5", "--input", "0"], "--input: expected a size such as 224, 224x320 or 224x320x1, got '0'"),
        (["summary", "lenet5", "--input", "32x"], "--input: expected a size such as 224, 224x320 or 224x320x1"),
        (["summary", "lenet5", "--input", "32x32x1", "--channels", "3"], "has 1 channels, --channels says 3"),
        (["models", "tim/*"], "no model matches 'tim/*'; "),
        (["models", "nothing*"], "no model matches 'nothing*'; "),
        (["eval", "none"], "there is no run folder none"),
        (["eval", "none", "--checkpoint", "²"], "--checkpoint: expected last, best or a step, got '²'"),
        (["eval", "none", "--checkpoint", "-1"], "--checkpoint: expected last, best or a step, got '-1'"),
        (["predict", "none", "a.png"], "there is no run folder none"),
        (["predict", "none", "a.png", "--top", "0"], "--top"),
        (["predict", "none"], "Missing argument 'IMAGE'"),
        (["train"], "Missing argument 'CONFIG'"),
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "{small}", "--rundir", "x"], "No such option: --rundir"),
        (["config", "--diff"], "requires an argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_gets_a_sentence_and_no_run_folder(words, sentence, small, tmp_path, monkeypatch, cnnjax):
    monkeypatch.chdir(tmp_path)
    assert sentence in cnnjax(*(word.format(small=small) for word in words)).error
    assert list(tmp_path.iterdir()) == []


def test_several_slips_are_all_told_at_once(small, cnnjax):
    outcome = cnnjax("train", small, "optimiser.name=adam", "data.batch_size=0")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
    assert "optimiser: unknown key" in outcome.err
    assert "data.batch_size: expected greater than 0" in outcome.err


def test_no_command_shows_help(cnnjax):
    outcome = cnnjax()
    assert outcome.code == 2
    assert "Usage: " in outcome.out
    assert outcome.err == ""


def test_config_shows_the_whole_config_as_a_file_that_means_the_same(small, tmp_path, cnnjax):
    shown = cnnjax("config", small, "seed=7").done.out
    (tmp_path / "again.yaml").write_text(shown)
    first, second = (
        cnnjax("config", *words, "--json").done.json for words in ([small, "seed=7"], [tmp_path / "again.yaml"])
    )
    assert first == second
    assert shown.startswith(f"# hash {first['hash']}\n")
    assert first["config"]["seed"] == 7
    assert first["config"]["optimizer"]["name"] == "sgd"  # a default


def test_config_diff_says_what_differs(small, tmp_path, cnnjax):
    other = tmp_path / "other.yaml"
    other.write_text(f"base: {small}\nname: small\nseed: 3\nschedule: {{learning_rate: 0.2}}\n")
    assert cnnjax("config", other, "--diff", small).done.out == ("seed: 0 -> 3\nschedule.learning_rate: 0.05 -> 0.2\n")
    assert cnnjax("config", other, "--diff", small, "--json").done.json == {
        "seed": {"old": 0, "new": 3},
        "schedule.learning_rate": {"old": 0.05, "new": 0.2},
    }
    assert cnnjax("config", small, "--diff", small).done.out == "no difference\n"
    assert cnnjax("config", small, "--diff", small, "--json").done.json == {}


def test_config_schema_is_json(cnnjax):
    pretty, plain = cnnjax("config", "--schema").done.out, cnnjax("config", "--schema", "--json").done
    assert json.loads(pretty) == plain.json
    assert plain.out.count("\n") == 1
    assert {"model", "data", "optimizer", "schedule", "train", "base"} <= plain.json["properties"].keys()


def test_models_lists_all_or_those_that_match(cnnjax):
    rows = cnnjax("models", "--json").done.json
    assert [row["name"] for row in rows] == list_models()
    for row in rows:
        assert {"name", "params", "macs", "input"} <= row.keys()
    some = cnnjax("models", "le*", "--json").done.json
    assert [row["name"] for row in some] == ["lenet5", "lenet5_modern"]
    assert some[0]["params"] == 60_000
    assert some[0]["input"] == [32, 32, 1]
    table = cnnjax("models", "le*").done.out
    assert re.search(r"^lenet5 +60,000 +326,520 +32x32x1 +\[1\]$", table, re.MULTILINE), table
    assert table.count("LeCun, Bottou, Bengio, Haffner 1998") == 1


def test_models_knows_aliases(cnnjax):
    rows = cnnjax("models", "inception_v1", "--json").done.json
    assert [(row["name"], row["aliases"]) for row in rows] == [("googlenet", ["inception_v1"])]
    assert "googlenet is also called inception_v1\n" in cnnjax("models", "googlenet").done.out


def test_models_of_other_libraries(cnnjax):
    rows = cnnjax("models", "keras/ResNet*", "--json").done.json
    assert [(row["name"], row["variant"]) for row in rows] == [
        (f"keras/ResNet{layers}", f"resnet{layers}_v1") for layers in (50, 101, 152)
    ]
    assert rows[0]["fields"]["conv_bias"] is True
    table = cnnjax("models", "keras/ResNet50").done.out
    assert re.search(r"^keras/ResNet50 +resnet50_v1 +224x224x3 +conv_bias=true norm_epsilon=1.001e-05 ", table, re.M)


def test_summary_counts_as_the_paper_does(cnnjax):
    out = cnnjax("summary", "lenet5").done.out
    assert out.startswith("lenet5, input 32x32x1\n")
    assert out.endswith("60,000 parameters, 0 batch statistics, 326,520 multiply-adds, 340,908 connections\n")
    assert re.search(
        r"^c3 +TableConvolution +10x10x16 +5x5 +1x1 +1,516 +150,000 +151,600 +6,400 +14x14$", out, re.MULTILINE
    ), out
    assert re.search(r"^s4 +4x4 +16 +5x5 +16x16$", out, re.MULTILINE), out
    assert "bytes of activations, " in out


def test_summary_shows_pools_and_what_sees_the_whole_image(cnnjax):
    out = cnnjax("summary", "se_resnet18", "stage_sizes=[1,1,1,1]", "--input", "64x96x1").done.out
    assert out.startswith("se_resnet18, input 64x96x1\n")
    assert re.search(r"^max_pool +max_pool +16x24x64 +3x3 +2x2 +0 +0 +98,304 +11x11$", out, re.MULTILINE), out
    assert re.search(r"^stage1 +4x4 +64 +16x24 +27x27 \+ image$", out, re.MULTILINE), out
    assert "\nimage: sees all of it, through a mean over all positions or a dense layer\n" in out
    assert "connec-" not in out  # multiply-adds and biases, as everywhere but in LeNet-5


@pytest.mark.parametrize(("size", "shape"), [("64", [64, 64, 3]), ("64x96", [64, 96, 3]), ("64x96x1", [64, 96, 1])])
def test_summary_takes_sizes_of_images(size, shape, cnnjax):
    small = ("stage_sizes=[1]", "stage_widths=[8]")
    found = cnnjax("summary", "resnet18", *small, "--input", size, "--json").done.json
    assert found["input"] == shape
    assert [each["name"] for each in found["features"]] == ["stem", "stage1"]


def test_summary_of_a_changed_network_as_json(cnnjax):
    found = cnnjax(
        "summary", "lenet5_modern", "dropout=0.5", "norm=batch", "--input", "28", "--channels", "3", "--json"
    )
    assert found.out.count("\n") == 1
    assert {"name", "input", "params", "batch_stats", "macs", "layers"} <= found.json.keys()
    assert found.json["input"] == [28, 28, 3]
    assert found.json["batch_stats"] == 2 * (6 + 16 + 120)
    assert sum(layer["params"] for layer in found.json["layers"]) == found.json["params"]
    plain = cnnjax("summary", "lenet5_modern", "dropout=0.5", "--json").done.json
    assert (plain["params"], plain["batch_stats"]) == (61_706, 0)


def test_train_and_eval_end_in_one_json_object(copied, small, cnnjax):
    trained, evaluated = (
        cnnjax("train", small, "--run-dir", copied, "--json").done,
        cnnjax("eval", copied, "--json").done,
    )
    for outcome in (trained, evaluated):
        assert outcome.out.count("\n") == 1
        assert {"run_dir", "step", "examples", "loss", "accuracy"} <= outcome.json.keys()
        assert outcome.json["run_dir"] == str(copied)
        assert outcome.json["step"] == 6
    assert trained.json["examples"] == 6 * 16
    assert evaluated.json["examples"] == 32
    assert trained.json["accuracy"] == evaluated.json["accuracy"]
    # The run's one device and this process's eight add the losses in another order.
    assert evaluated.json["loss"] == pytest.approx(trained.json["loss"], rel=1e-6)


def test_train_and_eval_without_json_speak_to_people(copied, small, cnnjax):
    numbers = cnnjax("eval", copied, "--json").done.json
    for words in (("train", small, "--run-dir", copied), ("eval", copied)):
        out = cnnjax(*words).done.out
        error = 100 * (1 - numbers["accuracy"])
        assert f"held-out accuracy {numbers['accuracy']:.2%} (error {error:.2f} %), loss {numbers['loss']:.4f}" in out
        assert out.endswith(f"step 6, run folder {copied}\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3.64 TiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore"),
    ],
)
def test_too_little_memory_is_a_sentence(error, small, tmp_path, monkeypatch, cnnjax):
    def fit(*_, **__):
        raise error

    monkeypatch.setattr("cnnjax.train.loop.fit", fit)
    said = cnnjax("train", small, "--run-dir", tmp_path / "run").error
    assert said.startswith("there is not enough memory (")
    assert said.endswith("; choose smaller batches, images or a smaller network")


def test_what_pillow_finds_odd_is_no_news(small, tmp_path, monkeypatch, cnnjax):
    def fit(*_, **__):
        warnings.warn_explicit(
            "Truncated File Read", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin"
        )
        return {"run_dir": "run", "step": 1}

    monkeypatch.setattr("cnnjax.train.loop.fit", fit)
    assert cnnjax("train", small, "--run-dir", tmp_path / "run", "--json").done.err == ""
