"""Batches read in other processes, for decoding that one interpreter cannot keep up with."""

import multiprocessing
import os
import signal
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np

from cnnjax.errors import CnnjaxWarning, DataError


class Source(Protocol):
    """Batches by their numbers, the same whenever and wherever one is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...


class InProcesses:
    """The same batches, each read by one of several processes, which end when it is closed."""

    def __init__(self, source: Source, workers: int) -> None:
        self._length = len(source)
        # A process that was forked would share the locks of JAX's threads.
        context = multiprocessing.get_context("spawn")
        ended, self._open = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(source, ended))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        try:
            batch, messages = self._pool.submit(_read, index).result()
        except BrokenProcessPool:
            raise DataError(
                "a process that reads the data has died, perhaps for want of memory; see what it printed above, or set "
                "data.workers to fewer, or to 0"
            ) from None
        for message in messages:
            warnings.warn(message, CnnjaxWarning, stacklevel=2)
        return batch

    def close(self) -> None:
        """Ends the processes, whatever they do: the pool itself asks by a signal that they do not hear."""
        self._open.close()
        self._pool.shutdown(cancel_futures=True)


_source: Source | None = None
"""Of a reading process."""


def _begin(source: Source, ended: Connection) -> None:
    global _source
    _source = source
    # Whoever stops a job tells all its processes; the one that trains decides when these end, and they end with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(ended,), daemon=True).start()


def _end_with_parent(ended: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel, ended])  # readable when its other end is closed
    os._exit(1)


def _read(index: int) -> tuple[dict[str, Any], list[str]]:
    assert _source is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as on the command line
        batch = _source[index]
    return batch, [str(each.message) for each in caught]
