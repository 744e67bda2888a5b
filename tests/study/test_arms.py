"""From a study's file to its arms."""

from pathlib import Path

import pytest

from cnnjax.errors import ConfigError
from cnnjax.study.arms import Range, read_study, slug
from cnnjax.train.task import check_names

HEAD = "question: Is it so?\nconfig: {model: {name: lenet5_modern}}\n"


@pytest.fixture
def arms_of(tmp_path):
    def read(text, *overrides, head=HEAD):
        path = tmp_path / "study.yaml"
        path.write_text(head + text)
        return read_study(path, overrides)[1]

    return read


def test_axes_are_crossed_and_arms_are_named_by_their_values(arms_of):
    arms = arms_of(
        "axes:\n  norm:\n    with: {model.args.norm: batch}\n    without: {}\n  data.batch_size: [64, 128]\n",
    )
    assert [arm.name for arm in arms] == [
        *("with, batch_size=64", "with, batch_size=128", "without, batch_size=64", "without, batch_size=128"),
    ]
    assert (arms[1].config.model.args, arms[1].config.data.batch_size) == ({"norm": "batch"}, 128)
    assert arms[2].config.model.args == {}


def test_arms_inherit_from_a_config_file(arms_of, tmp_path):
    (tmp_path / "base.yaml").write_text("model: {name: vgg11, args: {stem: small}}\ndata: {batch_size: 16}\n")
    head = "question: Is it so?\nbase: base.yaml\nconfig: {data.batch_size: 32}\n"
    (arm,) = arms_of("axes: {model.args.width: [0.5]}\n", head=head)
    assert (arm.config.model.name, arm.config.model.args) == ("vgg11", {"stem": "small", "width": 0.5})
    assert arm.config.data.batch_size == 32


def test_another_network_does_not_keep_the_arguments_of_the_shared_one(arms_of):
    (arm,) = arms_of("axes: {network: {vgg: {model.args.width: 0.5, model.name: vgg11}}}\n")
    assert (arm.config.model.name, arm.config.model.args) == ("vgg11", {"width": 0.5})


def test_overrides_are_shared_by_all_arms_and_yield_to_the_axes(arms_of):
    arms = arms_of("axes: {data.batch_size: [64, 128]}\n", "data.batch_size=8", "train.duration.steps=7")
    assert [arm.config.data.batch_size for arm in arms] == [64, 128]
    assert {arm.config.train.duration.steps for arm in arms} == {7}


def test_seeds_are_the_same_in_all_arms_unless_the_design_is_independent(arms_of):
    text = "axes: {data.batch_size: [64, 128]}\nseeds: [3, 5]\n"
    assert [arm.seeds for arm in arms_of(text)] == [(3, 5), (3, 5)]
    one, other = (set(arm.seeds) for arm in arms_of(text + "design: independent\n"))
    assert (len(one), len(other), one & other) == (2, 2, set())


def test_a_runs_folder_changes_with_what_it_computes_and_only_then(arms_of):
    (arm,) = arms_of("axes: {data.batch_size: [64]}\n")
    (logged,) = arms_of("axes: {data.batch_size: [64]}\n", "log.every.steps=3")
    (longer,) = arms_of("axes: {data.batch_size: [64]}\n", "train.duration.steps=3")
    assert arm.folder_of(1) == logged.folder_of(1)
    assert len({arm.folder_of(0), arm.folder_of(1), longer.folder_of(1)}) == 3
    assert arm.folder_of(1).startswith("batch_size=64-seed1-")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{start: 1, stop: 3, step: 1}", [1, 2, 3]),
        ("{start: 0.1, stop: 0.35, step: 0.1}", [0.1, 0.2, 0.3]),
        ("{start: 2, stop: 16, count: 4}", [2, 4, 8, 16]),
        ("{start: 3, stop: 1, step: -1}", [3, 2, 1]),
    ],
)
def test_ranges(arms_of, text, values):
    arms = arms_of(f"axes: {{schedule.learning_rate: {text}}}\n")
    assert [arm.config.schedule.learning_rate for arm in arms] == values


