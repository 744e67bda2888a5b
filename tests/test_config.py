"""What a config may hold: every kind of fault is named by its path, and the schema says the same as the checks."""

import math
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from cnnjax.config import Config, Duration, ModelConfig
from cnnjax.config_base import without_places
from cnnjax.config_files import check, json_schema, load_config, parse_yaml, to_tree
from cnnjax.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs" / "train").glob("*.yaml"))


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(parse_yaml(text, "here"))
    return str(caught.value).split("\n")


UNKNOWN_KEYS = {
    "schedul: {}": "schedul: unknown key; did you mean 'schedule'?",
    "zzz: 3": f"zzz: unknown key; known: {', '.join(sorted(Config.model_fields))}",
    "data: {bach_size: 3}": "data.bach_size: unknown key; did you mean 'batch_size'?",
    "train: {duration: {step: 3}}": "train.duration.step: unknown key; did you mean 'steps'?",
    "data: {source: {kind: idx, path: a, train_image: b}}": "data.source.train_image: unknown key; "
    "did you mean 'train_images'?",
    "data: {source: {split_sed: 1}}": "data.source.split_sed: unknown key; did you mean 'split_seed'?",
    # A key that is spelled like a name which pydantic gives to a branch of a union.
    "data: {source: {kind: idx, path: a, idx: 1}}": "data.source.idx: unknown key; known: class_names, kind, path, "
    "test_images, test_labels, train_images, train_labels",
    "log: {interval: 3}": "log.interval: unknown key; known: every, tensorboard",
    "log: {floats: 3}": "log.floats: unknown key; known: every, tensorboard",
    "train: {loss: {label_smothing: 0.1}}": "train.loss.label_smothing: unknown key; did you mean 'label_smoothing'?",
    "schedule: {kind: step, boundaries: [{steps: 1}, {epoch: 2}]}": "schedule.boundaries[1].epoch: unknown key; "
    "did you mean 'epochs'?",
    "1: 3": f"1: unknown key; known: {', '.join(sorted(Config.model_fields))}",
}

WRONG_VALUES = {
    'data: {batch_size: "3"}': "data.batch_size: expected a valid integer, got text ('3')",
    "data: {batch_size: true}": "data.batch_size: expected a valid integer, got true or false (True)",
    "data: {batch_size: 3.0}": "data.batch_size: expected a valid integer, got a number (3.0)",
    "data: {batch_size: [3]}": "data.batch_size: expected a valid integer, got a list ([3])",
    "data: {batch_size: null}": "data.batch_size: expected a valid integer, got nothing",
    "data: {batch_size: 0}": "data.batch_size: expected greater than 0, got a number (0)",
    "schedule: {learning_rate: fast}": "schedule.learning_rate: expected a valid number, got text ('fast')",
    "schedule: {learning_rate: true}": "schedule.learning_rate: expected a valid number, got true or false (True)",
    "optimizer: {decay_norm_and_bias: 1}": "optimizer.decay_norm_and_bias: expected a valid boolean, got a number (1)",
    "name: 3": "name: expected a valid string, got a number (3)",
    "model: {args: [3]}": "model.args: expected a mapping, got a list ([3])",
    "data: [1]": "data: expected a mapping, got a list ([1])",
    "eval: null": "eval: expected a mapping, got nothing",
    "data: {mean: [0.1, a]}": "data.mean[1]: expected a valid number, got text ('a')",
    "data: {std: [0.1, 0.0]}": "data.std[1]: expected greater than 0, got a number (0.0)",
    "schedule: {kind: step, boundaries: [3]}": "schedule.boundaries[0]: expected a mapping, got a number (3)",
    "schedule: {warmup: {epochs: -1}}": "schedule.warmup.epochs: expected greater than 0, got a number (-1)",
    "train: {ema_decay: 1.0}": "train.ema_decay: expected less than 1, got a number (1.0)",
    "data: {image_size: 3}": "data.image_size: expected greater than or equal to 4, got a number (3)",
    "seed: -1": "seed: expected greater than or equal to 0, got a number (-1)",
    # JAX's keys take 32 bits: a larger seed would be another one's double.
    "seed: 4294967296": "seed: expected less than 4294967296, got a number (4294967296)",
    "train: {batch_norm: {ghost: 0}}": "train.batch_norm.ghost: expected greater than 0, got a number (0)",
}

