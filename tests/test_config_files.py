"""Config files: YAML 1.2, inheritance and overrides."""

import os
import re
from pathlib import Path

import pytest

from cnnjax.config import Config, Duration, GhostBatchNorm
from cnnjax.config_data import IdxSource
from cnnjax.config_files import load_config, merge, parse_yaml
from cnnjax.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """A function that writes files of the given texts and returns the path of the first."""

    def write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-1.5e+2", -150.0),
        (".5", 0.5),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("007", 7),
        ("-3", -3),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("True", "True"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("0x10", "0x10"),
        (".inf", ".inf"),
        ("=", "="),
        ("'1'", "1"),
        ("1e", "1e"),
        ("e3", "e3"),
        (".", "."),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    parsed = parse_yaml(f"a: {text}", "here")["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1\nseed: 2", "here line 1, column 1: not valid YAML: key 'seed' is written twice"),
        ("data:\n  {fit: pad, fit: pad}", "here line 2, column 3: not valid YAML: key 'fit' is written twice"),
        ("seed: [1", "here line 1, column 9: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        (
            "data:\n\tfit: pad",
            r"here line 2, column 1: not valid YAML: found character '\t' that cannot start any token",
        ),
        ("a: 1\n---\nb: 2", "here line 2, column 1: not valid YAML: but found another document"),
        ("a: *b", "here line 1, column 4: not valid YAML: found undefined alias 'b'"),
        ("a: \0", "not valid YAML: unacceptable character #x0000"),
        ("a: 1e999", "here line 1, column 4: not valid YAML: 1e999 is no finite number"),
        ("a: !!float nan", "here line 1, column 4: not valid YAML: nan is no finite number"),
        ("a: !!bool x", "here line 1, column 4: not valid YAML: expected true or false, got 'x'"),
        ("a: !!int x", "here: not valid YAML: invalid literal for int()"),
        ("a: !!int [1]", "expected a scalar node, but found sequence"),
        ("a: !!timestamp 2024-01-01", "could not determine a constructor for the tag"),
        ("a: !!binary aGk=", "could not determine a constructor for the tag"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor for the tag"),
        ("a: &x {b: *x}", "here: not valid YAML: Circular reference detected"),
        ("? [a]\n: 1", "found unhashable key"),
        ("a: &x [1]\n? *x\n: 1\n? *x\n: 2", "found unhashable key"),
        (f"a: {'9' * 5000}", "here: not valid YAML: Exceeds the limit"),
        ("[" * 100_000, "here: not valid YAML: nested too deeply"),
    ],
    ids=range(20),
)
def test_faulty_yaml_is_refused_with_its_place(text, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        parse_yaml(text, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]),
            "with its aliases written out it holds more than 100,000 values",
        ),
        (
            "\n".join(
                ["m0: &m0 {x: 1}", *(f"m{i}: &m{i} {{!!merge <<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 40))]
            ),
            "could not determine a constructor for the tag",
        ),
        ("a: " + "9" * 100_000 + "x\nb: [", "expected the node content"),
        ("".join(f"k{i}: 1\n" for i in range(20_000)) + "k7: 2", "key 'k7' is written twice"),
    ],
    ids=["aliases of aliases", "merges of merges", "a long row of digits", "many keys"],
)
def test_a_small_file_does_not_take_for_ever(text, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        parse_yaml(text, "here")
    assert "\n" not in str(caught.value)


def test_what_is_quoted_of_a_file_neither_speaks_to_the_terminal_nor_fills_it(write):
    assert refusal(write('"\\e[2J\\n": 1')).startswith("\\x1b[2J\\n: unknown key; known: ")
    assert len(refusal(None, f"model.nam{'e' * 10_000}=1")) <= 1000


def test_anchors_work(write):
    config = load_config(write("eval: {every: &often {steps: 5}}\nlog: {every: *often}"))
    assert config.eval.every == config.log.every == Duration(steps=5)


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "null", "\ufeff", "---\n...\n"])
def test_an_empty_file_is_the_defaults(write, text):
    assert load_config(write(text)) == Config(name="run")


@pytest.mark.parametrize("text", ["- 3", "3", "text", "true"])
def test_a_file_without_sections_is_refused(write, text):
    assert "expected sections such as 'model:' and 'data:', got" in refusal(write(text))


