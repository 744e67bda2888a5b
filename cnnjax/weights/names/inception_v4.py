"""Inception v4: timm's names."""

from cnnjax.weights.name_map import NameMap

# timm's modules are numbered through the network, their branches within a module as we order them.
_SIMPLE = {
    **{f"stem/conv{number}": f"features.{number - 1}" for number in (1, 2, 3)},
    "stage1/block1/branch3x3/conv1": "features.3.conv",
    "stage1/block2/branch3x3/conv{c}": "features.4.branch0.{c-1}",
    "stage1/block2/branch7x7/conv{c}": "features.4.branch1.{c-1}",
    "stage2/block1/branch3x3/conv1": "features.5.conv",
}
_MODULE_A = {
    "branch1x1/conv1": "branch0",
    "branch3x3/conv{c}": "branch1.{c-1}",
    "branch_double3x3/conv{c}": "branch2.{c-1}",
    "branch_pool/conv1": "branch3.1",
}
_MODULE_B = {
    "branch1x1/conv1": "branch0",
    "branch7x7/conv{c}": "branch1.{c-1}",
    "branch_double7x7/conv{c}": "branch2.{c-1}",
    "branch_pool/conv1": "branch3.1",
}
_MODULE_C = {
    "branch1x1/conv1": "branch0",
    "branch3x3/conv1": "branch1_0",
    "branch3x3/conv2_arm1": "branch1_1a",
    "branch3x3/conv2_arm2": "branch1_1b",
    "branch_double3x3/conv{c}": "branch2_{c-1}",
    "branch_double3x3/conv4_arm1": "branch2_3a",
    "branch_double3x3/conv4_arm2": "branch2_3b",
    "branch_pool/conv1": "branch3.1",
}
_REDUCTION_A = {"branch3x3/conv1": "branch0", "branch_double3x3/conv{c}": "branch1.{c-1}"}
_REDUCTION_B = {"branch3x3/conv{c}": "branch0.{c-1}", "branch7x7/conv{c}": "branch1.{c-1}"}
_MODULES = (
    *((f"stage2/block{number + 1}", _MODULE_A) for number in range(1, 5)),
    ("stage3/block1", _REDUCTION_A),
    *((f"stage3/block{number + 1}", _MODULE_B) for number in range(1, 8)),
    ("stage4/block1", _REDUCTION_B),
    *((f"stage4/block{number + 1}", _MODULE_C) for number in range(1, 4)),
)
_CONVOLUTIONS = {
    **_SIMPLE,
    **{
        f"{block}/{ours}": f"features.{number}.{theirs}"
        for number, (block, convolutions) in enumerate(_MODULES, 6)
        for ours, theirs in convolutions.items()
    },
}
NAMES = {
    "timm/*": NameMap(
        rules=(
            *((f"{ours}/conv", f"{theirs}.conv") for ours, theirs in _CONVOLUTIONS.items()),
            *((f"{ours}/norm", f"{theirs}.bn") for ours, theirs in _CONVOLUTIONS.items()),
            ("head", "last_linear"),
        ),
        features={
            "stem": "features.2",
            "stage1": "features.4",
            "stage2": "features.9",
            "stage3": "features.17",
            "stage4": "features.21",
        },
    )
}