WRONG_CHOICES = {
    "train: {precision: float16}": "train.precision: expected 'float32' or 'bfloat16', got 'float16'; "
    "did you mean 'bfloat16'?",
    "train: {batch_norm: globl}": "train.batch_norm: expected 'global', 'local' or 'frozen', got 'globl'; "
    "did you mean 'global'?",
    "train: {batch_norm: 3}": "train.batch_norm: expected 'global', 'local' or 'frozen', got a number (3)",
    "parallel: {executor: xmap}": "parallel.executor: expected 'jit' or 'pmap', got 'xmap'; did you mean 'pmap'?",
    "data: {source: {kind: idxx}}": "data.source: unknown kind 'idxx'; did you mean 'idx'?",
    "schedule: {kind: cosin}": "schedule: unknown kind 'cosin'; did you mean 'cosine'?",
    "schedule: {kind: 3}": "schedule: unknown kind '3'; known: constant, cosine, polynomial, step",
    "train: {loss: mse}": "train.loss: expected a mapping, got text ('mse')",
}

# Faults of the whole, which a single file cannot know: it may inherit what it leaves out.
MISSING = {
    "schedule: {boundaries: [{steps: 1}]}": "schedule.boundaries: unknown key; "
    "known: batch_scaling, end_factor, kind, learning_rate, reference_batch, warmup, warmup_from",
    "data: {source: {kind: idx}}": "data.source.path: is required and was not given",
    "schedule: {kind: step}": "schedule.boundaries: is required and was not given",
    "train: {batch_norm: {}}": "train.batch_norm.ghost: is required and was not given",
}

IMPOSSIBLE = {
    "train: {duration: {steps: 3, epochs: 2}}": "train.duration: expected exactly one of steps, epochs, examples; "
    "got steps and epochs",
    "schedule: {warmup: {}}": "schedule.warmup: expected exactly one of steps, epochs, examples; got none of them",
    "schedule: {kind: step, boundaries: []}": "schedule: expected at least one boundary; for none, "
    "choose kind: constant",
    "schedule: {batch_scaling: sqrt}": "schedule: batch_scaling: sqrt needs a reference_batch; give one, or leave "
    "batch_scaling out",
    "schedule: {warmup: {steps: 1}, warmup_from: reference}": "schedule: warmup_from: reference needs a "
    "reference_batch; give one, or leave warmup_from out",
    "schedule: {reference_batch: 256, warmup_from: reference}": "schedule: warmup_from: reference needs a warmup; "
    "give one, or leave warmup_from out",
    'parallel: {coordinator: "a:1"}': "parallel: expected coordinator, processes and process_id together, "
    "or none of them",
    'parallel: {coordinator: "a:1", processes: 2, process_id: 2}': "parallel: process_id 2 is not below processes 2",
    "parallel: {devices: 7}": "data.batch_size: 128 is not divisible by devices times optimizer.accumulate = 7; "
    "126 would be",
    "optimizer: {accumulate: 3}": "data.batch_size: 128 is not divisible by devices times optimizer.accumulate = 3; "
    "129 would be",
    "{parallel: {devices: 8}, eval: {batch_size: 100}}": "eval.batch_size: 100 is not divisible by devices = 8; "
    "96 would be",
    "train: {batch_norm: {ghost: 13}}": "a device's micro-batch: 128 is not divisible by train.batch_norm.ghost = 13; "
    "130 would be",
    "{parallel: {devices: 2}, optimizer: {accumulate: 4}, train: {batch_norm: {ghost: 32}}}": "a device's "
    "micro-batch: 16 is not divisible by train.batch_norm.ghost = 32; 32 would be",
}


@pytest.mark.parametrize(
    ("text", "sentence"), [*({**UNKNOWN_KEYS, **WRONG_VALUES, **WRONG_CHOICES, **MISSING, **IMPOSSIBLE}.items())]
)
def test_a_fault_is_one_sentence_with_its_path(text, sentence):
    assert faults(text) == [sentence]


