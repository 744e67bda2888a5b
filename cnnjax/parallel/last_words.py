"""How a process of a job ends when it cannot go on: with one sentence, from whatever thread, and a known exit code."""

import ctypes
import os
import signal
import sys
import threading
import time

LOST = 3
"""Exit code of a process that ends because another of its job is lost, hangs or has failed."""

_ending = threading.Lock()
_seconds_to_wait = 0.0
# Kept here, or it would be collected while the C library still points to it.
_handlers: list[object] = []


def end_process(sentence: str, code: int) -> None:
    """Prints a sentence on standard error and ends the process at once, without waiting for any other of its job."""
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # another thread is at it
    sys.stdout.flush()
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    os._exit(code)


def hold_aborts_back(seconds: float) -> None:
    """How long an abort is held back for `end_process` to be called with what is known of the job's other processes."""
    global _seconds_to_wait
    _seconds_to_wait = seconds


def speak_before_abort() -> None:
    """Lets this process say a sentence and end with LOST where JAX's C++ would abort it.

    JAX does so in all processes the moment that process 0 is gone, and offers no way to be told instead. Only the C
    library hears of an abort in time: Python's own signal handlers run too late, in another thread.
    """
    if _handlers:
        return
    library = ctypes.CDLL(None)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, prototype), ctypes.c_void_p
    handler = prototype(_aborted)
    _handlers.append(handler)
    library.signal(signal.SIGABRT, handler)


def _aborted(_: int) -> None:
    time.sleep(_seconds_to_wait)
    end_process(
        "JAX has aborted this process (its message is above): most likely process 0 of the job, or the network to it, "
        "is gone; run the same command again in all processes",
        LOST,
    )
