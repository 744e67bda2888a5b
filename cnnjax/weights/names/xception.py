"""Xception: Keras' names and those of timm's port of it."""

from cnnjax.weights.name_map import NameMap, Rule

# Our block, Keras' and timm's; the two number all blocks of the network, Keras from the stem on.
BLOCKS = (
    ("stage{s:1|2}/block1", "block{s+1}", "block{s}"),
    ("stage3/block{b}", "block{b+3}", "block{b+2}"),
    ("stage4/block1", "block13", "block12"),
    ("exit/block1", "block14", ""),
)
KERAS_RULES: tuple[Rule, ...] = (
    ("stem{c}/conv", "block1_conv{c}"),
    ("stem{c}/norm", "block1_conv{c}_bn"),
    *(
        rule
        for ours, theirs, _ in BLOCKS
        for rule in (
            (f"{ours}/conv{{c}}/depthwise/kernel", f"{theirs}_sepconv{{c}}/depthwise_kernel", "depthwise"),
            (f"{ours}/conv{{c}}/pointwise/kernel", f"{theirs}_sepconv{{c}}/pointwise_kernel"),
            (f"{ours}/conv{{c}}/norm", f"{theirs}_sepconv{{c}}_bn"),
        )
    ),
    ("stage{s}/block1/projection/conv", "conv2d_{s-1}"),
    ("stage{s}/block1/projection/norm", "batch_normalization_{s-1}"),
    ("head", "predictions"),
)
# A branch is one list of activation, separable convolution and normalisation; block1 has no activation at its start.
TIMM_RULES: tuple[Rule, ...] = (
    ("stem{c}/conv", "conv{c}"),
    ("stem{c}/norm", "bn{c}"),
    ("exit/block1/conv{c}/depthwise", "conv{c+2}.conv1"),
    ("exit/block1/conv{c}/pointwise", "conv{c+2}.pointwise"),
    ("exit/block1/conv{c}/norm", "bn{c+2}"),
    *(
        rule
        for ours, theirs, first in (("stage1/block1", "block1", 0), *((ours, timm, 1) for ours, _, timm in BLOCKS[:-1]))
        for conv in (1, 2, 3)
        for rule in (
            (f"{ours}/conv{conv}/depthwise", f"{theirs}.rep.{first + 3 * (conv - 1)}.conv1"),
            (f"{ours}/conv{conv}/pointwise", f"{theirs}.rep.{first + 3 * (conv - 1)}.pointwise"),
            (f"{ours}/conv{conv}/norm", f"{theirs}.rep.{first + 3 * (conv - 1) + 1}"),
        )
    ),
    *(
        rule
        for ours, _, theirs in BLOCKS[:-1]
        for rule in ((f"{ours}/projection/conv", f"{theirs}.skip"), (f"{ours}/projection/norm", f"{theirs}.skipbn"))
    ),
    ("head", "fc"),
)
NAMES = {
    # Keras' sums are named add, add_1, ..., one a block.
    "keras/Xception": NameMap(
        KERAS_RULES,
        {
            "stem": "block1_conv2_act",
            **{"stage1": "add", "stage2": "add_1", "stage3": "add_10"},
            "stage4": "block14_sepconv2_act",
        },
    ),
    "timm/legacy_xception": NameMap(
        TIMM_RULES, {"stem": "act2", "stage1": "block1", "stage2": "block2", "stage3": "block11", "stage4": "act4"}
    ),
}