def test_all_faults_are_told_at_once():
    text = "{seed: x, data: {source: {kind: idx, pth: a}, std: 0}, train: {precision: f, batch_norm: {gost: 3}}}"
    assert [sentence.split(":")[0] for sentence in faults(text)] == [
        "seed",
        "data.source.path",
        "data.source.pth",
        "data.std",
        "data.std",
        "train.precision",
        "train.batch_norm.ghost",
        "train.batch_norm.gost",
    ]


def test_very_many_faults_are_told_of_in_part():
    told = faults(f"{{{', '.join(f'key{number}: 1' for number in range(50))}}}")
    assert len(told) == 21
    assert told[-1] == "and 30 more faults like these"


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"schedule": {"learning_rate": math.inf}}, "schedule.learning_rate: expected a finite number"),
        ({"schedule": {"learning_rate": math.nan}}, "schedule.learning_rate: expected a finite number"),
        ({"optimizer": {"args": {"momentum": math.nan}}}, "the config holds a value that YAML cannot: Out of range"),
        ({"model": {"name": {1, 2}}}, "the config holds a value that YAML cannot"),
        ({"model": {"name": "\ud800"}}, "no Unicode"),
        ({("a", "b"): 1}, "the config holds a value that YAML cannot"),
    ],
)
def test_values_that_yaml_cannot_hold_are_refused(tree, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check(tree)


@pytest.mark.parametrize("depth", [50, 190, 250, 100_000])
def test_deep_nesting_is_refused(depth):
    tree: dict = {}
    for _ in range(depth):
        tree = {"a": tree}
    with pytest.raises(ConfigError, match="nested too deeply"):
        check({"model": {"args": tree}})


def test_an_alias_of_itself_is_refused():
    tree: dict = {"a": 1}
    tree["self"] = tree
    with pytest.raises(ConfigError, match="Circular"):
        check({"model": {"args": tree}})


def test_a_config_is_frozen():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.data.batch_size = 3


def test_configs_share_no_mutable_default():
    ModelConfig().args["a"] = 1
    assert ModelConfig().args == {}
    assert Config().model.args == {}


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        (Duration(steps=7), 7),
        (Duration(epochs=3), 30),
        (Duration(epochs=0.25), 2),
        (Duration(epochs=0.01), 1),
        (Duration(examples=640), 20),
        (Duration(examples=1), 1),
        (Duration(examples=1000), 31),
    ],
)
def test_durations_in_steps(duration, steps):
    assert duration.to_steps(steps_per_epoch=10, batch_size=32) == steps


@pytest.mark.parametrize("text", ["{steps: 2147483648}", "{epochs: 1e10}", "{examples: 9007199254740992}"])
def test_more_steps_than_can_be_counted(text):
    (sentence,) = faults(f"train: {{duration: {text}}}")
    assert "expected less than" in sentence


def test_any_duration_is_a_number_of_steps_that_can_be_counted():
    for longest in (Duration(steps=2**31 - 1), Duration(epochs=2**31 - 1), Duration(examples=2**53 - 1)):
        assert longest.to_steps(steps_per_epoch=10**6, batch_size=1) == 2**31 - 1


def test_a_nul_is_refused_wherever_it_stands():
    for text in ('name: "a\\0b"', 'model: {args: {"\\\\\\0": 1}}', 'parallel: {compilation_cache: "\\0"}'):
        assert faults(text) == ["the config holds a NUL character, which no text and no path has"]
    assert check(parse_yaml(r"name: '\u0000'", "")).name == r"\u0000"


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_batches_that_spread_evenly_pass(devices):
    config = check({"data": {"batch_size": 64}, "optimizer": {"accumulate": 2}, "train": {"batch_norm": {"ghost": 4}}})
    config.check_batches(devices)


