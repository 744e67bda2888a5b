"""A network as it is fastest on CPUs computes what the plain one does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from narrow import ALIKE, FIRST, distinct, narrow
from quick import OPTIONS

from cnnjax.models import create_model, get_variant
from cnnjax.ops.conv import convolve
from cnnjax.ops.onednn import compiler_options, is_available
from cnnjax.train.losses import cross_entropy
from cnnjax.train.state import init_state
from cnnjax.train.step import make_train_step

pytestmark = [
    pytest.mark.skipif(not is_available("cpu"), reason="needs JAX 0.12 on an x86-64 CPU"),
    pytest.mark.usefixtures("_no_program_is_kept"),
]

# Quick to compile, and made of the layers of the others too.
PLAIN = {"vgg11", "nin_cifar10", "simple_cnn", "se_resnet18"}
FAST = [name for name in FIRST if name not in ALIKE | PLAIN]
NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in distinct() if name not in FAST)]


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_are_the_plain_networks(name):
    # At ReLU's corner, rounding turns units on and off.
    smooth = {"activation": "tanh"} if hasattr(get_variant(name).network, "activation") else {}
    plain, shape = narrow(name, **smooth)
    ours, options = narrow(name, lowering="auto", **smooth)[0].on("cpu")
    assert options
    state = init_state(plain, optax.identity(), 0, shape, ema=False)
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def loss(params, network, images):
        outputs, _ = network.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(2)},
        )  # fmt: skip
        return sum(jnp.square(logits).mean() for logits in (outputs.logits, *outputs.aux.values()))

    def compute(network, params, images):
        logits = network.apply({**variables, "params": params}, images, train=False).logits
        return logits, jax.grad(loss)(params, network, images)

    computations = [
        jax.jit(functools.partial(compute, network), compiler_options={**chosen, **OPTIONS})
        for network, chosen in ((ours, options), (plain, {}))
    ]

    def distances(key):
        images = jax.random.normal(key, (4, *shape))
        for trees in zip(*(computation(state.params, images) for computation in computations), strict=True):
            one, other = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in trees)
            yield np.linalg.norm(one - other) / np.linalg.norm(other)

    of_logits, of_gradients = zip(*map(distances, jax.random.split(jax.random.key(1), 3)), strict=True)
    assert max(of_logits) < 1e-5
    # Max pooling chooses between nearly equal values, now and then another one: not for all images.
    assert min(of_gradients) < 1e-3


@pytest.mark.parametrize("form", ["taps", "onednn"])
def test_long_sums_of_products_can_be_compiled(form):
    """oneDNN adds 32 things to a product at most, and ends the process where there are more."""
    kernel, images = jnp.ones((7, 7, 2, 4)), jnp.ones((1, 9, 9, 2))
    convolution = functools.partial(convolve, lowering=form)
    run = jax.jit(convolution, compiler_options=compiler_options("onednn", "cpu"))
    np.testing.assert_allclose(run(images, kernel), np.full((1, 3, 3, 4), 98.0))


def test_so_can_many_micro_batches():
    network, options = create_model("lenet5_modern", num_classes=10).on("cpu")
    optimizer = optax.sgd(0.1)
    state = init_state(network, optimizer, 0, (32, 32, 1), ema=False)
    batch = {"image": jnp.ones((80, 32, 32, 1), jnp.uint8), "label": jnp.zeros(80, jnp.int32), "mask": jnp.ones(80)}
    found = []
    for accumulate in (1, 40):
        step = make_train_step(network, optimizer, cross_entropy, accumulate=accumulate, unroll_accumulation=True)
        after, _ = jax.jit(step, compiler_options=options)(state, batch)
        found.append(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(after.params)]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)
