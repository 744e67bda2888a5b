"""The command line, as the benchmarks' tests use it."""

import sys

import pytest

from cnnjax.cli import main


@pytest.fixture
def cnnjax(monkeypatch, capsys):
    """Runs a command; gives the exit code, the output and the errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cnnjax", *map(str, words)])
        with pytest.raises(SystemExit) as exited:
            main()
        return exited.value.code or 0, *capsys.readouterr()

    return run