def test_a_file_in_windows_spelling_is_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("\ufeffseed: 3\r\ndata:\r\n  batch_size: 64\r\n".encode())
    config = load_config(path)
    assert (config.seed, config.data.batch_size) == (3, 64)


def test_unreadable_files_are_refused(tmp_path, write):
    write("", "lenet.yaml")
    assert refusal(tmp_path / "lennet.yaml").endswith("there is no such file; did you mean 'lenet.yaml'?")
    assert f"there is no folder '{tmp_path / 'no'}' either" in refusal(tmp_path / "no" / "lenet.yaml")
    (tmp_path / "empty").mkdir()
    assert f"there is no .yaml file in '{tmp_path / 'empty'}'" in refusal(tmp_path / "empty" / "lenet.yaml")
    assert "Is a directory" in refusal(tmp_path)
    assert "File name too long" in refusal(tmp_path / ("a" * 300))
    assert "embedded null" in refusal(Path("a\0b"))
    os.symlink("loop.yaml", tmp_path / "loop.yaml")
    assert "cannot be read: " in refusal(tmp_path / "loop.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    assert "not UTF-8 text" in refusal(tmp_path / "latin.yaml")


def test_a_file_without_an_end_is_not_read_to_it(write):
    assert "more than 1,000,000 characters are no config" in refusal(write("base: /dev/zero"))


# Inheritance


def test_the_name_is_the_files_unless_it_says_otherwise(write):
    assert load_config(write("", "lenet.yaml")).name == "lenet"
    assert load_config(write("name: other", "lenet.yaml")).name == "other"
    assert load_config().name == "run"


def test_a_chain_of_bases_is_laid_one_on_the_other(write):
    write("{seed: 1, data: {batch_size: 64, image_size: 28}, train: {duration: {epochs: 3}}}", "first.yaml")
    write("{base: first.yaml, data: {batch_size: 32}, optimizer: {args: {momentum: 0.9}}}", "second.yaml")
    config = load_config(
        write("{base: second.yaml, train: {duration: {steps: 5}}, optimizer: {args: {nesterov: true}}}")
    )
    assert (config.name, config.seed, config.data.batch_size, config.data.image_size) == ("run", 1, 32, 28)
    assert config.train.duration == Duration(steps=5)
    assert config.optimizer.args == {"momentum": 0.9, "nesterov": True}


def test_a_base_is_sought_beside_the_file_that_names_it(tmp_path, write):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write("seed: 3", "deep/first.yaml")
    write("base: ../first.yaml", "deep/er/second.yaml")
    assert load_config(write("base: deep/er/second.yaml")).seed == 3


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({"run.yaml": "base: run.yaml"}, "inherits from itself through base: run.yaml -> run.yaml"),
        ({"run.yaml": "base: b.yaml", "b.yaml": "base: ./run.yaml"}, "run.yaml -> b.yaml -> run.yaml"),
        ({"run.yaml": "base: ren.yaml"}, "there is no such file; did you mean 'run.yaml'?"),
        ({"run.yaml": "base: [a]"}, "run.yaml: base: expected the name of a file, got a list (['a'])"),
        ({"run.yaml": "base: 3"}, "run.yaml: base: expected the name of a file, got a number (3)"),
        ({"run.yaml": 'base: "\\0"'}, "embedded null"),
        ({"run.yaml": "base: b.yaml", "b.yaml": "seed: ["}, "b.yaml line 1, column 8: not valid YAML"),
        ({"run.yaml": "base: b.yaml", "b.yaml": "sed: 3"}, "sed: unknown key; did you mean 'seed'?"),
    ],
)
def test_faulty_bases_are_refused(write, texts, sentence):
    paths = [write(text, name) for name, text in texts.items()]
    assert sentence in refusal(paths[0])


def test_merging_changes_neither_side():
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merge(base, over) == {"a": {"b": 3, "c": 2}}
    assert (base, over) == ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})


# Overrides


