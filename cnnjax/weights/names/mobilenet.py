"""MobileNet v1: Keras' names, which number the blocks throughout, and timm's."""

from itertools import accumulate

from cnnjax.weights.name_map import NameMap, Rule

STAGE_SIZES = (1, 2, 2, 6, 2)
# Keras' number of each stage's last block.
LAST = tuple(accumulate(STAGE_SIZES))

KERAS_RULES: tuple[Rule, ...] = (
    ("stem/conv", "conv1"),
    ("stem/norm", "conv1_bn"),
    *(
        rule
        for stage, (size, last) in enumerate(zip(STAGE_SIZES, LAST, strict=True), 1)
        for block in range(1, size + 1)
        for ours, theirs in ((f"stage{stage}/block{block}", last - size + block),)
        for rule in (
            (f"{ours}/depthwise/conv", f"conv_dw_{theirs}", "depthwise"),
            (f"{ours}/depthwise/norm", f"conv_dw_{theirs}_bn"),
            (f"{ours}/pointwise/conv", f"conv_pw_{theirs}"),
            (f"{ours}/pointwise/norm", f"conv_pw_{theirs}_bn"),
        )
    ),
    ("head", "conv_preds", "pointwise"),
)
TIMM_RULES: tuple[Rule, ...] = (
    ("stem/conv", "conv_stem"),
    ("stem/norm", "bn1"),
    ("stage{s}/block{b}/depthwise/conv", "blocks.{s-1}.{b-1}.conv_dw"),
    ("stage{s}/block{b}/depthwise/norm", "blocks.{s-1}.{b-1}.bn1"),
    ("stage{s}/block{b}/pointwise/conv", "blocks.{s-1}.{b-1}.conv_pw"),
    ("stage{s}/block{b}/pointwise/norm", "blocks.{s-1}.{b-1}.bn2"),
    ("head", "classifier"),
)
NAMES = {
    "keras/MobileNet*": NameMap(
        KERAS_RULES,
        {"stem": "conv1_relu", **{f"stage{stage}": f"conv_pw_{last}_relu" for stage, last in enumerate(LAST, 1)}},
    ),
    "timm/mobilenetv1_*": NameMap(
        TIMM_RULES, {"stem": "bn1", **{f"stage{stage}": f"blocks.{stage - 1}" for stage in range(1, 6)}}
    ),
}
