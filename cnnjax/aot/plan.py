"""What a config will take on a topology: both steps, whether they fit, and what would make them smaller."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cnnjax.analysis.count import count
from cnnjax.analysis.layers import size_of
from cnnjax.aot.chips import CHIPS, Chip
from cnnjax.aot.collectives import Collectives
from cnnjax.aot.estimate import Prediction, Work, estimate, predict
from cnnjax.aot.programs import Program, TooLarge, bind, compile_eval, compile_train
from cnnjax.aot.search import largest_batch
from cnnjax.config import Config
from cnnjax.config_files import check, merge_overrides, to_tree
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError
from cnnjax.models import get_variant
from cnnjax.parallel import count_devices, make_absent_executor
from cnnjax.train.task import DataFacts, check_names

Plan = Mapping[str, Any]

# What a user can change without another result, or with nearly the same.
SAVINGS: dict[str, tuple[str, ...]] = {
    "bfloat16": ("train.precision=bfloat16",),
    "remat": ("train.remat=full",),
    "remat, products kept": ("train.remat=keep_products",),
    "accumulate 2": ("optimizer.accumulate=2",),
}


def facts_of(config: Config, classes: int | None, examples: int = 1_000_000) -> DataFacts:
    """What a network must know of the data: from the data, or from a number of classes where they are not here.

    Raises:
        ConfigError: the size of the images is not known without them.
        DataError: the data cannot be read.
    """
    if classes is None:
        return DataFacts.of(load(config.data))
    size = config.data.image_size
    if size is None:
        raise ConfigError("--classes: the images' size is the data's own; say data.image_size too")
    variant = get_variant(config.model.name)
    names = tuple(str(number) for number in range(classes))
    channels = variant.input_shape[-1]
    pixels = variant.network.labels_pixels
    examples = max(examples, config.data.batch_size)
    return DataFacts(names, (size, size, channels), examples, examples, segmentation=pixels)


def chip_of(topology: str) -> Chip | None:
    """The chip of a topology such as v5e:4x4; None where nothing is published here, as of a CPU."""
    return CHIPS.get(topology.partition(":")[0])


def plan(config: Config, facts: DataFacts, topology: str, *, evaluation: bool = True) -> dict[str, Any]:
    """Compiles a config's steps and tells what they take, as plain values for JSON; for GPUs it only lowers them.

    Raises:
        ConfigError: something does not fit the data or the topology.
        RunError: the compiler is not here, or refuses the step for another reason than its size.
    """
    check_names(config)
    executor = make_absent_executor(config, topology)
    lowered_for = "cuda" if topology.startswith("cuda:") else None
    if lowered_for and executor.kind == "pmap":
        raise ConfigError(f"{topology}: steps are lowered without GPUs only for parallel.executor=jit; choose that")
    task = bind(config, facts, executor)
    chip = chip_of(topology)
    state = task.initialize.shapes()
    told: dict[str, Any] = {
        "model": config.model.name,
        "args": config.model.args,
        "topology": topology,
        "devices": executor.devices,
        "batch": config.data.batch_size,
        "batch_a_device": config.data.batch_size // executor.devices,
        "input": list(facts.input_shape),
        "precision": config.train.precision,
        "batch_norm": to_tree(config)["train"]["batch_norm"],
        "params": size_of(state.params),
        "macs_an_image": count(task.network, facts.input_shape).macs,
        "state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        "memory_bytes": chip.memory_bytes if chip else None,
    }
    float32 = config.train.precision == "float32"
    steps = {"train": compile_train(task, executor, lowered_for=lowered_for)}
    if evaluation:
        steps["eval"] = compile_eval(task, executor, lowered_for=lowered_for)
    return told | {name: _told(step, chip, executor.devices, float32) for name, step in steps.items()}


def chips_in(text: str) -> list[int]:
    """The numbers of chips in `4,16,64`; ConfigError where they are no powers of two."""
    words = text.split(",")
    numbers = [int(word) if word.strip().isdecimal() else 0 for word in words]
    if any(number.bit_count() != 1 for number in numbers):
        raise ConfigError(f"--chips: expected powers of two, such as 4,16,64, got '{text}'")
    return numbers


def predictions(told: Plan, numbers: Sequence[int]) -> list[Prediction]:
    """How a training step that `plan` has told of would go on other numbers of the same chips, by a model.

    Raises:
        ConfigError: nothing is known to predict from: a single device, another kind, or a step that does not fit.
    """
    chip, step = chip_of(told["topology"]), told["train"]
    if chip is None or not step["fits"] or told["devices"] == 1:
        raise ConfigError(
            f"--chips: expected a step that fits on several TPUs, such as v5e:2x2, to predict from, got "
            f"{told['topology']}"
        )
    collectives = [Collectives(**each) for each in step["collectives"]]
    work = Work(step["flops"], step["bytes_accessed"], collectives, told["precision"] == "float32")
    return [predict(work, chip, number) for number in numbers]


def with_overrides(config: Config, *overrides: str) -> Config:
    """The same config but for some entries, checked again."""
    return check(merge_overrides(to_tree(config), overrides))


def try_savings(config: Config, facts: DataFacts, topology: str) -> dict[str, dict[str, Any]]:
    """The training step with each of `SAVINGS`, by name; `refused` says why one is not possible.

    Raises:
        ConfigError: for GPUs, whose memory no compiler here knows.
    """
    if topology.startswith("cuda:"):
        raise ConfigError(f"--savings: for {topology} steps are only lowered, so their memory is not known")
    told = {}
    for name, changes in SAVINGS.items():
        try:
            told[name] = plan(with_overrides(config, *changes), facts, topology, evaluation=False)["train"]
        except ConfigError as error:
            told[name] = {"refused": str(error)}
    return told


def largest(
    config: Config, facts: DataFacts, topology: str, *, multiple: int = 8, first: Plan | None = None, likely: int = 0
) -> dict[str, Any]:
    """The largest training batch that fits, to a multiple of so many images a device.

    Args:
        first: what `plan` told of this very config, so that it is not compiled again.
        likely: images a device that another topology of the same chips takes at most.

    Returns:
        batch (None where not even the smallest fits; absent where no limit was found), next_batch, tried (bytes of a
        device by batch), and `train`, what `plan` tells of that batch.

    Raises:
        ConfigError, RunError: see `plan`.
    """
    chip = chip_of(topology)
    if chip is None:
        raise ConfigError(f"--largest: how much memory a device of {topology} has is not known")
    unit = multiple * count_devices(topology)
    plans = {first["batch"]: first} if first and first["batch"] % unit == 0 else {}
    # However large a batch is tried, the data hold it.
    facts = dataclasses.replace(facts, train_examples=2**40)

    def peak(batch: int) -> tuple[int, bool]:
        if batch not in plans:
            changed = with_overrides(config, f"data.batch_size={batch}", f"eval.batch_size={unit}")
            plans[batch] = plan(changed, facts, topology, evaluation=False)
        step = plans[batch]["train"]
        return (step["memory"]["peak"], True) if step["fits"] else (step["needed"], False)

    found = largest_batch(
        peak,
        unit,
        # libtpu keeps a sixty-fourth for itself.
        available=chip.memory_bytes - chip.memory_bytes // 64,
        start=likely * count_devices(topology) if likely else next(iter(plans), 4 * unit),
        likely=bool(likely),
        fixed=first["state_bytes"] if first else 0,
    )
    if found is None:
        return {}
    at_most = {} if found.batch is None else {"train": plans[found.batch]["train"]}
    return {**dataclasses.asdict(found), **at_most}


def _told(step: Program | TooLarge, chip: Chip | None, devices: int, float32: bool) -> dict[str, Any]:
    if isinstance(step, TooLarge):
        return {"fits": False, **dataclasses.asdict(step)}
    told = dataclasses.asdict(step)
    if step.padding:
        told["padding"]["share"] = step.padding.share
    told["fits"] = True if chip else None
    if chip:
        work = Work(step.flops or 0, step.bytes_accessed or 0, step.collectives or [], float32)
        guess = estimate(work, chip, devices)
        told["estimate"] = {**dataclasses.asdict(guess), "seconds": guess.seconds, "bound": guess.bound}
    return told
