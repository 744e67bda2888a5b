"""The state of a run's first step, from another's weights where the config says so."""

from fnmatch import fnmatchcase

import jax.numpy as jnp

from cnnjax.config import InitFrom
from cnnjax.config_base import expanded
from cnnjax.errors import ConfigError
from cnnjax.train.freezing import check_patterns
from cnnjax.train.predict import find_weights
from cnnjax.train.reporting import Record
from cnnjax.train.state import TrainState
from cnnjax.train.task import Task
from cnnjax.weights.convert import flatten, unflatten


def first_state(task: Task) -> tuple[TrainState, Record | None]:
    """The state before the first step, and what of it came from elsewhere.

    Returns:
        The second is None, or `origin`, `loaded` (how many arrays), `new` and `unused` (their names).

    Raises:
        ConfigError: an array that the network needs is not there, or has another shape.
        RunError, WeightsError: the source cannot be read.
    """
    state, given = task.init_state(), task.config.init_from
    return (state, None) if given is None else load_into(state, given)


def load_into(state: TrainState, given: InitFrom) -> tuple[TrainState, Record]:
    """A new state with weights of another run or of a file; see `first_state`."""
    weights = find_weights(expanded(given.path), given.checkpoint)
    own = {"params": state.params, "batch_stats": state.batch_stats}
    ours, theirs = flatten(own), flatten(weights.variables)
    check_patterns(given.new, ours, "init_from.new")
    new = sorted(name for name in ours if any(fnmatchcase(name, pattern) for pattern in given.new))
    for name in (name for name in ours if name not in new):
        module = name.rpartition("/")[0]
        remedy = f"let it start anew with init_from.new=[{module}/*], or choose other weights"
        if name not in theirs:
            raise ConfigError(f"init_from.path: {weights.origin} has no {name}, which the network needs; {remedy}")
        if theirs[name].shape != ours[name].shape:
            found, wanted = ("x".join(map(str, leaves[name].shape)) for leaves in (theirs, ours))
            raise ConfigError(f"init_from.path: {name} is {found} there, and {wanted} in this network; {remedy}")
    loaded = {name: ours[name] if name in new else jnp.asarray(theirs[name], ours[name].dtype) for name in ours}
    variables = unflatten(loaded, own)
    state = state.replace(params=variables["params"], batch_stats=variables["batch_stats"])
    if state.ema is not None:
        state = state.replace(ema=variables)
    told = {"origin": weights.origin, "loaded": len(ours) - len(new), "new": new}
    return state, {**told, "unused": sorted(set(theirs) - set(ours))}


def describe(told: Record) -> str:
    """One sentence on what came from elsewhere."""
    parts = [f"{told['loaded']} arrays from {told['origin']}"]
    for names, what in ((told["new"], "start anew"), (told["unused"], "of it are not used")):
        if names:
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            parts.append(f"{shown} {what}")
    return "; ".join(parts)
