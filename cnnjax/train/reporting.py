"""What training tells whoever watches, and the sums behind it. Imports no JAX."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Record = dict[str, Any]
"""A line of a run's history, or another set of facts by name; plain values that JSON can hold."""

# A segmentation's metrics of each class, (pixels in both, pixels in either), are named by this and the class.
CLASS_IOU = "iou of class "


PATIENCE = 30.0
"""Seconds after which somebody who waits is told for what."""


class Reporter:
    """Somebody who watches a run. This one keeps silent; the command line's shows it."""

    def start(self, step: int, total_steps: int, batch_size: int) -> None:
        """Training begins at `step`."""

    def message(self, text: str) -> None:
        """Something worth a sentence."""

    def advance(self, step: int, latest: Record) -> None:
        """A step is done; `latest` holds the means of the interval so far."""

    def record(self, record: Record) -> None:
        """A line was added to the history."""

    def stop(self) -> None:
        """Training ends, whatever the reason; may come more than once."""


class Sums:
    """(sum, count) by metric, added in a fixed order in double precision, so that a resumed run has the same."""

    def __init__(self, totals: dict[str, Any] | None = None) -> None:
        self.totals: dict[str, tuple[float, float]] = {
            name: (float(total), float(count)) for name, (total, count) in (totals or {}).items()
        }

    def add(self, metrics: dict[str, tuple[float, float]]) -> None:
        """Adds one step's sums."""
        for name, (total, count) in metrics.items():
            old_total, old_count = self.totals.get(name, (0.0, 0.0))
            self.totals[name] = (old_total + total, old_count + count)

    def means(self) -> dict[str, float]:
        """sum / count by metric; NaN where nothing was counted.

        In place of a segmentation's single classes their `mean_iou`: intersection over union of the pixels that have
        the class and those that were given it, averaged over the classes that occur.
        """
        means = {name: total / count if count else math.nan for name, (total, count) in self.totals.items()}
        of_classes = [means.pop(name) for name in list(means) if name.startswith(CLASS_IOU)]
        if of_classes:
            occurring = [value for value in of_classes if not math.isnan(value)]
            means["mean_iou"] = sum(occurring) / len(occurring) if occurring else math.nan
        return means

    def class_iou(self) -> list[float | None]:
        """Intersection over union of each class, None of one that does not occur; empty unless it is a segmentation."""
        pairs = [pair for name, pair in self.totals.items() if name.startswith(CLASS_IOU)]
        return [both / either if either else None for both, either in pairs]

    def count(self, name: str) -> int:
        """How many examples went into a metric."""
        return round(self.totals.get(name, (0.0, 0.0))[1])


@contextmanager
def telling(tell: Callable[[str], None], what: str) -> Iterator[None]:
    """Says `what` and for how long already, every PATIENCE seconds for as long as what it surrounds takes."""
    done, since = threading.Event(), time.monotonic()

    def keep_telling() -> None:
        while not done.wait(PATIENCE):
            tell(f"{what}, for {time.monotonic() - since:.0f} s now")

    thread = threading.Thread(target=keep_telling, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Clock:
    """The speed since the last restart or reading."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Leaves out what happened since the last reading."""
        self._since, self._step = time.perf_counter(), step

    def seconds(self) -> float:
        """Since the last restart or reading."""
        return time.perf_counter() - self._since

    def rate(self, step: int, batch_size: int) -> float | None:
        """Images a second, and a restart; None where no step was made."""
        rate = (step - self._step) * batch_size / max(self.seconds(), 1e-9) if step > self._step else None
        self.restart(step)
        return rate
