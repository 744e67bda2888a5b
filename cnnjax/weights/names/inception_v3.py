"""Inception v3: torchvision's names, which timm shares, and Keras'."""

from cnnjax.weights.name_map import NameMap, Rule

# Our convolutions in each kind of module -> PyTorch's.
_COMMON = {"branch1x1/conv1": "branch1x1", "branch_pool/conv1": "branch_pool"}
_MODULE_A = {"branch5x5/conv{c}": "branch5x5_{c}", "branch_double3x3/conv{c}": "branch3x3dbl_{c}", **_COMMON}
_MODULE_B = {"branch7x7/conv{c}": "branch7x7_{c}", "branch_double7x7/conv{c}": "branch7x7dbl_{c}", **_COMMON}
_MODULE_C = {
    **{"branch3x3/conv1": "branch3x3_1", "branch_double3x3/conv{c}": "branch3x3dbl_{c}", **_COMMON},
    **{f"branch3x3/conv2_arm{arm}": f"branch3x3_2{letter}" for arm, letter in ((1, "a"), (2, "b"))},
    **{f"branch_double3x3/conv3_arm{arm}": f"branch3x3dbl_3{letter}" for arm, letter in ((1, "a"), (2, "b"))},
}
_REDUCTION_A = {"branch3x3/conv1": "branch3x3", "branch_double3x3/conv{c}": "branch3x3dbl_{c}"}
_REDUCTION_B = {"branch3x3/conv{c}": "branch3x3_{c}", "branch7x7/conv{c}": "branch7x7x3_{c}"}
_MODULES = {
    **{f"stage2/block{number}": (f"Mixed_5{letter}", _MODULE_A) for number, letter in enumerate("bcd", 2)},
    "stage3/block1": ("Mixed_6a", _REDUCTION_A),
    **{f"stage3/block{number}": (f"Mixed_6{letter}", _MODULE_B) for number, letter in enumerate("bcde", 2)},
    "stage4/block1": ("Mixed_7a", _REDUCTION_B),
    **{f"stage4/block{number}": (f"Mixed_7{letter}", _MODULE_C) for number, letter in enumerate("bc", 2)},
}
_TORCH_CONVOLUTIONS = {
    "stem/conv1": "Conv2d_1a_3x3",
    "stem/conv2": "Conv2d_2a_3x3",
    "stem/conv3": "Conv2d_2b_3x3",
    "stage1/block1/branch3x3/conv1": "Conv2d_3b_1x1",
    "stage1/block1/branch3x3/conv2": "Conv2d_4a_3x3",
    **{
        f"{block}/{ours}": f"{module}.{theirs}"
        for block, (module, convolutions) in _MODULES.items()
        for ours, theirs in convolutions.items()
    },
    "auxiliary/conv{c}": "AuxLogits.conv{c-1}",
}
TORCH = NameMap(
    rules=(
        *((f"{ours}/conv", f"{theirs}.conv") for ours, theirs in _TORCH_CONVOLUTIONS.items()),
        *((f"{ours}/norm", f"{theirs}.bn") for ours, theirs in _TORCH_CONVOLUTIONS.items()),
        ("auxiliary/head", "AuxLogits.fc"),
        ("head", "fc"),
    ),
    features={
        "stem": "Conv2d_2b_3x3",
        "stage1": "Conv2d_4a_3x3",
        "stage2": "Mixed_5d",
        "stage3": "Mixed_6e",
        "stage4": "Mixed_7c",
    },
)

# Keras numbers layers by how far they are from the output, the furthest first; what is as far, by branch.
KERAS_STEM = (
    *(f"stem/conv{number}" for number in (1, 2, 3)),
    *(f"stage1/block1/branch3x3/conv{number}" for number in (1, 2)),
)
KERAS_MODULE_A = (
    *("branch_double3x3/conv1", "branch5x5/conv1", "branch_double3x3/conv2"),
    *("branch1x1/conv1", "branch5x5/conv2", "branch_double3x3/conv3", "branch_pool/conv1"),
)
KERAS_REDUCTION_A = (
    *("branch_double3x3/conv1", "branch_double3x3/conv2", "branch3x3/conv1", "branch_double3x3/conv3"),
)
_KERAS_MODULE_B = (
    *("branch_double7x7/conv1", "branch_double7x7/conv2", "branch7x7/conv1", "branch_double7x7/conv3"),
    *("branch7x7/conv2", "branch_double7x7/conv4", "branch1x1/conv1", "branch7x7/conv3", "branch_double7x7/conv5"),
    "branch_pool/conv1",
)
_KERAS_REDUCTION_B = (
    *("branch7x7/conv1", "branch7x7/conv2", "branch3x3/conv1", "branch7x7/conv3", "branch3x3/conv2", "branch7x7/conv4"),
)
_KERAS_MODULE_C = (
    *("branch_double3x3/conv1", "branch3x3/conv1", "branch_double3x3/conv2"),
    *("branch3x3/conv2_arm1", "branch3x3/conv2_arm2", "branch_double3x3/conv3_arm1", "branch_double3x3/conv3_arm2"),
    *("branch1x1/conv1", "branch_pool/conv1"),
)
_KERAS_CONVOLUTIONS = (
    *KERAS_STEM,
    *(f"stage2/block{block}/{conv}" for block in (2, 3, 4) for conv in KERAS_MODULE_A),
    *(f"stage3/block1/{conv}" for conv in KERAS_REDUCTION_A),
    *(f"stage3/block{block}/{conv}" for block in (2, 3, 4, 5) for conv in _KERAS_MODULE_B),
    *(f"stage4/block1/{conv}" for conv in _KERAS_REDUCTION_B),
    *(f"stage4/block{block}/{conv}" for block in (2, 3) for conv in _KERAS_MODULE_C),
)


def numbered(convolutions: tuple[str, ...]) -> tuple[Rule, ...]:
    """Rules for convolutions that Keras numbers in this order, and their normalisations."""
    return tuple(
        (f"{ours}/{layer}", f"{theirs}_{number}")
        for number, ours in enumerate(convolutions)
        for layer, theirs in (("conv", "conv2d"), ("norm", "batch_normalization"))
    )


NAMES = {
    "keras/*": NameMap(
        rules=(*numbered(_KERAS_CONVOLUTIONS), ("head", "predictions")),
        features={
            "stem": "activation_2",
            "stage1": "activation_4",
            "stage2": "mixed2",
            "stage3": "mixed7",
            "stage4": "mixed10",
        },
    ),
    "torchvision/*": TORCH,
    "timm/*": TORCH,
}
