"""What a person sees: `train` under a pseudo-terminal of 80 columns, drawn on a small screen."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass, field

import pytest

COLUMNS = 80
CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


@dataclass
class Screen:
    """Enough of a terminal for progress bars: lines, where the cursor is, and everything that stood in its line."""

    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0
    cursor_shown: bool = True
    seen: list[str] = field(default_factory=list)

    def write(self, text: str) -> None:
        while text:
            control = CONTROL.match(text)
            if control:
                self._control(control[1], control[2])
                text = text[control.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    def _control(self, number: str, letter: str) -> None:
        if letter == "A":
            self.row -= int(number or 1)
        elif letter == "K":
            assert number == "2"
            self.lines[self.row] = ""
        elif letter in "hl":
            assert number == "?25"
            self.cursor_shown = letter == "h"
        else:
            assert letter == "m", letter

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1
            self.seen.append(self.lines[self.row])


def watch(environment: dict[str, str], *words) -> tuple[int, Screen]:
    """Runs a command whose three streams are a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "cnnjax", *map(str, words)]
    environment |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    content = b""
    while True:
        try:
            content += os.read(ours, 1 << 16)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    screen = Screen()
    screen.write(content.decode())
    return process.wait(timeout=60), screen


@pytest.fixture(scope="module")
def training(small, environment, tmp_path_factory) -> Screen:
    """A run that is long enough for the bar to move a few times."""
    rarely = ("train.duration.steps=600", "log.every.steps=600", "eval.every.steps=400", "checkpoint.every.steps=600")
    run_dir = tmp_path_factory.mktemp("watched") / "run"
    code, screen = watch(environment, "train", small, "--run-dir", run_dir, *rarely)
    assert code == 0, screen.lines
    return screen


def test_the_bar_shows_loss_accuracy_speed_and_the_time_left(training):
    bar = r"step +\d+/600 \S+ +loss \d+\.\d{4} accuracy \d+\.\d\d% [\d,]+ images/s ETA \d:\d\d:\d\d *"
    full = [line for line in training.seen if re.fullmatch(bar, line)]
    steps = {int(re.search(r"(\d+)/600", line)[1]) for line in full}
    assert any(0 < step < 600 for step in steps), set(training.seen)
    assert any("compiling" in line for line in training.seen)
    assert max(map(len, training.seen)) <= COLUMNS


def test_the_first_step_counts_for_nothing_in_the_speed(training):
    speeds = [
        int(found[1].replace(",", "")) for found in re.finditer(r"([\d,]+) images/s ETA", "\n".join(training.seen))
    ]
    assert min(speeds) > 16  # compiling takes a second or more, for one batch of 16


def test_what_stays_on_the_screen_are_whole_lines(training):
    text = "\n".join(training.lines)
    assert "ETA" not in text
    expected = (
        r"compiled the step in \d+\.\d s",
        r"step 400/600, epoch 100: held-out loss \d+\.\d{4}, accuracy \d+\.\d\d%",
        r"step 600/600, epoch 150: loss \d+\.\d{4}, accuracy \d+\.\d\d%, [\d,]+ images/s",
        r"step 600/600, epoch 150: held-out loss \d+\.\d{4}, accuracy \d+\.\d\d%",
        r"held-out accuracy \d+\.\d\d% \(error \d+\.\d\d %\), loss \d+\.\d{4}",
    )
    for line in expected:
        assert re.search(f"^{line}$", text, re.MULTILINE), text
    assert training.cursor_shown


def test_an_error_takes_the_bar_away_and_gives_the_cursor_back(small, environment, tmp_path):
    code, screen = watch(environment, "train", small, "--run-dir", tmp_path / "run", "schedule.learning_rate=1e9")
    assert code == 2
    assert screen.cursor_shown
    text = "\n".join(screen.lines)
    assert "ETA" not in text
    assert re.search(r"^error: the loss is nan at step 2; ", text, re.MULTILINE), text
    assert "Traceback" not in text
