"""The benchmark of several seeds at a time."""

import json

from cnnjax.bench import seeds
from cnnjax.study.together import TIMED


def test_a_row_and_its_page(tmp_path):
    row = seeds.measure_seeds("lenet5_modern", seeds=2, batch=4, repeats=1)
    assert [each["way"] for each in row["ways"]] == list(TIMED)
    assert row["ways"][0]["ratio"] == 1
    assert all(each["step_seconds"] > 0 and each["compile_seconds"] >= 0 for each in row["ways"])
    page = seeds.add_to_report(row, tmp_path)
    seeds.add_to_report({**row, "ways": row["ways"][::-1]}, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 1
    assert page.read_text().count("`lenet5_modern {}`") == len(TIMED)
    assert f"**{seeds.fastest_of(row)}**" in page.read_text()
