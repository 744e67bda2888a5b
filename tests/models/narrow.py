"""Every registered network, narrow and shallow and on small images, so that tests can run it."""

from typing import Any

from cnnjax.models import create_model, family_of, get_variant
from cnnjax.nn.network import Network

# For each family the fields that make its networks small, and the height and width of their images.
FIELDS: dict[str, tuple[dict[str, Any], int]] = {
    "lenet": ({}, 32),
    # Weights of standard deviation 0.01 suit 4,096 units, not a few dozen.
    "alexnet": ({"stem": "small", "width": 0.125, "dense_width": 256, "initialization": "he_normal"}, 32),
    "vgg": ({"stem": "small", "width": 0.125, "dense_width": 256, "initialization": "he_normal"}, 32),
    "nin": ({"width": 0.25}, 32),
    "simple_cnn": ({"width": 0.25}, 28),
    "googlenet": ({"stem": "small", "width": 0.25, "depth": 0.2, "auxiliary_pool": "adaptive"}, 32),
    "inception_v2": ({"stem": "small", "width": 0.25, "depth": 0.2}, 32),
    "inception_v3": ({"stem": "small", "width": 0.25, "depth": 0.5}, 32),
    "inception_v4": ({"stem": "small", "width": 0.25, "depth": 0.3}, 32),
    "inception_resnet": ({"stem": "small", "width": 0.25, "depth": 0.2}, 32),
    "resnet": ({"stem": "small", "width": 0.25, "depth": 0.25}, 32),
    "resnext": ({"stem": "small", "width": 0.25, "depth": 0.25}, 32),
    "se_resnet": ({"stem": "small", "width": 0.25, "depth": 0.25}, 32),
    "densenet": ({"stem": "small", "width": 0.5, "depth": 0.15}, 32),
    "xception": ({"stem": "small", "width": 0.125, "depth": 0.25}, 32),
    "mobilenet": ({"stem": "small", "width": 0.25, "depth": 0.5}, 32),
    "efficientnet": ({"stem": "small", "width": 0.5, "depth": 0.5}, 32),
    "unet": ({"width": 0.125, "levels": 3}, 44),
}


def narrow_fields(name: str) -> dict[str, Any]:
    """The fields that make a network small; the CIFAR networks are narrow already."""
    fields = FIELDS[family_of(name)][0]
    return {**fields, "width": 1.0} if name.startswith("cifar_") else fields


def narrow(name: str, **fields: Any) -> tuple[Network, tuple[int, int, int]]:
    """The small network of that name for ten classes (or fewer), and its (height, width, channels)."""
    variant = get_variant(name)
    size = FIELDS[family_of(name)][1]
    classes = min(10, variant.args.get("num_classes", 10))
    network = create_model(name, **{"num_classes": classes, **narrow_fields(name), **fields})
    return network, (size, size, variant.input_shape[-1])
