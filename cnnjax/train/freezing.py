"""Parameters that training leaves as they are, chosen by patterns of their names.

A frozen parameter gets no gradient (and what only it would need is not computed) and no update, whatever the optimizer
does. A BatchNorm whose running statistics are frozen uses them, in training too, and leaves them as they are.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
from chex import ArrayTree
from flax import linen as nn
from flax import traverse_util

from cnnjax.errors import ConfigError
from cnnjax.nn.network import Network
from cnnjax.nn.norm import BatchNorm
from cnnjax.registry import did_you_mean
from cnnjax.weights.convert import flatten, shapes_of

IsFrozen = Callable[[str], bool]
"""Of a parameter or running statistic by its path, such as `stage2/block1/conv1/norm/scale`."""


def frozen_by(patterns: Sequence[str]) -> IsFrozen:
    """Whether the last pattern that a name fits freezes it: shell-style, those that begin with `!` do not."""

    def is_frozen(name: str) -> bool:
        frozen = False
        for pattern in patterns:
            if fnmatchcase(name, pattern.removeprefix("!")):
                frozen = not pattern.startswith("!")
        return frozen

    return is_frozen


def check_patterns(patterns: Sequence[str], names: Iterable[str], entry: str) -> None:
    """ConfigError where a pattern fits no name."""
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in names):
            modules = sorted({name.partition("/")[0] for name in names})
            near = did_you_mean(pattern.removeprefix("!").partition("/")[0], modules)
            raise ConfigError(f"{entry}: no parameter's name fits '{pattern}'; {near}")


def check_frozen(patterns: Sequence[str], network: Network, input_shape: tuple[int, int, int], entry: str) -> None:
    """ConfigError, which names the config's `entry`, where a pattern fits nothing, or all parameters are frozen."""
    shapes = shapes_of(network, input_shape)
    check_patterns(patterns, flatten(shapes), entry)
    if all(map(frozen_by(patterns), flatten({"params": shapes["params"]}))):
        raise ConfigError(f"{entry}: nothing is left to train; let some in again, such as !head/*")


def stop_gradients(params: ArrayTree, is_frozen: IsFrozen) -> ArrayTree:
    """The same parameters, the frozen ones as constants."""
    return map_by_name(params, lambda name, leaf: jax.lax.stop_gradient(leaf) if is_frozen(name) else leaf)


def keep_frozen(old: ArrayTree, new: ArrayTree, is_frozen: IsFrozen) -> ArrayTree:
    """The new parameters, but for the frozen ones the old."""
    kept = traverse_util.flatten_dict(old, sep="/")
    return map_by_name(new, lambda name, leaf: kept[name] if is_frozen(name) else leaf)


def frozen_norms(is_frozen: IsFrozen) -> Callable[..., Any]:
    """For `nn.intercept_methods`: lets BatchNorm use its running statistics where those are frozen."""

    def call_frozen(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        is_call = isinstance(module, BatchNorm) and context.method_name == "__call__"
        if is_call and is_frozen("/".join((*module.path, "mean"))):
            keywords = {**keywords, "train": False}
        return call(*arguments, **keywords)

    return call_frozen


def map_by_name(tree: ArrayTree, change: Callable[[str, Any], Any]) -> ArrayTree:
    leaves = {name: change(name, leaf) for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
    changed: ArrayTree = traverse_util.unflatten_dict(leaves, sep="/")
    return changed
