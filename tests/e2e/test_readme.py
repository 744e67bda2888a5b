"""The README's own words work."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


TPU = (ROOT / "docs" / "tpu.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_python_lines_run(tmp_path, environment):
    (code,) = blocks("python")
    short = code.replace("train.duration.epochs=20", "train.duration.epochs=3")
    assert short != code
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    Image.new("L", (8, 8), 200).save(tmp_path / "digit.png")
    done = subprocess.run(
        [sys.executable, "-c", short], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Prediction(image='digit.png'" in done.stdout
    assert done.stdout.endswith("['lenet5', 'lenet5_modern'] 61706\n")


@pytest.mark.parametrize(
    "line",
    [
        line
        for page in (README, TPU)
        for block in blocks("bash", page)
        for line in block.splitlines()
        if line.startswith("cnnjax ")
    ],
)
def test_each_command_exists_with_its_options(line, cnnjax):
    """A command whose words are wrong is refused by the parser, before the files it names are looked for."""
    words = shlex.split(line, comments=True)[1:]
    # The same words on little work.
    if words[:2] == ["bench", "overhead"]:
        words += ["--steps", "20"]
    if words[:2] == ["bench", "parallel"]:
        words += ["--steps", "1", "--rounds", "1"]
    if words[:2] == ["bench", "input"]:
        words += ["--batches", "5"]
    if words[:2] == ["bench", "compile"]:
        words[2] = "lenet5"  # has nothing to compare, which is told at once
    if words[:2] == ["bench", "models"]:
        words[2] = "lenet5"  # is in no library
        words += ["--rounds", "1", "--batch", "2"]
    if words[:2] == ["weights", "import"] and words[3].startswith("--"):
        words[2] += ".none"  # so that nothing is fetched
    if words[0] == "train":
        # Everything is checked but the last word, which ends it before it has begun.
        if words[1] != "CONFIG":
            overrides = [word for word in words[2:] if "=" in word]
            assert cnnjax("config", words[1], *overrides).code == 0
        outcome = cnnjax(*words, "train.no_such_key=1")
        assert outcome.err.startswith(("error: train.no_such_key: unknown key", "error: config file 'CONFIG'")), (
            outcome.err
        )
        return
    outcome = cnnjax(*words)
    assert outcome.code in (0, 2)
    assert "Usage:" not in outcome.err, outcome.err
    assert "unknown key" not in outcome.err, outcome.err


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_each_link_leads_somewhere(path):
    assert (ROOT / path).exists()