def test_whole_numbers_of_a_range_are_whole():
    assert [type(value) for value in Range(start=1, stop=2, step=0.5).values()] == [int, float, int]


def test_a_grid_of_phi_scales_the_network_and_its_images(arms_of):
    head = "question: Is it so?\nconfig: {model: {name: cifar_resnet20, args: {width: 0.5}}, data: {image_size: 16}}\n"
    arms = arms_of("axes: {scaling: {phi: [-1, 0, 2], strategy: [compound, width]}}\nseeds: 1\n", head=head)
    assert [arm.name for arm in arms] == ["compound phi=-1", "width phi=-1", "phi=0", "compound phi=2", "width phi=2"]
    base, compound, wide = arms[2].config, arms[3].config, arms[4].config
    assert (base.model.args, base.data.image_size) == ({"width": 0.5}, 16)
    assert compound.model.args == pytest.approx({"width": 0.5 * 1.1**2, "depth": 1.2**2})
    assert compound.data.image_size == round(16 * 1.15**2)
    assert wide.model.args == pytest.approx({"width": 0.5 * (1.2 * 1.1**2 * 1.15**2)})
    assert wide.data.image_size == 16


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected either axes, whose arms are trained, or computations"),
        ("axes: {width: [1, 2]}\n", "axes.width: a list needs a path of the config"),
        ("axes: {model.args.width: 3}\n", "axes.model.args.width: expected a list of values, a range"),
        ("axes: {data.batch_size: [0]}\n", "arm 'batch_size=0': data.batch_size: expected greater than 0"),
        ("axes: {data.batchsize: [2]}\n", "arm 'batchsize=2': data.batchsize: unknown key; did you mean 'batch_size'?"),
        ("axes: {data.batch_size: [2, 2]}\n", "axes: two arms are called 'batch_size=2'"),
        ("axes: {net: {é: {}, ü: {}}}\n", "the arms 'é' and 'ü' would both be '' as names of folders"),
        ("axes: {data.batch_size: []}\n", "axes.data.batch_size: expected a value or more, got none"),
        ("axes: {net: {phi: []}}\n", "axes.net: expected a phi and a strategy or more, got none"),
        (
            "axes: {data.batch_size: [1]}\nmetric: test_eror\n",
            "metric: there is no 'test_eror'; did you mean 'test_err",
        ),
        (
            "axes: {data.batch_size: [1]}\nmetric: gradient_norm.end.head\n",
            "metric: there is no 'gradient_norm.end.head'",
        ),
        (
            "axes: {data.batch_size: [1, 2]}\nseeds: [0, 100000]\ndesign: independent\n",
            "seeds: an independent design adds 100000 to them with each arm, and then two arms share one",
        ),
        ("axes: {data.batch_size: {start: 1, stop: 2}}\n", "expected exactly one of step and count"),
        ("axes: {data.batch_size: {start: 1, stop: 2, step: -1}}\n", "step: -1 does not lead from 1 to 2"),
        ("axes: {data.batch_size: {start: 0, stop: 2, count: 2}}\n", "equal ratios need start and stop above 0"),
        ("axes: {net: {a: 3}}\n", "axes.net.a: expected what it changes"),
        ("axes: {net: {phi: [1], strategy: [both]}}\n", "axes.net.strategy[0]: expected 'compound', 'depth', 'width'"),
        ("axes: {data.batch_size: [1]}\nbaseline: other\n", "baseline: there is no arm 'other'; known: batch_size=1"),
        ("axes: {data.batch_size: [1]}\nseeds: [1, 1]\n", "seeds: expected some, each once"),
        (
            "axes: {data.batch_size: [1, 2]}\nbudget: {runs: 9}\n",
            "2 arms with 5 seeds are 10 runs, and budget.runs allows 9",
        ),
        (
            "axes: {net: {a: {data: 1, data.fit: pad}}}\n",
            "'data.fit': 'data' is no section here, since it is a number (1)",
        ),
        (
            f"axes: {{{', '.join(f'model.args.a{i}: {list(range(50))}' for i in range(9))}}}\n",
            f"{50**9} arms with 5 seeds are {5 * 50**9} runs, and budget.runs allows 200",
        ),
        ("axes: {data.batch_size: [1]}\nseeds: 100000000000\n", "1 arms with 100000000000 seeds are"),
        (
            "axes: {schedule.learning_rate: {start: 1e-308, stop: 1e308, count: 5}}\n",
            "axes.schedule.learning_rate: 1e-308 and 1e+308 are too far apart to count between",
        ),
        ("axes: {seed: [1, 2]}\n", "arm 'seed=1': seed: which seeds a study has is said by `seeds`"),
        ("axes: {data.batch_size: [1]}\nquestions: 1\n", "questions: unknown key; did you mean 'question'?"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(arms_of, text, sentence):
    with pytest.raises(ConfigError) as caught:
        arms_of(text)
    assert sentence in str(caught.value)


def test_a_diagnostic_that_is_asked_for_may_be_the_metric(arms_of):
    text = "axes: {data.batch_size: [1]}\ndiagnostics: [gradient_norm]\nmetric: gradient_norm.end.head\n"
    assert arms_of(text)


def test_neither_config_nor_override_sets_a_seed(arms_of):
    sentence, axes = "seed: which seeds a study has is said by `seeds`", "axes: {data.batch_size: [1]}\n"
    with pytest.raises(ConfigError, match=sentence):
        arms_of(axes, "seed=3")
    with pytest.raises(ConfigError, match=sentence):
        arms_of(axes, head="question: Is it so?\nconfig: {seed: 3}\n")


@pytest.mark.parametrize(
    ("hypothesis", "sentence"),
    [
        ("{claim: x, difference: [batch_size=1, b], expect: {below: 0}}", "hypotheses[0]: there is no arm 'b'"),
        ("{claim: x, mean: batch_size=1, expect: {}}", "expected exactly one of below, above, within"),
        ("{claim: x, mean: batch_size=1, expect: {within: [2, 1]}}", "expected the smaller number first"),
        ("{claim: x, expect: {below: 0}}", "expected exactly one of difference, contrast, mean, exponent"),
        ("{claim: x, contrast: {}, expect: {below: 0}}", "contrast: expected arms with their weights"),
        ("{claim: x, contrast: {batch_size=1: 0}, expect: {below: 0}}", "contrast: expected arms with their weights"),
        (
            "{claim: x, difference: [batch_size=1, batch_size=1], expect: {below: 0}}",
            "difference: expected two arms, got 'batch_size=1' twice",
        ),
        (
            "{claim: x, mean: batch_size=1, metric: test_lose, expect: {below: 0}}",
            "hypotheses[0].metric: there is no 'test_lose'; did you mean 'test_loss'?",
        ),
        ("{claim: x, exponent: all, expect: {below: 0}}", "unknown power law 'all'"),
    ],
)
def test_what_no_hypothesis_can_say(arms_of, hypothesis, sentence):
    with pytest.raises(ConfigError) as caught:
        arms_of(f"axes: {{data.batch_size: [1]}}\nhypotheses: [{hypothesis}]\n")
    assert sentence in str(caught.value)


def test_names_as_files():
    assert slug("two, weight 0.3/ü") == "two_weight_0.3"


STUDIES = sorted((Path(__file__).resolve().parents[2] / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_come_along_can_be_read(file):
    study, arms = read_study(file)
    assert study.name == file.stem
    assert bool(arms) == bool(study.axes)
    for arm in arms:
        check_names(arm.config)
