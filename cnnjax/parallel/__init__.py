"""Devices and processes: the only place for meshes, pmap, shardings, axis names and `jax.distributed`."""

from cnnjax.parallel.devices import (
    count_devices,
    keep_compiled,
    make_absent_executor,
    make_eval_executor,
    make_executor,
)
from cnnjax.parallel.executor import Executor, over_devices, put_stacked, to_host
from cnnjax.parallel.processes import (
    agree,
    all_or_none,
    broadcast,
    everywhere,
    first_says,
    is_first,
    join_processes,
    should_stop,
)
from cnnjax.parallel.watch import Watch, forget_signs

__all__ = [
    "Executor",
    "Watch",
    "agree",
    "all_or_none",
    "broadcast",
    "count_devices",
    "everywhere",
    "first_says",
    "forget_signs",
    "is_first",
    "join_processes",
    "keep_compiled",
    "make_absent_executor",
    "make_eval_executor",
    "make_executor",
    "over_devices",
    "put_stacked",
    "should_stop",
    "to_host",
]
