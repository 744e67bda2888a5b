"""`cnnjax WORDS...`, which also notes the examples that each step is given, and can be made slow, to hang or to fail.

Run as a script: noting_worker.py LOG START SLOWNESS FAULT WORDS...; START numbers the starts of a run, SLOWNESS is
seconds a step, FAULT is none, hang:N or fail:N (in place of reading the N-th batch). A line of LOG is
[start, process, step, epochs, indices].
"""

import json
import sys
import time

import jax
import numpy as np

from cnnjax.cli import main
from cnnjax.data.loader import TrainStream
from cnnjax.errors import DataError
from cnnjax.parallel import Executor, to_host


def note_examples(log: str, start: int) -> None:
    compile_train = Executor.compile_train

    def compile_and_note(executor, step_function):
        compiled = compile_train(executor, step_function)

        def step(state, batch):
            number = int(to_host(state.step).reshape(-1)[0]) + 1
            epochs, indices = (
                np.concatenate([np.ravel(shard.data) for shard in batch[name].addressable_shards]).tolist()
                for name in ("epoch", "index")
            )
            with open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps([start, jax.process_index(), number, epochs, indices]) + "\n")
            return compiled(state, batch)

        return step

    Executor.compile_train = compile_and_note


def disturb_reading(slowness: float, fault: str) -> None:
    what, _, at = fault.partition(":")
    take, taken = TrainStream.__next__, 0

    def disturbed(stream):
        nonlocal taken
        taken += 1
        time.sleep(slowness)
        if what != "none" and taken == int(at):
            if what == "fail":
                raise DataError("/data/7.png cannot be read; mend or remove it")
            time.sleep(10_000)
        return take(stream)

    TrainStream.__next__ = disturbed


if __name__ == "__main__":
    log, start, slowness, fault, *words = sys.argv[1:]
    note_examples(log, int(start))
    disturb_reading(float(slowness), fault)
    sys.argv = ["cnnjax", *words]
    main()
