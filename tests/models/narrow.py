"""Every registered network, narrow and shallow and on small images, so that tests can run it."""

import os
from typing import Any

from cnnjax.models import FAMILIES, create_model, family_of, get_variant, list_models
from cnnjax.nn.network import Network

# One of each family; with CNNJAX_NETWORKS=all tests that take long try every network.
FIRST = tuple(variants[0] for variants in FAMILIES.values())
ALL = os.environ.get("CNNJAX_NETWORKS") == "all"
# Those of them that are made of the layers of Inception v3 and ResNet, and long to compile.
ALIKE = frozenset({"inception_v2", "inception_v4", "inception_resnet_v2"})

# For each family the fields that make its networks small, and the height and width of their images. The sizes of the
# stages make one small network of those that differ in them alone.
FIELDS: dict[str, tuple[dict[str, Any], int]] = {
    "lenet": ({}, 32),
    # Weights of standard deviation 0.01 suit 4,096 units, not a few dozen.
    "alexnet": ({"stem": "small", "width": 0.125, "dense_width": 256, "initialization": "he_normal"}, 32),
    "vgg": (
        {
            **{"stem": "small", "width": 0.125, "dense_width": 256, "initialization": "he_normal"},
            "stage_sizes": (1, 1, 3, 1, 1),
        },
        32,
    ),
    "nin": ({"width": 0.25}, 32),
    "simple_cnn": ({"width": 0.25}, 28),
    "googlenet": ({"stem": "small", "width": 0.25, "depth": 0.2, "auxiliary_pool": "adaptive"}, 32),
    "inception_v2": ({"stem": "small", "width": 0.25, "depth": 0.2}, 32),
    "inception_v3": ({"stem": "small", "width": 0.25, "depth": 0.3}, 32),
    "inception_v4": ({"stem": "small", "width": 0.25, "stage_sizes": (1, 1, 1)}, 32),
    "inception_resnet": ({"stem": "small", "width": 0.25, "stage_sizes": (1, 1, 1)}, 32),
    "resnet": ({"stem": "small", "width": 0.25, "stage_sizes": (1, 2, 1, 1)}, 32),
    # Gradients of convolutions in groups are slow on a CPU.
    "resnext": ({"stem": "small", "width": 0.25, "stage_sizes": (1, 2, 1, 1)}, 16),
    "se_resnet": ({"stem": "small", "width": 0.25, "stage_sizes": (1, 2, 1, 1)}, 16),
    "densenet": ({"stem": "small", "width": 0.5, "stage_sizes": (2, 2, 1, 1)}, 32),
    "xception": ({"stem": "small", "width": 0.125, "depth": 0.125}, 32),
    "mobilenet": ({"stem": "small", "width": 0.25, "depth": 0.3}, 32),
    "efficientnet": ({"stem": "small", "width": 0.5, "depth": 0.3, "dropout": 0.2}, 32),
    "unet": ({"width": 0.125, "levels": 3}, 44),
}
# The networks for CIFAR-10 are narrow already, and have three stages.
CIFAR = {"stage_sizes": (2, 1, 1)}


def narrow_fields(name: str) -> dict[str, Any]:
    """The fields that make a network small."""
    fields = FIELDS[family_of(name)][0]
    return CIFAR if name.startswith("cifar_") else fields


def distinct() -> dict[str, list[str]]:
    """For the first name of each small network all the names that it goes by."""
    by_network: dict[Any, list[str]] = {}
    for name in list_models():
        by_network.setdefault(narrow(name), []).append(name)
    return {names[0]: names for names in by_network.values()}


def narrow(name: str, **fields: Any) -> tuple[Network, tuple[int, int, int]]:
    """The small network of that name for ten classes (or fewer), and its (height, width, channels).

    Its convolutions are XLA's own, which compile quickest, unless `lowering` says otherwise.
    """
    variant = get_variant(name)
    size = FIELDS[family_of(name)][1]
    classes = min(10, variant.args.get("num_classes", 10))
    network = create_model(name, **{"num_classes": classes, "lowering": "native", **narrow_fields(name), **fields})
    return network, (size, size, variant.input_shape[-1])
