"""DenseNet: torchvision's names, which timm shares, and Keras'."""

from cnnjax.weights.name_map import NameMap, Rule

TORCH_RULES: tuple[Rule, ...] = (
    ("stem/conv", "features.conv0"),
    ("stem/norm", "features.norm0"),
    ("stage{s}/layer{l}/conv{c}/norm", "features.denseblock{s}.denselayer{l}.norm{c}"),
    ("stage{s}/layer{l}/conv{c}/conv", "features.denseblock{s}.denselayer{l}.conv{c}"),
    ("transition{t}/norm", "features.transition{t}.norm"),
    ("transition{t}/conv", "features.transition{t}.conv"),
    ("norm", "features.norm5"),
    ("head", "classifier"),
)
TORCH_STAGES = {f"stage{stage}": f"features.denseblock{stage}" for stage in (1, 2, 3)}
KERAS_RULES: tuple[Rule, ...] = (
    ("stem/conv", "conv1_conv"),
    ("stem/norm", "conv1_bn"),
    # A dense layer starts with its normalisation number 0.
    ("stage{s}/layer{l}/conv{c}/norm", "conv{s+1}_block{l}_{c-1}_bn"),
    ("stage{s}/layer{l}/conv{c}/conv", "conv{s+1}_block{l}_{c}_conv"),
    ("transition{t}/norm", "pool{t+1}_bn"),
    ("transition{t}/conv", "pool{t+1}_conv"),
    ("norm", "bn"),
    ("head", "predictions"),
)
NAMES = {
    # In torchvision no module gives the last map activated.
    "torchvision/*": NameMap(TORCH_RULES, {"stem": "features.relu0", **TORCH_STAGES}),
    "timm/*": NameMap(TORCH_RULES, {"stem": "features.norm0", **TORCH_STAGES, "stage4": "features.norm5"}),
    **{
        f"keras/DenseNet{layers}": NameMap(
            KERAS_RULES,
            {
                "stem": "conv1_relu",
                **{f"stage{stage}": f"conv{stage + 1}_block{size}_concat" for stage, size in enumerate(sizes, 1)},
                "stage4": "relu",
            },
        )
        for layers, sizes in ((121, (6, 12, 24)), (169, (6, 12, 32)), (201, (6, 12, 48)))
    },
}
