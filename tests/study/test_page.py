"""Parts of a page that no run is needed for."""

from collections import defaultdict
from pathlib import Path

import pytest
from test_answers import results_of, study_of

from cnnjax.errors import RunError
from cnnjax.study import figures
from cnnjax.study.answers import answer
from cnnjax.study.arms import expand
from cnnjax.study.index import write_index
from cnnjax.study.sections import Known, page
from cnnjax.study.wording import between, number, p_value, table


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.0, "0.00"), (12.345, "12.35"), (-0.0123, "-0.0123"), (12345.6, "1.23e+04")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_intervals_p_values_and_tables():
    assert (between((1.0, 2.0)), between(None)) == ("1.00 to 2.00", "")
    assert (p_value(0.0004), p_value(0.04), p_value(None)) == ("< 0.001", "0.040", "")
    assert table(("a", "b"), [("1|2", "3")]) == ["| a | b |", "| --- | --- |", "| 1\\|2 | 3 |"]


def test_an_index_beside_anything(tmp_path):
    for name, content in {"one": b"# caf\xe9\n", "two": b"# Two\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_bytes(content)
    (tmp_path / "two" / "results.json").write_text('{"verdicts": []}')
    page = write_index(tmp_path)
    assert page.read_text().count("/README.md)") == 2
    assert "- [Two](two/README.md)" in page.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "one", "two"]
    page.unlink()
    page.mkdir()
    with pytest.raises(RunError, match=r"README\.md cannot be written: Is a directory; choose another --out"):
        write_index(tmp_path)


def test_names_of_arms_are_no_formulas(tmp_path):
    names = ("$x_$", "$y^$")
    study = study_of(names)
    values = {name: [1.0, 2.0] for name in names}
    answers = answer(study, results_of(study, values))
    history = [{"kind": "train", "step": 1, "epoch": 1.0, "loss": 1.0}]
    figures.draw_arms(study, answers, tmp_path / "arms.png")
    figures.draw_differences(study, answers, names[0], tmp_path / "differences.png")
    figures.draw_costs(study, answers, tmp_path / "costs.png")
    figures.draw_curves({name: [history] for name in names}, tmp_path / "curves.png")


@pytest.mark.parametrize(("runs", "told"), [(5, True), (10, False)])
def test_few_runs_make_a_coarse_bootstrap_and_the_page_says_so(runs, told):
    study = study_of("ab")
    values = {"a": [1.0 + 0.1 * seed for seed in range(runs)], "b": [2.0 + 0.2 * seed**2 for seed in range(runs)]}
    answers = answer(study, results_of(study, values))
    known = Known(study, expand(study, {}), [], answers, [], Path("test.yaml"))
    text = "\n".join(page(known, defaultdict(str)))
    assert "| training error (%) |" in text
    assert ("Of fewer than 10 runs it is coarse" in text) == told
    assert f"| a | 10 | 100 | {runs} of {runs} |" in text


def test_each_error_has_a_column_of_its_own():
    study = study_of("ab", metric="training_error")
    answers = answer(study, results_of(study, {"a": [2.0, 4.0], "b": [6.0, 8.0]}))
    known = Known(study, expand(study, {}), [], answers, [], Path("test.yaml"))
    (row,) = (line for line in page(known, defaultdict(str)) if line.startswith("| a | 10 "))
    assert row.split(" | ")[4] == "1.50"
    assert row.split(" | ")[8] == "3.00"
