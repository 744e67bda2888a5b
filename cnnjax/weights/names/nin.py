"""Network in Network: pytorchcv's names."""

from cnnjax.weights.name_map import NameMap

PYTORCHCV = NameMap(
    rules=(
        ("stage3/conv3/conv", "output.final_conv.conv"),
        ("stage{s}/conv{c}/conv", "features.stage{s}.unit{c}.conv"),
    ),
    features={"stage1": "features.stage1", "stage2": "features.stage2", "stage3": "output.final_conv"},
)
NAMES = {"pytorchcv/*": PYTORCHCV}
