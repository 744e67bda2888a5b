"""Inception-ResNet: timm's, Keras' and pytorchcv's names."""

from cnnjax.weights.name_map import NameMap, Rule
from cnnjax.weights.names.inception_v3 import KERAS_MODULE_A, KERAS_REDUCTION_A, KERAS_STEM, numbered


def _normalised(convolutions: dict[str, str]) -> tuple[Rule, ...]:
    """PyTorch's names of convolutions and of their normalisations."""
    return tuple(
        (f"{ours}/{layer}", f"{theirs}.{there}")
        for ours, theirs in convolutions.items()
        for layer, there in (("conv", "conv"), ("norm", "bn"))
    )


# For our residual modules those of timm; the last one of stage4 is apart.
_TIMM_RESIDUALS = {
    "stage2/block{b}": "repeat.{b-3}",
    "stage3/block{b}": "repeat_1.{b-2}",
    "stage4/block{b:11}": "block8",
    "stage4/block{b}": "repeat_2.{b-2}",
}
TIMM = NameMap(
    rules=(
        *_normalised(
            {
                **{"stem/conv1": "conv2d_1a", "stem/conv2": "conv2d_2a", "stem/conv3": "conv2d_2b"},
                **{"stage1/block1/branch3x3/conv1": "conv2d_3b", "stage1/block1/branch3x3/conv2": "conv2d_4a"},
                "stage2/block2/branch1x1/conv1": "mixed_5b.branch0",
                "stage2/block2/branch5x5/conv{c}": "mixed_5b.branch1.{c-1}",
                "stage2/block2/branch_double3x3/conv{c}": "mixed_5b.branch2.{c-1}",
                "stage2/block2/branch_pool/conv1": "mixed_5b.branch3.1",
                "stage3/block1/branch3x3/conv1": "mixed_6a.branch0",
                "stage3/block1/branch_double3x3/conv{c}": "mixed_6a.branch1.{c-1}",
                "stage4/block1/branch3x3/conv{c}": "mixed_7a.branch0.{c-1}",
                "stage4/block1/branch3x3_second/conv{c}": "mixed_7a.branch1.{c-1}",
                "stage4/block1/branch_double3x3/conv{c}": "mixed_7a.branch2.{c-1}",
                "stage4/block12/branch1x1/conv1": "conv2d_7b",
            }
        ),
        *(
            rule
            for ours, theirs in _TIMM_RESIDUALS.items()
            for rule in (
                *_normalised(
                    {
                        f"{ours}/branches/branch1x1/conv1": f"{theirs}.branch0",
                        f"{ours}/branches/{{second:branch3x3|branch7x7}}/conv{{c}}": f"{theirs}.branch1.{{c-1}}",
                        f"{ours}/branches/branch_double3x3/conv{{c}}": f"{theirs}.branch2.{{c-1}}",
                    }
                ),
                (f"{ours}/expand", f"{theirs}.conv2d"),
            )
        ),
        ("head", "classif"),
    ),
    features={
        "stem": "conv2d_2b",
        "stage1": "conv2d_4a",
        "stage2": "repeat",
        "stage3": "repeat_1",
        "stage4": "conv2d_7b",
    },
)

