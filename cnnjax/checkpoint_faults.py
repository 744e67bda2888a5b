"""What goes wrong in Orbax, in words: its errors hold little that a user can read, and some come twice."""

import functools
import gc
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_Found = TypeVar("_Found")


def attempt(read: Callable[[], _Found]) -> tuple[_Found | None, str]:
    """What a read finds, or None and why it failed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
        try:
            return read(), ""
        except Exception as error:  # A broken file surfaces as almost any error.
            fault = reason_of(error)
        # With its error Orbax leaves coroutines unstarted; Python would tell of them whenever it next collects garbage.
        gc.collect()
        return None, fault


def reason_of(error: BaseException) -> str:
    """The first line of the innermost cause that says something, without what only Orbax and TensorStore can read."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    code = re.search(r"os_error_code='(\d+)'", text)
    if code:
        return os.strerror(int(code[1]))
    line = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    for clutter in (r"^[A-Z_]+: ", r' in OCDBT database at local file "[^"]*"', r" \[\w+(\[\d+\])?=.*$"):
        line = re.sub(clutter, "", line)
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", line)[:300]


@functools.cache
def drop_echoes() -> None:
    """Once one of several reads or writes has failed, and was told here, the last words of the others are no news."""
    tell = sys.unraisablehook

    def hook(told: "sys.UnraisableHookArgs") -> None:
        code = getattr(told.object, "cr_code", None)
        abandoned = code is not None and "orbax" in Path(code.co_filename).parts
        # TensorStore wants to answer an event loop that ended with the first failure.
        late = isinstance(told.exc_value, RuntimeError) and str(told.exc_value) == "Event loop is closed"
        if not (abandoned or late):
            tell(told)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(lambda record: not _is_echo(record))


def _is_echo(record: logging.LogRecord) -> bool:
    """Whether what asyncio tells of is of Orbax, as its words or the code that raised it say, or of TensorStore."""
    error = record.exc_info[1] if record.exc_info else None
    frames = traceback.walk_tb(error.__traceback__ if error is not None else None)
    files = [frame.f_code.co_filename for frame, _ in frames]
    words = record.getMessage()
    return any(name in words for name in ("/orbax/", "tensorstore", "OCDBT")) or any(
        "orbax" in Path(file).parts for file in files
    )
