"""How fast a config's images come, without a network that waits for them."""

import math
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import jax

from cnnjax.config import Config
from cnnjax.data.examples import Examples
from cnnjax.data.loader import Batch, Shard, train_batches
from cnnjax.data.sources import load
from cnnjax.parallel import make_executor


def measure_input(config: Config, batches: int = 200, rounds: int = 3) -> dict[str, Any]:
    """Reads the data of a config, and makes training batches of it, that nothing but the clock takes.

    Returns:
        `load_seconds`: to read the data set. `host_images_per_second`: batches made when asked for, in the host's
        memory; `device_images_per_second`: made ahead and put on the devices, as training has them; medians of the
        rounds, made in turn. `bytes_per_image`.
    """
    start = perf_counter()
    examples = load(config.data).train
    load_seconds = perf_counter() - start
    put = make_executor(config).put_batch
    rates: dict[str, list[float]] = {"host": [], "device": []}
    for _ in range(rounds):
        rates["host"].append(_rate(examples, config, batches, None, 0))
        rates["device"].append(_rate(examples, config, batches, put, config.data.prefetch))
    return {
        "source": config.data.source.kind,
        "batch_size": config.data.batch_size,
        "bytes_per_image": math.prod(examples.image_shape),
        "load_seconds": load_seconds,
        **{f"{name}_images_per_second": statistics.median(each) for name, each in rates.items()},
    }


def _rate(examples: Examples, config: Config, batches: int, put: Callable[[Batch], Any] | None, prefetch: int) -> float:
    size = config.data.batch_size
    source = train_batches(
        examples, batch_size=size, seed=0, shard=Shard(), put=put, prefetch=prefetch,
        workers=config.data.workers if prefetch else 0, crop=config.data.crop,
    )  # fmt: skip
    jax.block_until_ready(next(source))  # the order of the first epoch, and the thread
    start = perf_counter()
    for _ in range(batches):
        jax.block_until_ready(next(source))
    rate = batches * size / (perf_counter() - start)
    source.close()
    return rate
