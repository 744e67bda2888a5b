"""EfficientNet and EfficientNet-Lite: torchvision's names, timm's, Keras' and efficientnet-lite-pytorch's.

Stage 1 expands nothing, so that torchvision and timm number its layers in another way.
"""

from dataclasses import replace

from cnnjax.models.efficientnet import SCALING, STAGES
from cnnjax.nn.rounding import round_repeats
from cnnjax.weights.name_map import NameMap, Rule

TORCHVISION = NameMap(
    rules=(
        ("stem/conv", "features.0.0"),
        ("stem/norm", "features.0.1"),
        ("stage1/block{b}/depthwise/conv", "features.1.{b-1}.block.0.0"),
        ("stage1/block{b}/depthwise/norm", "features.1.{b-1}.block.0.1"),
        ("stage1/block{b}/squeeze_excite/reduce", "features.1.{b-1}.block.1.fc1", "pointwise"),
        ("stage1/block{b}/squeeze_excite/expand", "features.1.{b-1}.block.1.fc2", "pointwise"),
        ("stage1/block{b}/project/conv", "features.1.{b-1}.block.2.0"),
        ("stage1/block{b}/project/norm", "features.1.{b-1}.block.2.1"),
        ("stage{s}/block{b}/expand/conv", "features.{s}.{b-1}.block.0.0"),
        ("stage{s}/block{b}/expand/norm", "features.{s}.{b-1}.block.0.1"),
        ("stage{s}/block{b}/depthwise/conv", "features.{s}.{b-1}.block.1.0"),
        ("stage{s}/block{b}/depthwise/norm", "features.{s}.{b-1}.block.1.1"),
        ("stage{s}/block{b}/squeeze_excite/reduce", "features.{s}.{b-1}.block.2.fc1", "pointwise"),
        ("stage{s}/block{b}/squeeze_excite/expand", "features.{s}.{b-1}.block.2.fc2", "pointwise"),
        ("stage{s}/block{b}/project/conv", "features.{s}.{b-1}.block.3.0"),
        ("stage{s}/block{b}/project/norm", "features.{s}.{b-1}.block.3.1"),
        ("stage8/conv", "features.8.0"),
        ("stage8/norm", "features.8.1"),
        ("head", "classifier.1"),
    ),
    features={"stem": "features.0", **{f"stage{stage}": f"features.{stage}" for stage in range(1, 9)}},
)
TIMM = NameMap(
    rules=(
        ("stem/conv", "conv_stem"),
        ("stem/norm", "bn1"),
        ("stage1/block{b}/depthwise/norm", "blocks.0.{b-1}.bn1"),
        ("stage1/block{b}/project/conv", "blocks.0.{b-1}.conv_pw"),
        ("stage1/block{b}/project/norm", "blocks.0.{b-1}.bn2"),
        ("stage{s}/block{b}/expand/conv", "blocks.{s-1}.{b-1}.conv_pw"),
        ("stage{s}/block{b}/expand/norm", "blocks.{s-1}.{b-1}.bn1"),
        ("stage{s}/block{b}/depthwise/conv", "blocks.{s-1}.{b-1}.conv_dw"),
        ("stage{s}/block{b}/depthwise/norm", "blocks.{s-1}.{b-1}.bn2"),
        ("stage{s}/block{b}/squeeze_excite/{layer:reduce|expand}", "blocks.{s-1}.{b-1}.se.conv_{layer}", "pointwise"),
        ("stage{s}/block{b}/project/conv", "blocks.{s-1}.{b-1}.conv_pwl"),
        ("stage{s}/block{b}/project/norm", "blocks.{s-1}.{b-1}.bn3"),
        ("stage8/conv", "conv_head"),
        ("stage8/norm", "bn2"),
        ("head", "classifier"),
    ),
    features={"stem": "bn1", **{f"stage{stage}": f"blocks.{stage - 1}" for stage in range(1, 8)}, "stage8": "bn2"},
)


def _keras_block(number: int, letter: str) -> tuple[Rule, ...]:
    ours, theirs = f"stage{{s}}/block{number}", f"block{{s}}{letter}"
    return (
        (f"{ours}/{{layer:expand|project}}/conv", f"{theirs}_{{layer}}_conv"),
        (f"{ours}/{{layer:expand|project}}/norm", f"{theirs}_{{layer}}_bn"),
        (f"{ours}/depthwise/conv", f"{theirs}_dwconv", "depthwise"),
        (f"{ours}/depthwise/norm", f"{theirs}_bn"),
        (f"{ours}/squeeze_excite/{{layer:reduce|expand}}", f"{theirs}_se_{{layer}}", "pointwise"),
    )


def _keras_stages(depth: float) -> dict[str, str]:
    sizes = [round_repeats(repeats, depth) for *_, repeats in STAGES]
    # Only blocks after the first have a shortcut to add.
    ends = [f"{'abcdefghijklm'[size - 1]}_{'add' if size > 1 else 'project_bn'}" for size in sizes]
    return {f"stage{stage}": f"block{stage}{end}" for stage, end in enumerate(ends, 1)}


KERAS = NameMap(
    rules=(
        ("stem/conv", "stem_conv"),
        ("stem/norm", "stem_bn"),
        *(rule for number, letter in enumerate("abcdefghijklm", 1) for rule in _keras_block(number, letter)),
        ("stage8/conv", "top_conv"),
        ("stage8/norm", "top_bn"),
        ("head", "predictions"),
    ),
)


def _lite_pytorch(depth: float) -> NameMap:
    """Its blocks are numbered through all stages."""
    rules: list[Rule] = [("stem/conv", "_conv_stem"), ("stem/norm", "_bn0")]
    features, number = {}, 0
    for stage, (*_, repeats) in enumerate(STAGES, 1):
        for block in range(1, (repeats if stage in (1, len(STAGES)) else round_repeats(repeats, depth)) + 1):
            ours, theirs = f"stage{stage}/block{block}", f"_blocks.{number}"
            rules.append((f"{ours}/{{layer:expand|depthwise|project}}/conv", f"{theirs}._{{layer}}_conv"))
            rules += [
                (f"{ours}/{layer}/norm", f"{theirs}._bn{index}")
                for index, layer in enumerate(("expand", "depthwise", "project"))
            ]
            number += 1
        features[f"stage{stage}"] = f"_blocks.{number - 1}"
    rules += [("stage8/conv", "_conv_head"), ("stage8/norm", "_bn1"), ("head", "_fc")]
    return NameMap(tuple(rules), features)


NAMES = {
    "torchvision/*": TORCHVISION,
    "timm/*": TIMM,
    **{
        f"keras/EfficientNetB{phi}": replace(
            KERAS,
            features={
                "stem": "stem_activation",
                **_keras_stages(SCALING[f"b{phi}"][1]),
                "stage8": "top_activation",
            },
        )
        for phi in range(8)
    },
    **{
        f"efficientnet-lite-pytorch/efficientnet-lite{number}": _lite_pytorch(SCALING[f"lite{number}"][1])
        for number in range(5)
    },
}
