"""The committed computations, and what is refused."""

from pathlib import Path

import pytest

from cnnjax.errors import ConfigError
from cnnjax.study.arithmetic import compute, in_words
from cnnjax.study.question import Study, load_study

FILE = Path(__file__).resolve().parents[2] / "configs" / "studies" / "arithmetic.yaml"


def study_of(*computations):
    return Study.model_validate(
        {"name": "test", "question": "Is it so?", "computations": list(computations)}, strict=False
    )


def value_of(compute_this):
    (found,) = compute(study_of({"claim": "x", "compute": compute_this, "expect": 0}))
    return found.computed


def test_all_committed_claims_but_two_hold():
    found = compute(load_study(FILE)[0])
    assert len(found) == 48
    wrong = [each for each in found if each.verdict != "reproduced"]
    assert [(in_words(each.computed), in_words(each.expected)) for each in wrong] == [
        ("51,380,224", "51,300,000"),
        ("54", "55"),
    ]


def test_a_claim_that_is_wrong_is_not_reproduced_and_one_that_is_near_enough_is():
    size = {"output_size": {"size": 224, "window": 7, "stride": 2, "padding": 3}}
    claims = [
        {"claim": "x", "compute": size, "expect": expect, "within": within} for expect, within in ((111, 0), (111, 1))
    ]
    assert [each.verdict for each in compute(study_of(*claims))] == ["not reproduced", "reproduced"]


def test_numbers_of_other_computations():
    found = compute(
        study_of(
            {"claim": "x", "name": "one", "compute": {"model": {"name": "lenet5", "of": "params"}}, "expect": 60_000},
            {"claim": "x", "compute": {"ratio": {"of": ["one", "one"]}}, "expect": 1},
        )
    )
    assert [each.verdict for each in found] == ["reproduced", "reproduced"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"sum": {}}, "computations[0].compute: unknown function 'sum'"),
        ({"ratio": {"of": ["one", "two"]}}, "computations[0].compute.ratio: of: unknown computation 'one'"),
        (
            {"output_size": {"size": 0, "window": 1}},
            "computations[0].compute.output_size.size: expected greater than 0",
        ),
        ({"output_size": 3}, "computations[0].compute.output_size: expected a mapping of its arguments, got 3"),
        ({"chain": {"input": [8, 8, 3], "layers": [{}], "of": "macs"}}, "a layer needs one of conv, dense"),
        ({"model": {"name": "lenet5", "of": "params", "layers": ["c9"]}}, "unknown layer 'c9'"),
        ({"growth": {"alpha": 1}, "ratio": {}}, "expected one function with its arguments, got 2"),
    ],
)
def test_what_cannot_be_computed_is_told(wrong, sentence):
    with pytest.raises(ConfigError) as caught:
        value_of(wrong)
    assert sentence in str(caught.value)
