"""The pages that reports write can be read on a phone, and ask nobody for anything."""

import re
from pathlib import Path

import numpy as np
import pytest
from browser import HEIGHT, WIDTH, measure, screenshot
from PIL import Image
from test_study import STUDY

from cnnjax.train.html_page import write_html

LONG = "a_name_without_a_place_to_break_it_" * 4
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def evaluated(trained, cnnjax, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "report"
    cnnjax("eval", trained, "--report", folder).done  # noqa: B018 -- checks
    return folder / "index.html"


@pytest.fixture(scope="module")
def studied(cnnjax, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studied")
    (folder / "tiny.yaml").write_text(STUDY)
    cnnjax("study", "run", folder / "tiny.yaml", "--runs", folder / "runs").done  # noqa: B018 -- checks
    words = ("--runs", folder / "runs", "--out", folder / "page" / "tiny")
    cnnjax("study", "report", folder / "tiny.yaml", *words).done  # noqa: B018
    return folder / "page" / "tiny" / "index.html"


@pytest.fixture(scope="module")
def hard(tmp_path_factory) -> Path:
    """A page of whatever is wide."""
    folder = tmp_path_factory.mktemp("hard")
    Image.new("RGB", (1400, 200), "navy").save(folder / "wide.png")
    Image.new("RGB", (120, 100), "navy").save(folder / "small.png")
    cells = " | ".join(f"column{number}" for number in range(14))
    lines = [
        *(f"# {LONG}", "", f"- `{LONG}`", f"- {LONG}", "", "![wide](wide.png)", "", "![small](small.png)", ""),
        *(f"| {cells} |", "|" + " --- |" * 14, f"| {cells} |", "", f"See [{LONG}](results.json).", ""),
        *("```", f"cnnjax {LONG}", "```", ""),
    ]
    write_html("\n".join(lines), LONG, folder, folder / "index.html")
    return folder / "index.html"


def check_text(text: str) -> None:
    """What can be told of a page without a browser."""
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert not re.search(r"<(script|link|iframe|object|embed|video|audio)\b|@import|url\(|\son\w+=", text)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'\ssrc="([^"]*)"', text))
    # A width in pixels is of a picture in a box that can be moved sideways.
    outside = re.sub(r'<div class="wide">.*?</div>', "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!max-)width:\s*\d{3,}|\swidth=\"", outside)
    assert "<table" not in outside
    assert "<img" not in outside


def test_the_text_of_the_page_of_an_evaluation(evaluated):
    check_text(evaluated.read_text())
    assert evaluated.read_text().count('<div class="wide">') >= 4  # two pictures, two tables


def test_the_text_of_a_hard_page(hard):
    text = hard.read_text()
    check_text(text)
    assert re.findall(r'<img style="min-width: (\d+)px"', text) == ["1050", "90"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluated", "studied", "hard"])
def test_on_a_phone(name, request, tmp_path):
    page = request.getfixturevalue(name)
    check_text(page.read_text())
    found = measure(page, tmp_path)
    assert (found["width"], found["outside"], found["requests"]) == (WIDTH, [], [])
    assert found["boxes"] >= 2
    assert found["letters"] >= 13
    assert len(found["pictures"]) >= 2
    assert all(0.7 < share <= 1 for share in found["pictures"]), found["pictures"]
    picture = Image.open(screenshot(page, tmp_path))
    assert picture.size == (WIDTH, HEIGHT)
    dark = np.asarray(picture.convert("L")) < 128
    assert 0.005 < dark.mean() < 0.5  # there are letters
    assert not dark[:, -4:].any()  # none of which is cut off


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/README.md")), ids=lambda path: path.parent.name)
def test_this_projects_own_reports_on_a_phone(path, tmp_path):
    page = tmp_path / "index.html"
    write_html(path.read_text(), path.parent.name, path.parent, page)
    found = measure(page, tmp_path)
    assert (found["width"], found["outside"], found["requests"]) == (WIDTH, [], [])


@pytest.mark.slow
def test_what_does_not_fit_and_what_is_asked_for_would_be_found(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<!doctype html><div style="width: 600px">a</div><img src="http://127.0.0.1:9/x.png">')
    found = measure(page, tmp_path)
    assert found["width"] > WIDTH
    assert found["outside"] == ["DIV"]
    assert found["requests"] == ["http://127.0.0.1:9/x.png"]
    assert found["pictures"] == [0]
