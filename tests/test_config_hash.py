"""A config's hash, its differences, its way to YAML and back, and no crash whatever a file holds."""

import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnjax.config import Config, Duration
from cnnjax.config_data import IdxSource
from cnnjax.config_files import check, check_as, config_hash, diff, load_config, parse_yaml, to_yaml
from cnnjax.config_schedule import StepSchedule
from cnnjax.errors import ConfigError

RICH = """
seed: 3
model: {name: lenet5, args: {pooling: max, width: 2}}
data: {source: {kind: idx, path: mnist}, batch_size: 96, mean: [0.1, 0.2], image_size: null}
optimizer: {name: adamw, args: {b1: 0.8}, weight_decay: 1e-4, clip_norm: 1.0, accumulate: 2}
schedule: {kind: step, learning_rate: 1e-3, warmup: {steps: 5}, boundaries: [{epochs: 1.5}, {steps: 90}], factor: 0.5}
train:
  duration: {examples: 5000}
  loss: {kind: lenet_map, rubbish: 0.2}
  precision: bfloat16
  batch_norm: {ghost: 16}
  ema_decay: 0.99
eval: {every: null}
"""


@pytest.mark.parametrize(("text", "value"), [("", "44136fa3"), (RICH, "2cc35a5f")], ids=["defaults", "rich"])
def test_hashes_stay_what_they_were(text, value):
    # Run folders are found by them; if a change of meaning is intended, say so in its commit.
    assert config_hash(check(parse_yaml(text, "here") or {})) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{seed: 3, data: {fit: pad, batch_size: 64}}", "{data: {batch_size: 64, fit: pad}, seed: 3}"),
        ("schedule: {learning_rate: 1e-3}", "schedule: {learning_rate: 0.001}"),
        ("schedule: {learning_rate: 1}", "schedule: {learning_rate: 1.0}"),
        ("schedule: {learning_rate: 0.01}", "schedule: {kind: cosine, learning_rate: 1.0e-2, end_factor: 0}"),
        ("{model: {args: {b: 1, a: 2}}}", "{model: {args: {a: 2, b: 1}}}"),
        ("{}", "{seed: 0, train: {duration: {epochs: 60}}, data: {source: {test_fraction: 0.2}}}"),
        ("{}", "{name: other}"),
        ("{}", "{log: {every: {steps: 1}, tensorboard: true}}"),
        ("{}", "{checkpoint: {every: {steps: 1}, keep_last: 5, keep_best: 0}}"),
        ("{}", "{parallel: {devices: 8, executor: pmap, distributed: off}}"),
    ],
)
def test_the_same_meaning_has_the_same_hash(one, other):
    assert config_hash(check(parse_yaml(one, ""))) == config_hash(check(parse_yaml(other, "")))


def test_inheritance_leaves_the_hash_alone(tmp_path):
    (tmp_path / "first.yaml").write_text("{seed: 3, data: {fit: resize}}")
    (tmp_path / "second.yaml").write_text("{base: first.yaml, data: {fit: pad}}")
    whole = check({"seed": 3, "data": {"fit": "pad"}})
    assert config_hash(load_config(tmp_path / "second.yaml")) == config_hash(whole)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "model.name=lenet5",
        "model.args.a=1",
        "data.batch_size=64",
        "data.source.split_seed=1",
        "data.source.kind=synthetic",
        "data.mean=0.1",
        "optimizer.args.momentum=0.9",
        "optimizer.accumulate=2",
        "schedule.learning_rate=0.2",
        "schedule.kind=constant",
        "train.duration.epochs=61",
        "train.precision=bfloat16",
        "train.batch_norm=local",
        "eval.batch_size=128",
    ],
)
def test_another_meaning_has_another_hash(override):
    changed = load_config(None, [override])
    assert config_hash(changed) != config_hash(Config())
    assert re.fullmatch("[0-9a-f]{8}", config_hash(changed))


def test_difference_by_dotted_path():
    new = load_config(None, ["seed=3", "model.args.a=1", "schedule.kind=constant", "data.mean=[0.1]"])
    assert diff(Config(), new) == {
        "seed": (0, 3),
        "data.mean": (0.0, [0.1]),
        "schedule.kind": ("cosine", "constant"),
        "schedule.end_factor": (0.0, None),
        "model.args.a": (None, 1),
    }
    assert diff(new, new) == {}


NAMES = [
    "yes",
    "1e3",
    "1.",
    "0x1",
    "1_0",
    "12:30",
    "2024-01-01",
    "null",
    "~",
    "<<",
    "=",
    "ä: #",
    " a ",
    "a\nb",
    "\x85",
    "---",
]


@pytest.mark.parametrize("text", ["{}", RICH, *(f"name: {json.dumps(name)}" for name in NAMES)])
def test_yaml_is_read_back_as_it_was(tmp_path, text):
    config = check(parse_yaml(text, ""))
    path = tmp_path / "written.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config
    assert config_hash(load_config(path)) == config_hash(config)


def test_rich_config_is_what_it_says():
    config = check(parse_yaml(RICH, ""))
    assert isinstance(config.schedule, StepSchedule)
    assert config.schedule.boundaries == (Duration(epochs=1.5), Duration(steps=90))
    assert config.data.mean == (0.1, 0.2)
    assert config.eval.every is None


def test_a_section_can_be_checked_by_itself():
    assert check_as(Duration, {"steps": 3}) == Duration(steps=3)
    with pytest.raises(ConfigError, match=r"^log\.every\.step: unknown key; did you mean 'steps'\?$"):
        check_as(Duration, {"step": 3, "epochs": 1}, "log.every")


# Whatever a file holds

WORDS = st.sampled_from(
    [*Config.model_fields, *IdxSource.model_fields, "duration", "steps", "kind", "args", "batch_norm", "idx", "ghost"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5) | st.integers(), inner),
    max_leaves=12,
)
LIKELY_TREES = st.fixed_dictionaries({}, optional=dict.fromkeys(Config.model_fields, TREES))
quickly = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loads_or_refuses(load) -> None:
    """Nothing but ConfigError may come of it, and what loads must survive being written and read."""
    try:
        config = load()
    except ConfigError:
        return
    assert check(parse_yaml(to_yaml(config), "")) == config
    assert math.isfinite(config.schedule.learning_rate)


@quickly
@given(st.text(), st.dictionaries(st.text(max_size=5), SCALARS, max_size=3))
def test_any_text_survives_being_written_and_read(name, args):
    loads_or_refuses(lambda: check({"name": name, "model": {"args": args}}))


@quickly
@given(LIKELY_TREES | st.dictionaries(st.text(max_size=5), TREES))
def test_any_tree_loads_or_is_refused(tree):
    loads_or_refuses(lambda: check(tree))


@quickly
@given(st.binary(max_size=60) | st.text(alphabet="ab:{}[]-?*&!|>'\"#,% \n\t1.e_<=~@", max_size=40).map(str.encode))
def test_any_bytes_load_or_are_refused(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    loads_or_refuses(lambda: load_config(path))


@quickly
@given(st.lists(st.tuples(st.lists(WORDS | st.text(max_size=4), max_size=4), st.text(max_size=8)), max_size=3))
def test_any_overrides_load_or_are_refused(parts):
    overrides = [f"{'.'.join(path)}={value}" for path, value in parts]
    loads_or_refuses(lambda: load_config(None, overrides))
