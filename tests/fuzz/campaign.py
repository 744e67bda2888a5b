"""Many mutations, one after the other: each ends well or in one clear error, soon, and in bounded memory.

Each mutation follows from its number alone. By default the first few run, in the slow tests some hundreds. All ten
thousand, in about half an hour: `CNNJAX_FUZZ=10000 pytest tests/fuzz -m slow -n 0 -s`, which are 4,000 configs and
studies, 1,500 run folders, 2,000 IDX files and 2,500 image files. `CNNJAX_FUZZ_FROM=N` begins with mutation N; one that
fails tells how to run it again alone.
"""

import faulthandler
import os
import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cnnjax.errors import CnnjaxError

QUICK, THOROUGH = 100, int(os.environ.get("CNNJAX_FUZZ", "500"))
FROM = int(os.environ.get("CNNJAX_FUZZ_FROM", "0"))
SHARES = {"configs": 0.4, "run folders": 0.15, "idx": 0.2, "images": 0.25}

_SECONDS = 20.0
"""Of computing, for one mutation; the slowest good ones take two."""
_MEMORY = 1 << 30
"""Bytes by which one mutation may raise the most that the process ever had."""
_LONGEST, _MOST_LINES = 1000, 21
_LEAKS = ("Traceback", "pydantic", "For further information", "<class '", " object at 0x", "ValidationError")


class TooLong(BaseException):
    """A mutation that has computed for so long that it hangs; no `except Exception` holds it up."""


def run(kind: str, total: int, mutation: Callable[[random.Random], str]) -> Counter[str]:
    """Runs this kind's share of so many mutations.

    Args:
        mutation: mutates something, hands it to the package, judges what comes, and returns that in a word or two.

    Returns:
        How often each outcome came.
    """
    outcomes: Counter[str] = Counter()
    for number in range(FROM, FROM + max(1, round(SHARES[kind] * total))):
        before = _most_memory()
        try:
            with _limited():
                outcomes[mutation(random.Random(f"{kind} {number}"))] += 1
            grown = _most_memory() - before
            assert grown < _MEMORY, f"it took {grown >> 20} MB"
        except BaseException as error:
            error.add_note(f"mutation {number} of {kind}; again: CNNJAX_FUZZ=1 CNNJAX_FUZZ_FROM={number}, with -m slow")
            raise
    print(f"\n{sum(outcomes.values())} mutations of {kind}:")
    for outcome, times in outcomes.most_common():
        print(f"{times:7} {outcome}")
    return outcomes


def refused(error: CnnjaxError, *names: str) -> str:
    """What an error is called, which must be one clear sentence a fault and hold one of the names, if any are given."""
    said = str(error)
    lines = said.split("\n")
    assert said.strip(), "it says nothing"
    assert len(lines) <= _MOST_LINES, f"{len(lines)} lines: {said[:2000]}"
    assert all(len(line) <= _LONGEST for line in lines), f"a line of {max(map(len, lines))} characters: {said[:2000]}"
    assert all(line.strip() and line.isprintable() for line in lines), repr(said)
    assert not any(leak in said for leak in _LEAKS), said
    assert not names or any(name in said for name in names), f"it names none of {names}: {said}"
    return f"refused: {type(error).__name__}"


@contextmanager
def _limited() -> Iterator[None]:
    def give_up(*_: Any) -> None:
        raise TooLong(f"it computes for more than {_SECONDS:g} seconds")

    # Of computing: on a machine with other work a clock would tell nothing. The alarm is pytest-timeout's.
    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    # Waiting for ever, or in a loop that is not Python's, it hears no signal.
    faulthandler.dump_traceback_later(20 * _SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
