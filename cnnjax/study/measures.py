"""What is known of a finished run: its errors, what it cost, and the diagnostics that the study asks for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.analysis.count import count
from cnnjax.config import Config
from cnnjax.config_files import flatten
from cnnjax.data.examples import ChosenExamples, Datasets
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.parallel import Executor, is_first
from cnnjax.registry import did_you_mean
from cnnjax.study.diagnostics import Tools, diagnose
from cnnjax.train.evaluation import evaluate_state, load_state
from cnnjax.train.run_files import MEASURES as MEASURES_SHAPE
from cnnjax.train.run_files import read_json
from cnnjax.train.run_folder import Record, not_written, write_whole
from cnnjax.train.task import DataFacts, Task

MEASURES = "measures.json"
TRAINING_EXAMPLES = 10_000
"""So many of the training set, the first ones, are evaluated as the held-out set is."""

Measures = dict[str, Any]


def measure(
    run_dir: Path,
    result: Record,
    task: Task,
    data: Datasets,
    executor: Executor,
    asked: tuple[str, ...],
    tools: Tools,
    costs: Mapping[str, int],
) -> None:
    """Writes the `measures.json` of a finished run, of which `result` is what `fit` returned.

    test_error, training_error and their difference gap are in percent, both of the last weights (the averaged ones
    where there are some) in evaluation mode, without dropout; test_loss, training_loss; mean_iou of a segmentation;
    params and macs; seconds, of training with evaluations and compilation; and `diagnose`'s.
    """
    config = task.config
    state = load_state(run_dir, task)
    seen = ChosenExamples(data.train, np.arange(min(TRAINING_EXAMPLES, len(data.train))))
    on_device = executor.put_state(state)
    eval_step = executor.compile_eval(task.eval_step)
    training = evaluate_state(config, seen, executor, eval_step, on_device, int(result["step"]))[-1]
    measures: Measures = {
        "test_error": 100 * (1 - result["accuracy"]),
        "training_error": 100 * (1 - training["accuracy"]),
        "gap": 100 * (training["accuracy"] - result["accuracy"]),
        "test_loss": result["loss"],
        "training_loss": training["loss"],
        **({"mean_iou": 100 * result["mean_iou"]} if "mean_iou" in result else {}),
        **costs,
        "seconds": result["seconds"],
        **diagnose(task, data, executor, state, asked, tools),
    }
    if not is_first():
        return
    path = run_dir / MEASURES
    try:
        write_whole(path, json.dumps(measures, indent=1) + "\n")
    except OSError as error:
        raise not_written(path, error, "--runs") from None


def costs_of(config: Config, facts: DataFacts) -> dict[str, int]:
    """params and macs of the network for one image, counted; ConfigError where it takes no such images."""
    args = {"num_classes": len(facts.class_names), **config.model.args}
    counts = count(create_model(config.model.name, **args), facts.input_shape)
    return {"params": counts.params, "macs": counts.macs}


def read_measures(run_dir: Path, asked: tuple[str, ...] = ()) -> Measures | None:
    """A finished run's; None where it has none, or lacks a diagnostic that is asked for."""
    path = run_dir / MEASURES
    if not path.exists():
        return None
    measures: Measures = read_json(path, MEASURES_SHAPE, "remove it, and it is made again")
    return measures if set(asked) <= measures.keys() else None


def value_of(measures: Mapping[str, Any], metric: str) -> float:
    """The number of that name, with dots where it is within another: `gradient_norm.start.stage1`.

    Raises:
        ConfigError: there is none.
    """
    numbers = dict(flatten(measures))
    if metric not in numbers:
        raise ConfigError(f"metric: there is no '{metric}'; {did_you_mean(metric, numbers)}")
    return float(numbers[metric])
