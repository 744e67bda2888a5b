"""A run's weights as anyone can use them: without its data set, its optimizer and its checkpoints."""

from pathlib import Path

import jax
import numpy as np

from cnnjax.train.evaluation import load_state
from cnnjax.train.run_folder import read_config, read_facts
from cnnjax.train.task import make_task
from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing


def run_weights(run_dir: str | Path, checkpoint: str | int = "last") -> Weights:
    """Those of a run's checkpoint: their moving average, where the run keeps one.

    Args:
        checkpoint: "last", "best" or a step.

    Raises:
        RunError: the run or the checkpoint cannot be read.
    """
    path = Path(run_dir)
    config, facts = read_config(path), read_facts(path)
    task = make_task(config, facts)
    state = load_state(path, task, checkpoint)
    variables = state.ema if state.ema is not None else {"params": state.params, "batch_stats": state.batch_stats}
    return Weights(
        model=config.model.name,
        fields={**config.model.args, "num_classes": task.network.num_classes},
        input_shape=facts.input_shape,
        variables=jax.tree.map(np.asarray, dict(variables)),
        preprocessing=Preprocessing(
            size=facts.input_shape[:2],
            fit="stretch" if config.data.fit == "resize" else config.data.fit,
            shorter_side=config.data.shorter_side,
            mean=config.data.mean,
            std=config.data.std,
        ),
        labels=facts.class_names,
        origin=f"step {int(state.step)} of run {config.name}",
    )
