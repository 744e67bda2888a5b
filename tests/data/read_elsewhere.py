"""What tests let other processes read; those import this module, and so it imports little."""

import os
import signal
import time
from multiprocessing.queues import SimpleQueue

import numpy as np

from cnnjax.data.workers import InProcesses


class Numbers:
    """Tells which process read it, and dies where it is asked to."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"pid": np.array(os.getpid()), "index": np.array(index)}


class SlowNumbers(Numbers):
    """Takes a while to read, so that all processes have begun."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        time.sleep(0.3)
        return super().__getitem__(index)


def train_with_a_worker(pids: "SimpleQueue[int]") -> None:
    """Tells its worker's process, and is killed."""
    source = InProcesses(Numbers(), 1)
    pids.put(int(source[0]["pid"]))
    os.kill(os.getpid(), signal.SIGKILL)
