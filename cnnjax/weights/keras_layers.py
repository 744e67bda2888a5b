"""In which order Keras' applications list their layers.

A `.weights.h5` file does not hold a layer under its name but as the n-th of its class (`layers/conv2d_12`), counted
through `model.layers`: by depth in the graph, then by creation. So a projection comes just before the convolution that
ends the block. Here a layer's name tells its place; the parity tests compare with every application.
"""

import re
from collections.abc import Callable, Mapping

from cnnjax.errors import WeightsError

# A layer's weights in the order of its file, by the layer's class, as far as the applications use them.
LEAVES: dict[str, tuple[tuple[str, ...], ...]] = {
    "conv2d": (("kernel", "bias"), ("kernel",)),
    "dense": (("kernel", "bias"), ("kernel",)),
    "depthwise_conv2d": (("kernel", "bias"), ("kernel",)),
    "separable_conv2d": (("depthwise_kernel", "pointwise_kernel"), ("depthwise_kernel", "pointwise_kernel", "bias")),
    "batch_normalization": (
        ("gamma", "beta", "moving_mean", "moving_variance"),
        ("beta", "moving_mean", "moving_variance"),
    ),
    "normalization": (("mean", "variance", "count"),),
}

Place = tuple[float, ...]
_LAST = (9999.0,)
_ENDS: tuple[tuple[str, Callable[..., Place]], ...] = (
    (r"fc(\d)", lambda number: (number,)),
    (r"predictions|normalization", lambda: _LAST),
)
_ORDERS: dict[str, tuple[tuple[str, Callable[..., Place]], ...]] = {
    "VGG": ((r"block(\d)_conv(\d)", lambda block, layer: (block, layer)),),
    "ResNet": (
        (r"conv1_(?:conv|bn)", lambda: (1,)),
        (r"conv(\d)_block(\d+)_(\d)_(?:conv|bn)", lambda stage, block, layer: (stage, block, layer or 2.5)),
    ),
    "InceptionV3": ((r"(?:conv2d|batch_normalization)_(\d+)", lambda number: (number,)),),
    "InceptionResNetV2": (
        (r"(?:conv2d|batch_normalization)_(\d+)", lambda number: (number,)),
        (r"block35_(\d+)_conv", lambda block: (11.5 + 6 * block,)),
        (r"block17_(\d+)_conv", lambda block: (75.5 + 4 * block,)),
        (r"block8_(\d+)_conv", lambda block: (162.5 + 4 * block,)),
        (r"conv_7b(?:_bn)?", lambda: _LAST),
    ),
    "DenseNet": (
        (r"conv1_(?:conv|bn)", lambda: (1,)),
        (r"conv(\d)_block(\d+)_(\d)_(?:conv|bn)", lambda stage, block, layer: (stage, block, layer)),
        (r"pool(\d)_(?:conv|bn)", lambda stage: (stage, *_LAST)),
        (r"bn", lambda: _LAST),
    ),
    "Xception": (
        (r"block(\d+)_(?:sep)?conv(\d)(?:_bn)?", lambda block, layer: (block, layer)),
        # The shortcuts have no names; they end the blocks 2, 3, 4 and 13.
        (r"(?:conv2d|batch_normalization)_(\d)", lambda number: ((2, 3, 4, 13)[int(number)], *_LAST)),
    ),
    "MobileNet": (
        (r"conv1(?:_bn)?", lambda: (0,)),
        (r"conv_dw_(\d+)(?:_bn)?", lambda block: (block, 1)),
        (r"conv_pw_(\d+)(?:_bn)?", lambda block: (block, 2)),
        (r"conv_preds", lambda: _LAST),
    ),
    "EfficientNet": (
        (r"stem_(?:conv|bn)", lambda: (0,)),
        *(
            (rf"block(\d)([a-z])_{layer}", lambda stage, letter, rank=rank: (stage, letter, rank))
            for rank, layer in enumerate(
                ("expand_(?:conv|bn)", "(?:dwconv|bn)", "se_reduce", "se_expand", "project_(?:conv|bn)")
            )
        ),
        (r"top_(?:conv|bn)", lambda: _LAST),
    ),
}


def layers_by_class(
    application: str, dimensions: Mapping[str, int], depthwise: frozenset[str] = frozenset()
) -> dict[str, list[str]]:
    """The layers that have weights, by Keras' class in its files, as `model.layers` has them.

    Args:
        application: as in `keras.applications`, such as ResNet50.
        dimensions: how many of them each of the model's arrays has, by `layer/weight`; layers with automatic names
            (conv2d_7) numbered from 0 within the model.
        depthwise: the layers that are depthwise convolutions, which their arrays do not tell.

    Raises:
        WeightsError: a layer that the application does not have.
    """
    layers: dict[str, dict[str, int]] = {}
    for name, count in dimensions.items():
        layer, _, leaf = name.rpartition("/")
        layers.setdefault(layer, {})[leaf] = count
    classes: dict[str, list[str]] = {}
    for layer, leaves in layers.items():
        classes.setdefault("depthwise_conv2d" if layer in depthwise else _class_of(leaves), []).append(layer)
    return {name: sorted(found, key=lambda layer: _place(application, layer)) for name, found in classes.items()}


def leaves_of(keras_class: str, count: int) -> tuple[str, ...]:
    """What a layer of that class calls its weights, if it has so many."""
    return next((row for row in LEAVES.get(keras_class, ()) if len(row) == count), tuple(map(str, range(count))))


def _class_of(leaves: Mapping[str, int]) -> str:
    for leaf, keras_class in (
        ("moving_mean", "batch_normalization"),
        ("pointwise_kernel", "separable_conv2d"),
        ("count", "normalization"),
    ):
        if leaf in leaves:
            return keras_class
    return "dense" if leaves.get("kernel") == 2 else "conv2d"


def _place(application: str, layer: str) -> Place:
    family = next((rows for name, rows in _ORDERS.items() if re.fullmatch(rf"{name}(?:B?\d+)?", application)), ())
    for pattern, key in (*family, *_ENDS):
        if match := re.fullmatch(pattern, layer):
            return key(*(float(text) if text.isdigit() else ord(text) for text in match.groups()))
    raise WeightsError(f"keras.applications.{application} has no layer '{layer}'")
