"""Several seeds of one network: one after the other, by vmap, by a sequential map, or over devices; timed in turns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cnnjax.bench.pages import Row, add_row
from cnnjax.config import Config
from cnnjax.config_files import load_config
from cnnjax.study.together import Timed, on_one_device, time_ways
from cnnjax.train.opening import prepare

# Small ones: large networks fill a device with one seed.
NETWORKS: dict[str, str] = {
    "lenet5_modern": "{}",
    "cifar_resnet20": "{width: 0.5}",
    "efficientnet_b0": "{stem: small, width: 0.25}",
}
_SIZE = 32


def config_of(name: str, batch: int) -> Config:
    """A config that trains a network on synthetic images of 32x32."""
    overrides = (
        f"model.name={name}",
        f"model.args={NETWORKS.get(name, '{}')}",
        f"data.source={{kind: synthetic, image_size: {_SIZE}, train_examples: {4 * batch}, test_examples: 10}}",
        f"data.batch_size={batch}",
        "optimizer.args={momentum: 0.9}",
        "train.duration={epochs: 2}",
    )
    return on_one_device(load_config(None, overrides))


def measure_seeds(name: str, seeds: int = 4, batch: int = 32, repeats: int = 5) -> dict[str, Any]:
    """Times a training step of `seeds` runs in each way.

    Returns:
        model, seeds, batch, devices, backend, and ways: for each the seconds of a step of all seeds (the least of
        `repeats`, taken in turns), its ratio to one seed after the other, and the seconds until the first step.
    """
    task, data, executor = prepare(config_of(name, batch))
    timings = time_ways(task, data, executor, seeds, repeats)
    separate = timings[0].step_seconds
    ways = [
        {
            "way": each.way,
            "step_seconds": each.step_seconds,
            "ratio": each.step_seconds / separate,
            "compile_seconds": each.compile_seconds,
        }
        for each in timings
    ]
    return {
        "model": name,
        "fields": NETWORKS.get(name, "{}"),
        "seeds": seeds,
        "batch": batch,
        "devices": len(jax.devices()),
        "backend": jax.default_backend(),
        "ways": ways,
    }


def fastest_of(row: Mapping[str, Any]) -> Timed:
    """The way whose step took the least."""
    way: Timed = min(row["ways"], key=lambda each: each["step_seconds"])["way"]
    return way


def add_to_report(row: Row, folder: Path) -> Path:
    """Adds a measurement to a folder's page; an earlier one of the same network and seeds gives way.

    Raises:
        RunError: the folder cannot be written, or holds results that cannot be read.
    """
    return add_row(row, folder, _key, _page)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "seeds", "batch", "devices", "backend"))


def _page(rows: Sequence[Row], folder: Path) -> list[str]:
    del folder
    lines = [
        "# How do several seeds of a small network train fastest on one machine?",
        "",
        "One training step of all seeds, on images of 32x32: one seed after the other with one compiled step",
        "(separate), all in one program by `vmap` or by a sequential map, or spread over the devices. Least of five,",
        "in turns; ratios are to separate, below 1 is faster. Compilation is what the first step takes longer.",
        "",
        "| network | seeds | batch | devices | way | step (ms) | ratio | compiling (s) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for each in row["ways"]:
            name = f"**{each['way']}**" if each["way"] == fastest_of(row) else each["way"]
            lines.append(
                f"| `{row['model']} {row['fields']}` | {row['seeds']} | {row['batch']} | {row['devices']} "
                f"{row['backend']} | {name} | {1000 * each['step_seconds']:.1f} | {each['ratio']:.2f} | "
                f"{each['compile_seconds']:.1f} |"
            )
    return lines
