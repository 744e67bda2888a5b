"""Gradients and running statistics of one training step equal those of another library."""

import functools
import os

import jax
import numpy as np
import optax
import pytest

from cnnjax.models import create_model, get_variant
from cnnjax.weights.convert import flatten, from_peer, shapes_of, to_peer

pytest.importorskip("torch", reason="needs the extra `parity`")
from peer_networks import build_peer
from quick import OPTIONS

pytestmark = pytest.mark.parity

# One member of each family: (peer, height and width of the images). Fields switch off what draws random numbers.
MEMBERS = {
    "torchvision/resnet18": (64, {}),
    "torchvision/resnet50": (64, {}),
    "pytorchcv/resnet20_cifar10": (32, {}),
    "torchvision/resnext50_32x4d": (64, {}),
    "timm/seresnet18": (64, {}),
    "torchvision/densenet121": (64, {}),
    "timm/legacy_xception": (64, {}),
    "timm/mobilenetv1_100": (64, {}),
    "timm/tf_efficientnet_b0": (64, {}),
    "timm/efficientnet_lite0": (64, {}),
    "timm/inception_v3": (107, {}),
    "timm/inception_v4": (107, {}),
    "timm/inception_resnet_v2": (107, {}),
    "pytorchcv/bninception": (224, {}),
    "torchvision/googlenet": (64, {"dropout": 0.0}),
    "pytorchcv/alexnet": (224, {"dropout": 0.0}),
    "pytorchcv/nin_cifar10": (32, {"dropout": 0.0}),
    "torchvision/vgg11_bn": (32, {"dropout": 0.0}),
}


# Members in which each way of writing convolutions on a CPU has its place; ours is the measured choice among them.
# With CNNJAX_PARITY=all each, else XLA's own in two of them; tests of `ops.conv` compare them all.
FORMS = {
    "torchvision/resnet18": ("native", "phases", "pieces", "taps", "patches", "winograd"),
    "pytorchcv/alexnet": ("taps", "patches", "strips"),
    "torchvision/resnext50_32x4d": ("native", "blocks16", "blocks32"),
    "timm/mobilenetv1_100": ("native", "shifts", "columns"),
}
# Made of the layers of others, and long to compile; their forward passes are compared as all others are.
ALIKE = ("timm/inception_v4", "timm/inception_resnet_v2")
CHOICES = [(name, "auto") for name in MEMBERS if name not in ALIKE]
if os.environ.get("CNNJAX_PARITY") == "all":
    CHOICES += [(name, "auto") for name in ALIKE]
    CHOICES += [(name, form) for name, forms in FORMS.items() for form in forms]
else:
    CHOICES += [("torchvision/resnet18", "native"), ("timm/mobilenetv1_100", "native")]


@pytest.fixture
def _float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


# Between them they have every kind of layer.
MIXED = ("torchvision/resnet18", "torchvision/googlenet", "timm/mobilenetv1_100", "timm/tf_efficientnet_b0")


@pytest.mark.parametrize(
    ("name", "lowering"),
    [pytest.param(*each, marks=[] if each[0] in MIXED else [pytest.mark.repeats]) for each in CHOICES],
)
@pytest.mark.usefixtures("_float64")
def test_gradients_and_statistics(name, lowering):
    size, fields = MEMBERS[name]
    random = np.random.default_rng(3)
    images = 4 if size < 100 else 2
    x = random.normal(size=(images, size, size, get_variant(name).input_shape[-1])).astype(np.float32)
    peer = build_peer(name)
    peer.randomise(5, x)
    network = create_model(name, dtype=np.float64, lowering=lowering, **fields)
    labels = random.integers(0, network.num_classes, images)
    variables, report = from_peer(name, peer.arrays(), shapes_of(network, x.shape[1:]))
    report.refuse(name)
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)

    @functools.partial(jax.jit, compiler_options=OPTIONS)
    def step(params, images):
        def loss(params, images):
            outputs, changed = network.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )  # fmt: skip
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
            return losses.mean(), changed

        return jax.grad(loss, (0, 1), has_aux=True)(params, images)

    (by_params, by_images), changed = step(variables["params"], x)
    expected, expected_by_images = peer.train_once(x, labels)
    ours = to_peer(name, {"params": by_params, "batch_stats": variables.get("batch_stats", {})})
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for key, gradient in expected.items():
        # A bias before a normalisation has no gradient but rounding noise: that is measured by the largest of all.
        scale = max(np.abs(gradient).max(), 1e-5 * largest)
        assert np.abs(ours[key] - gradient).max() < 1e-6 * scale, key
    np.testing.assert_allclose(by_images, expected_by_images, atol=1e-6 * np.abs(expected_by_images).max())

    after = peer.arrays()
    moved = to_peer(name, {"params": variables["params"], "batch_stats": changed.get("batch_stats", {})})
    statistics = flatten({"batch_stats": changed.get("batch_stats", {})})
    for key in moved.keys() - expected.keys():
        np.testing.assert_allclose(moved[key], after[key], rtol=1e-6, atol=1e-6 * np.abs(after[key]).max(), err_msg=key)
    assert bool(statistics) == any("running_mean" in key for key in after)