def test_overrides_reach_every_depth(write):
    path = write("{data: {batch_size: 64}, model: {name: lenet5, args: {pooling: max}}}")
    config = load_config(
        path,
        [
            "seed=3",
            "name = swept",
            "optimizer.args.momentum=.9",
            "model.args.dropout=1e-1",
            "data.mean=[0.1, 0.2]",
            "train.batch_norm={ghost: 16}",
            "eval.every=null",
            "data.image_size=",
        ],
    )
    assert (config.seed, config.name, config.data.batch_size, config.data.mean) == (3, "swept", 64, (0.1, 0.2))
    assert config.optimizer.args == {"momentum": 0.9}
    assert config.model.args == {"pooling": "max", "dropout": 0.1}
    assert config.train.batch_norm == GhostBatchNorm(ghost=16)
    assert config.eval.every is None
    assert config.data.image_size is None


def test_a_later_override_wins():
    assert load_config(None, ["seed=1", "seed=2"]).seed == 2


def test_another_unit_replaces_the_duration():
    assert load_config(None, ["train.duration.steps=5"]).train.duration == Duration(steps=5)
    assert load_config(None, ["train.duration.steps=5", "train.duration.epochs=2"]).train.duration == Duration(epochs=2)


def test_another_kind_drops_what_belonged_to_the_old_one(write):
    path = write("data: {source: {kind: synthetic, noise: 0.5}}")
    assert load_config(path, ["data.source.kind=synthetic"]).data.source.noise == 0.5
    assert load_config(path, ["data.source.kind=idx", "data.source.path=a"]).data.source == IdxSource(
        kind="idx", path=Path("a")
    )


@pytest.mark.parametrize("section", ["model", "optimizer"])
def test_another_name_drops_the_old_ones_args(write, section):
    path = write(f"{section}: {{name: old, args: {{a: 1}}}}")
    assert getattr(load_config(path, [f"{section}.args.b=2"]), section).args == {"a": 1, "b": 2}
    assert getattr(load_config(path, [f"{section}.name=old"]), section).args == {"a": 1}
    assert getattr(load_config(path, [f"{section}.name=new", f"{section}.args.b=2"]), section).args == {"b": 2}


def test_a_section_of_another_kind_and_name_is_refused_as_it_is():
    assert "schedule.name: unknown key" in refusal(None, "schedule={kind: constant, name: x}", "schedule.args={}")
    assert merge({"kind": "cosine", "args": {}, "name": "a"}, {"kind": "idx", "name": "b"}) == {
        "kind": "idx",
        "name": "b",
    }


@pytest.mark.parametrize("key", ["kind", "name", "steps", "args"])
def test_args_may_be_named_like_the_configs_own_keys(write, key):
    config = load_config(write("model: {args: {width: 2, epochs: 1}}"), [f"model.args.{key}=3"])
    assert config.model.args == {"width": 2, "epochs": 1, key: 3}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed", "override 'seed': expected section.key=value, for example schedule.learning_rate=0.1"),
        ("=3", "override '=3': expected section.key=value"),
        ("=a\nb", "override '=a\\nb': expected section.key=value"),
        ("data..fit=pad", "override 'data..fit=pad': expected section.key=value"),
        (".seed=3", "expected section.key=value"),
        ("seed=[", "override 'seed=[' line 1, column 2: not valid YAML"),
        ("seed=1e999", "override 'seed=1e999' line 1, column 1: not valid YAML: 1e999 is no finite number"),
        ("seed=", "seed: expected a valid integer, got nothing"),
        ("seed.a=3", "seed: expected a valid integer, got a mapping"),
        ("sed=3", "sed: unknown key; did you mean 'seed'?"),
        ("data.source.sed=3", "data.source.sed: unknown key; known: kind, split_seed, test_fraction"),
        ("base=other.yaml", "base: unknown key"),
        (".".join(["a"] * 5000) + "=1", "nested too deeply"),
        ("model.args." + ".".join(["a"] * 5000) + "=1", "nested too deeply"),
    ],
    ids=range(14),
)
def test_faulty_overrides_are_refused(override, sentence):
    assert sentence in refusal(None, override)


def test_another_kind_keeps_what_it_shares_with_the_old_one(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text("schedule: {kind: cosine, learning_rate: 0.01, warmup: {epochs: 1}, end_factor: 0.1}\n")
    schedule = load_config(path, ["schedule.kind=constant"]).schedule
    assert (schedule.kind, schedule.learning_rate, schedule.warmup.epochs) == ("constant", 0.01, 1)


def test_the_order_of_overrides_that_choose_a_kind_does_not_matter():
    words = ["data.source.path=somewhere", "data.source.kind=idx"]
    assert load_config(None, words) == load_config(None, words[::-1])
