"""What the layer that makes the logits reads is found in every family, and makes the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrow import narrow

from cnnjax.analysis.layer_outputs import head_inputs
from cnnjax.models import FAMILIES
from cnnjax.nn.digit_codes import digit_codes

CLASSIFIERS = {family: variants[0] for family, variants in FAMILIES.items() if family != "unet"}


def shapes_of(network, shape):
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images), images


@pytest.mark.parametrize("name", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_every_family_has_a_head(name):
    network, shape = narrow(name, lowering="auto")
    variables, images = shapes_of(network, shape)
    read = jax.eval_shape(lambda given, x: head_inputs(network, given, x), variables, images)
    params = variables["params"]
    if name == "lenet5":
        expected = digit_codes().shape[1]
    elif name == "nin_cifar10":
        expected = params["stage3"]["conv3"]["conv"]["kernel"].shape[2]
    else:
        expected = params["head"]["kernel"].shape[0]
    assert read.shape == (2, expected)
    assert read.dtype == jnp.float32


def computed(name, **fields):
    network, shape = narrow(name, **fields)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, *shape)), jnp.float32)
    variables = network.init(jax.random.key(1), images, train=False)

    @jax.jit
    def both(given, x):
        return head_inputs(network, given, x), network.apply(given, x, train=False).logits

    return variables["params"], *map(np.asarray, both(variables, images))


@pytest.mark.parametrize(
    ("name", "fields", "head"),
    [
        ("lenet5_modern", {"lowering": "auto"}, "output"),
        ("cifar_resnet20", {"stage_sizes": (1, 1, 1), "dtype": jnp.bfloat16}, "head"),
        ("resnet18", {"stage_sizes": (1, 2), "stage_widths": (64, 64), "scan": True, "remat": True}, "head"),
        ("vgg11", {"stage_sizes": (1, 1), "stage_widths": (64, 64)}, "head"),
    ],
)
def test_a_dense_head_makes_the_logits_of_what_it_reads(name, fields, head):
    params, read, logits = computed(name, **fields)
    by_hand = read @ np.asarray(params[head]["kernel"]) + np.asarray(params[head]["bias"])
    np.testing.assert_allclose(by_hand, logits, atol=1e-5)
    assert np.ptp(read, axis=0).max() > 0


def test_the_published_lenet_compares_what_it_reads_with_codes():
    _, read, logits = computed("lenet5")
    np.testing.assert_allclose(-np.square(read[:, None] - digit_codes()).sum(-1), logits, rtol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_a_last_convolution_reads_means(remat):
    """Where nothing is normalised and nothing cut off, the means go through the kernel as the maps do."""
    params, read, logits = computed("nin_cifar10", remat=remat, norm="none", activation="identity")
    last = params["stage3"]["conv3"]["conv"]
    by_hand = read @ np.asarray(last["kernel"])[0, 0] + np.asarray(last["bias"])
    np.testing.assert_allclose(by_hand, logits, atol=1e-5 * np.abs(logits).max())
