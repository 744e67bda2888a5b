"""The state of a run's first step, from another's weights where the config says so."""

from fnmatch import fnmatchcase

import jax.numpy as jnp
import numpy as np

from cnnjax.config import InitFrom
from cnnjax.config_base import expanded
from cnnjax.errors import ConfigError
from cnnjax.train.freezing import check_patterns
from cnnjax.train.predict import find_weights
from cnnjax.train.reporting import Record
from cnnjax.train.state import TrainState
from cnnjax.train.task import Task
from cnnjax.weights.bundle import Weights
from cnnjax.weights.convert import flatten, unflatten
from cnnjax.weights.transfer import differences, import_weights


def first_state(task: Task) -> tuple[TrainState, Record | None]:
    """The state before the first step, and what of it came from elsewhere.

    Returns:
        The second is None, or `origin`, `loaded` (how many arrays), `new` and `unused` (their names), and `notes`
        (sentences on what was adapted, or is otherwise than the weights have it).

    Raises:
        ConfigError: an array that the network needs is not there, or has another shape.
        RunError, WeightsError: the source cannot be read or fetched.
    """
    state, given = task.init_state(), task.config.init_from
    return (state, None) if given is None else load_into(state, task, given)


def load_into(state: TrainState, task: Task, given: InitFrom) -> tuple[TrainState, Record]:
    """A new state with weights of another run, of a file or published ones; see `first_state`."""
    weights, notes = _find(given, task.facts.input_shape[-1])
    entry = "init_from.path" if given.pretrained is None else "init_from.pretrained"
    own = {"params": state.params, "batch_stats": state.batch_stats}
    ours, theirs = flatten(own), flatten(weights.variables)
    check_patterns(given.new, ours, "init_from.new")
    new = sorted(name for name in ours if any(fnmatchcase(name, pattern) for pattern in given.new))
    for name in (name for name in ours if name not in new):
        module = name.rpartition("/")[0]
        remedy = f"let it start anew with init_from.new=[{module}/*], or choose other weights"
        if name not in theirs:
            raise ConfigError(f"{entry}: {weights.origin} has no {name}, which the network needs; {remedy}")
        if theirs[name].shape != ours[name].shape:
            found, wanted = ("x".join(map(str, leaves[name].shape)) for leaves in (theirs, ours))
            raise ConfigError(f"{entry}: {name} is {found} there, and {wanted} in this network; {remedy}")
    loaded = {name: ours[name] if name in new else jnp.asarray(theirs[name], ours[name].dtype) for name in ours}
    variables = unflatten(loaded, own)
    state = state.replace(params=variables["params"], batch_stats=variables["batch_stats"])
    if state.ema is not None:
        state = state.replace(ema=variables)
    told = {"origin": weights.origin, "loaded": len(ours) - len(new), "new": new}
    notes = (*notes, *_other_than(weights, task))
    return state, {**told, "unused": sorted(set(theirs) - set(ours)), "notes": list(notes)}


def describe(told: Record) -> str:
    """One sentence on what came from elsewhere."""
    parts = [f"{told['loaded']} arrays from {told['origin']}"]
    for names, what in ((told["new"], "start anew"), (told["unused"], "of it are not used")):
        if names:
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            parts.append(f"{shown} {what}")
    return "; ".join([*parts, *told["notes"]])


def _find(given: InitFrom, channels: int) -> tuple[Weights, tuple[str, ...]]:
    """The weights, and what was adapted in them."""
    if given.pretrained is not None:
        imported = import_weights(given.pretrained, channels=channels)
        return imported.weights, imported.notes
    assert given.path is not None
    return find_weights(expanded(given.path), given.checkpoint), ()


def _other_than(weights: Weights, task: Task) -> list[str]:
    """A sentence on what is not as these weights were trained: the network's fields, the values of the images."""
    notes = []
    if differing := differences(task.network, weights.network):
        notes.append(f"the network is not quite theirs: {', '.join(differing)}")
    prepared, data = weights.preprocessing, task.config.data
    channels = task.facts.input_shape[-1]
    if prepared is None or weights.input_shape[-1] != channels:
        return notes
    if prepared.order == "bgr" and channels > 1:
        notes.append("they want the channels blue, green, red, and the data's are red, green, blue")
    turn = -1 if prepared.order == "bgr" else 1
    scale = prepared.scale / 255
    wanted = {name: np.atleast_1d(getattr(prepared, name))[::turn] * scale for name in ("mean", "std")}
    if any(not np.allclose(getattr(data, name), values, rtol=0.01, atol=1e-4) for name, values in wanted.items()):
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in wanted.values())
        notes.append(f"they were trained with data.mean: [{mean}] and data.std: [{std}], which are others here")
    return notes