# The order in which Keras numbers what has no name of its own, see inception_v3.
_KERAS_RESIDUAL_A = (
    *("branch_double3x3/conv1", "branch3x3/conv1", "branch_double3x3/conv2"),
    *("branch1x1/conv1", "branch3x3/conv2", "branch_double3x3/conv3"),
)
_KERAS_RESIDUAL_B = ("branch7x7/conv1", "branch7x7/conv2", "branch1x1/conv1", "branch7x7/conv3")
_KERAS_RESIDUAL_C = ("branch3x3/conv1", "branch3x3/conv2", "branch1x1/conv1", "branch3x3/conv3")
_KERAS_REDUCTION_B = (
    *("branch_double3x3/conv1", "branch3x3/conv1", "branch3x3_second/conv1", "branch_double3x3/conv2"),
    *("branch3x3/conv2", "branch3x3_second/conv2", "branch_double3x3/conv3"),
)
_KERAS_CONVOLUTIONS = (
    *KERAS_STEM,
    *(f"stage2/block2/{conv}" for conv in KERAS_MODULE_A),
    *(f"stage2/block{block}/branches/{conv}" for block in range(3, 13) for conv in _KERAS_RESIDUAL_A),
    *(f"stage3/block1/{conv}" for conv in KERAS_REDUCTION_A),
    *(f"stage3/block{block}/branches/{conv}" for block in range(2, 22) for conv in _KERAS_RESIDUAL_B),
    *(f"stage4/block1/{conv}" for conv in _KERAS_REDUCTION_B),
    *(f"stage4/block{block}/branches/{conv}" for block in range(2, 12) for conv in _KERAS_RESIDUAL_C),
)
KERAS = NameMap(
    rules=(
        *numbered(_KERAS_CONVOLUTIONS),
        ("stage2/block{b}/expand", "block35_{b-2}_conv"),
        ("stage3/block{b}/expand", "block17_{b-1}_conv"),
        ("stage4/block{b}/expand", "block8_{b-1}_conv"),
        ("stage4/block12/branch1x1/conv1/conv", "conv_7b"),
        ("stage4/block12/branch1x1/conv1/norm", "conv_7b_bn"),
        ("head", "predictions"),
    ),
    features={
        "stem": "activation_2",
        "stage1": "activation_4",
        "stage2": "block35_10_ac",
        "stage3": "block17_20_ac",
        "stage4": "conv_7b_ac",
    },
)

# Our stages are one ahead of pytorchcv's, whose first has no block of its own for the stride.
_PYTORCHCV_RESIDUALS = {
    "stage2/block{b}": "features.stage1.unit{b-1}",
    "stage3/block{b}": "features.stage2.unit{b}",
    "stage4/block{b}": "features.stage3.unit{b}",
}
PYTORCHCV = NameMap(
    rules=(
        *_normalised(
            {
                "stem/conv{c}": "features.init_block.conv{c}",
                "stage1/block1/branch3x3/conv{c}": "features.init_block.conv{c+3}",
                "stage2/block1/branch3x3/conv1": "features.init_block.conv6",
                "stage3/block1/branch3x3/conv{c}": "features.stage2.unit1.branches.branch1.conv_list.conv{c}",
                "stage3/block1/branch_double3x3/conv{c}": "features.stage2.unit1.branches.branch2.conv_list.conv{c}",
                "stage4/block1/branch3x3/conv{c}": "features.stage3.unit1.branches.branch1.conv_list.conv{c}",
                "stage4/block1/branch3x3_second/conv{c}": "features.stage3.unit1.branches.branch2.conv_list.conv{c}",
                "stage4/block1/branch_double3x3/conv{c}": "features.stage3.unit1.branches.branch3.conv_list.conv{c}",
            }
        ),
        *(
            rule
            for ours, theirs in _PYTORCHCV_RESIDUALS.items()
            for rule in (
                *_normalised(
                    {
                        f"{ours}/branches/branch1x1/conv1": f"{theirs}.branches.branch1.conv",
                        f"{ours}/branches/{{second:branch3x3|branch7x7}}/conv{{c}}": (
                            f"{theirs}.branches.branch2.conv_list.conv{{c}}"
                        ),
                        f"{ours}/branches/branch_double3x3/conv{{c}}": f"{theirs}.branches.branch3.conv_list.conv{{c}}",
                    }
                ),
                (f"{ours}/expand", f"{theirs}.conv"),
            )
        ),
        ("bottleneck", "output.fc1"),
        ("bottleneck_norm", "output.bn"),
        ("head", "output.fc2"),
    ),
    features={
        "stem": "features.init_block.conv3",
        "stage1": "features.init_block.conv5",
        "stage2": "features.stage1",
        "stage3": "features.stage2",
        "stage4": "features.stage3",
    },
)
NAMES = {"timm/*": TIMM, "keras/*": KERAS, "pytorchcv/*": PYTORCHCV}
