"""LARS and LAMB, which give each layer a learning rate of its own, for large batches; as their authors have them.

optax has both by these names, with two differences. Its LARS divides by the norm of gradient and decay together, the
paper by the sum of their norms, which is up to the square root of two more where the two are at right angles, as they
are for every kernel that a normalisation follows. And both apply the ratio of norms to biases and normalisation's
scales too, which the authors' programs leave out together with weight decay: a bias near zero would stay there.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from chex import ArrayTree

from cnnjax.nn.stage import is_stacked
from cnnjax.train.phases import Rate

Mask: TypeAlias = Callable[[ArrayTree], ArrayTree]
Path: TypeAlias = tuple[Any, ...]


def lars(
    learning_rate: Rate,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """LARS (You et al. 2017, arXiv:1708.03888, algorithm 1).

    A layer w with gradient g moves by v, where
    v <- momentum v + learning_rate trust_coefficient |w| / (|g| + weight_decay |w| + eps) (g + weight_decay w).

    Args:
        mask: which parameters have a rate of their own and decay, by default all; the others move as under SGD.
    """

    def own(path: Path, gradient: jax.Array, weight: jax.Array) -> jax.Array:
        of_weight, of_gradient = _norm(path, weight), _norm(path, gradient)
        divisor = of_gradient + weight_decay * of_weight + eps
        return _ratio(trust_coefficient * of_weight, divisor, of_gradient) * (gradient + weight_decay * weight)

    return optax.chain(
        _by_layer(own, mask),
        optax.scale_by_learning_rate(learning_rate),
        optax.trace(momentum, nesterov),
    )


def lamb(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    """LAMB (You et al. 2019, arXiv:1904.00962, algorithm 2), its phi the identity.

    A layer x moves by learning_rate |x| / |u| u, where u = m / (sqrt(v) + eps) + weight_decay x, with Adam's m and v.

    Args:
        mask: which parameters have a rate of their own and decay, by default all; the others move as under Adam.
    """

    def own(path: Path, update: jax.Array, weight: jax.Array) -> jax.Array:
        of_update = _norm(path, update)
        return _ratio(_norm(path, weight), of_update, of_update) * update

    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root),
        optax.add_decayed_weights(weight_decay, mask=mask),
        _by_layer(own, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


LAYERWISE: Mapping[str, Callable[..., optax.GradientTransformation]] = {"lars": lars, "lamb": lamb}
"""In place of optax's functions of these names."""


def _by_layer(change: Callable[..., jax.Array], mask: Mask | None) -> optax.GradientTransformation:
    """`change` of (path, update, weight) for each parameter that the mask lets through."""
    inner = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(change, updates, params))
    return inner if mask is None else optax.masked(inner, mask)


def _norm(path: Path, leaf: jax.Array) -> jax.Array:
    """Of each layer: the blocks of a scanned stage are stacked, and have one each. Keeps the axes."""
    first = 1 if is_stacked(str(getattr(key, "key", "")) for key in path) else 0
    return jnp.sqrt(jnp.square(leaf).sum(range(first, leaf.ndim), keepdims=True))


def _ratio(above: jax.Array, below: jax.Array, of_update: jax.Array) -> jax.Array:
    # Weights that are all zero would never move, and a gradient of zero may be divided by zero: as under SGD, then.
    plain = (above == 0) | (of_update == 0)
    return jnp.where(plain, 1.0, above / jnp.where(plain, 1.0, below))