def test_batches_that_do_not_spread_over_the_devices_there_are():
    with pytest.raises(ValueError, match=r"128 is not divisible by devices times optimizer\.accumulate = 6"):
        Config().check_batches(6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "expected exactly one of path and pretrained; got neither"),
        ({"path": "run", "pretrained": "timm/resnet50"}, "expected exactly one of path and pretrained; got both"),
        ({"pretrained": "timm/resnet50", "checkpoint": "best"}, "checkpoint: it is of a run in path"),
    ],
)
def test_a_run_starts_from_one_place(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check({"init_from": given})
    assert check({"init_from": {"pretrained": "timm/resnet50"}}).init_from.path is None


def test_no_page_names_a_folder_of_the_machine():
    config = check(
        {
            "data": {"source": {"kind": "masks", "images": "/home/x/i", "masks": "m/m", "class_names": ["a", "b"]}},
            "init_from": {"path": "/home/x/run"},
            "parallel": {"compilation_cache": "/home/x/cache"},
        }
    )
    shown = without_places(config)
    assert "home" not in str(to_tree(shown))
    assert (shown.data.source.images, shown.data.source.masks) == (Path("i"), Path("m/m"))
    assert (shown.init_from.path, shown.parallel.compilation_cache) == (Path("run"), Path("cache"))
    assert without_places(Config()) == Config()


# The JSON schema


def schema_faults(schema: dict, value: object, root: dict) -> list[str]:
    """What a JSON-schema validator would say, for the part of the language that pydantic writes."""
    if "$ref" in schema:
        return schema_faults(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    if "anyOf" in schema:
        return min((schema_faults(choice, value, root) for choice in schema["anyOf"]), key=len)
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{value!r} is no {kind}"]
    found = []
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        found.append(f"{value!r} is no choice")
    if isinstance(value, int | float) and not isinstance(value, bool):
        found += [f"{value} < minimum" for _ in [0] if value < schema.get("minimum", -math.inf)]
        found += [f"{value} <= minimum" for _ in [0] if value <= schema.get("exclusiveMinimum", -math.inf)]
        found += [f"{value} > maximum" for _ in [0] if value > schema.get("maximum", math.inf)]
        found += [f"{value} >= maximum" for _ in [0] if value >= schema.get("exclusiveMaximum", math.inf)]
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
            found.append(f"{value} has {len(value)} items")
        each = schema.get("prefixItems", [schema.get("items")] * len(value))
        found += [fault for kind, item in zip(each, value, strict=False) for fault in schema_faults(kind, item, root)]
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        found += [f"{key} is unknown" for key in value if key not in known and not schema["additionalProperties"]]
        found += [fault for key in value if key in known for fault in schema_faults(known[key], value[key], root)]
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_project_loads_and_fits_the_schema(path):
    schema = json_schema()
    config = load_config(path)
    assert config.name == path.stem
    assert schema_faults(schema, parse_yaml(path.read_text(encoding="utf-8"), ""), schema) == []
    assert schema_faults(schema, to_tree(config), schema) == []


@pytest.mark.parametrize("text", [*UNKNOWN_KEYS, *WRONG_VALUES, *WRONG_CHOICES])
def test_the_schema_refuses_what_the_checks_refuse(text):
    schema = json_schema()
    assert schema_faults(schema, {str(key): value for key, value in parse_yaml(text, "here").items()}, schema) != []


def test_the_schema_has_no_words_that_the_validator_above_skips():
    understood = {"$ref", "anyOf", "type", "const", "enum", "items", "properties", "additionalProperties"}
    understood |= {"minItems", "maxItems", "prefixItems"}
    understood |= {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}
    understood |= {"$defs", "title", "description", "default", "format"}  # not for checking

    def words(node):
        if isinstance(node, list):
            return set().union(*map(words, node))
        if not isinstance(node, dict):
            return set()
        below = [
            each
            for key, value in node.items()
            if key not in ("default", "enum")
            for each in (value.values() if key in ("properties", "$defs") else [value])
        ]
        return set(node).union(*map(words, below))

    assert words(json_schema()) <= understood


def test_the_schema_explains_every_section_and_allows_inheritance():
    schema = json_schema()
    assert schema["properties"]["base"]["type"] == "string"
    assert schema["$defs"]["DataConfig"]["properties"]["batch_size"]["description"].startswith("Examples a step")
    assert all("description" in definition for definition in schema["$defs"].values())
