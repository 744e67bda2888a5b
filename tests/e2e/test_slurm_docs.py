"""What docs/slurm.md shows: scripts, commands, what is found by itself, and what each error means."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from quick import xla_flags

from cnnjax.config import ParallelConfig
from cnnjax.errors import RunError
from cnnjax.parallel import clusters, join_processes
from cnnjax.train.run_folder import read_history

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "slurm.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
SCRIPTS = [block for block in BLOCKS if block.startswith("#!")]
# What the shell would put in their place.
VALUES = {
    "$run": "/shared/runs/run",
    "$SLURM_ARRAY_TASK_ID": "3",
    "$OMPI_COMM_WORLD_SIZE": "4",
    "$OMPI_COMM_WORLD_RANK": "1",
}


def commands() -> list[list[str]]:
    text = "\n".join(BLOCKS).replace("\\\n", " ")
    for name, value in VALUES.items():
        text = text.replace(name, value)
    return [shlex.split(line) for line in re.findall(r"\bcnnjax ((?:train|study) [^'|\n]*)", text)]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    lines = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_is_right_up_to_its_last_word(words, monkeypatch, cnnjax):
    """An entry that does not exist is refused before anything is made, but after all options and other entries."""
    monkeypatch.chdir(ROOT)
    if words[0] == "train":
        overrides = [word for word in words if "=" in word]
        assert cnnjax("config", words[1], *overrides).done
    assert "no_such_entry" in cnnjax(*words, "no_such_entry=1").error
    assert not Path("/shared/runs").exists()


def test_there_are_commands_and_scripts():
    assert len(commands()) == 8
    assert len(SCRIPTS) == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=["train", "study"])
def test_each_script_is_one(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert re.search(r"^#SBATCH --signal=TERM@120", script, re.MULTILINE)


STAND_INS = {
    "srun": 'while [[ "$1" == -* ]]; do shift; done\nexec "$@"\n',
    "cnnjax": 'echo "$@" > "$CALLED/cnnjax"\nmkdir -p "$RUN"\necho "$RESULT" > "$RUN/result.json"\nexit "$CODE"\n',
    "scontrol": 'echo "$@" > "$CALLED/scontrol"\n',
}


@pytest.mark.parametrize(
    ("result", "code", "requeued"),
    [
        ('{"finished": true}', 0, False),
        ('{\n "finished": false\n}', 0, True),
        ('{"finished": false}', 2, False),
        ('{"finished": false}', 3, True),
        ('{"finished": false}', 137, True),
    ],
    ids=["finished", "stopped", "mistaken", "lost", "killed"],
)
def test_a_run_is_queued_again_if_it_was_stopped(result, code, requeued, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "12",
        "CALLED": str(tmp_path),
        "RUN": str(tmp_path / "shared/runs/resnet50"),
        "RESULT": result,
        "CODE": str(code),
    }
    script = SCRIPTS[0].replace("/shared/", f"{tmp_path}/shared/")
    done = subprocess.run(["bash"], input=script, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == (0 if requeued else code), done.stderr
    assert (tmp_path / "cnnjax").read_text().startswith("train configs/train/resnet50_lars.yaml data.source.path=")
    assert (tmp_path / "scontrol").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"


def test_the_variables_are_those_that_are_looked_at():
    names = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows("What is found by itself")))
    assert set(names) == {*clusters._COUNTS, *clusters._WORKER_LISTS}
    for name in names:
        several, one = ("a,b", "a") if name in clusters._WORKER_LISTS else ("2", "1")
        assert clusters.cluster_has_several({name: several})
        assert not clusters.cluster_has_several({name: one})


def refusals(cnnjax, monkeypatch) -> str:
    """What is said where it can be brought about in one process."""
    told = []
    for overrides in (
        ("parallel.coordinator=a:1",),
        ("parallel.coordinator=a:1", "parallel.processes=2", "parallel.process_id=2"),
        ("parallel.devices=8", "data.batch_size=12"),
    ):
        told.append(cnnjax("train", ROOT / "configs/train/lenet5_digits.yaml", *overrides).error)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(RunError) as caught:
        join_processes(ParallelConfig())
    return "\n".join([*told, str(caught.value)])


def test_each_error_is_one_that_is_raised(monkeypatch, cnnjax):
    said = refusals(cnnjax, monkeypatch)
    said += "".join(
        path.read_text() for folder in ("parallel", "train") for path in (ROOT / "cnnjax" / folder).glob("*.py")
    )
    errors = [error for row in rows("What can go wrong") for error in re.findall("`([^`]+)`", row[0])]
    assert len(errors) == 12
    for error in errors:
        assert error.strip() in said, error


@pytest.mark.slow
@pytest.mark.parametrize("found", ["by the flags", "by SLURM's variables"])
def test_two_processes_find_each_other(found, tmp_path):
    """The page's own commands for two hosts, on this one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    by_hand = [words for words in commands() if "--process-id" in words and "10.0.0.1:1234" in words]
    assert [words[-1] for words in by_hand] == ["0", "1"]
    started = []
    for index, words in enumerate(by_hand):
        environment = os.environ | {"XLA_FLAGS": xla_flags(1)}
        words = [word.replace("10.0.0.1:1234", f"127.0.0.1:{port}") for word in words]
        words = [str(tmp_path / "run") if word.startswith("/shared") else word for word in words]
        if found == "by SLURM's variables":
            words = words[: words.index("--coordinator")]
            # The number of the job says the port.
            environment |= {"SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
            environment |= {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
        words += ["train.duration.epochs=3", "eval.every=null"]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "cnnjax", *words], cwd=ROOT, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
    outputs = [process.communicate(timeout=400)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(outputs)
    assert read_history(tmp_path / "run")[-1]["step"] == 33
