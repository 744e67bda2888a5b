"""ResNet: PyTorch's names, which timm shares, Keras' and pytorchcv's."""

from dataclasses import replace

from cnnjax.weights.name_map import NameMap

TORCHVISION = NameMap(
    rules=(
        ("stem/conv", "conv1"),
        ("stem/norm", "bn1"),
        ("stage{s}/block{b}/conv{c}/conv", "layer{s}.{b-1}.conv{c}"),
        ("stage{s}/block{b}/conv{c}/norm", "layer{s}.{b-1}.bn{c}"),
        ("stage{s}/block{b}/projection/conv", "layer{s}.{b-1}.downsample.0"),
        ("stage{s}/block{b}/projection/norm", "layer{s}.{b-1}.downsample.1"),
        ("head", "fc"),
    ),
    features={"stem": "relu", **{f"stage{stage}": f"layer{stage}" for stage in (1, 2, 3, 4)}},
)
TIMM = replace(TORCHVISION, features={**TORCHVISION.features, "stem": "act1"})
KERAS = NameMap(
    rules=(
        ("stem/conv", "conv1_conv"),
        ("stem/norm", "conv1_bn"),
        ("stage{s}/block{b}/conv{c}/conv", "conv{s+1}_block{b}_{c}_conv"),
        ("stage{s}/block{b}/conv{c}/norm", "conv{s+1}_block{b}_{c}_bn"),
        ("stage{s}/block{b}/projection/conv", "conv{s+1}_block{b}_0_conv"),
        ("stage{s}/block{b}/projection/norm", "conv{s+1}_block{b}_0_bn"),
        ("head", "predictions"),
    ),
)
PYTORCHCV = NameMap(
    rules=(
        ("stem/conv", "features.init_block.conv.conv"),
        ("stem/norm", "features.init_block.conv.bn"),
        ("stage{s}/block{b}/conv{c}/conv", "features.stage{s}.unit{b}.body.conv{c}.conv"),
        ("stage{s}/block{b}/conv{c}/norm", "features.stage{s}.unit{b}.body.conv{c}.bn"),
        ("stage{s}/block{b}/projection/conv", "features.stage{s}.unit{b}.identity_conv.conv"),
        ("stage{s}/block{b}/projection/norm", "features.stage{s}.unit{b}.identity_conv.bn"),
        ("head", "output"),
    ),
    features={f"stage{stage}": f"features.stage{stage}" for stage in (1, 2, 3, 4)},
)
PYTORCHCV_CIFAR = NameMap(
    rules=(
        ("stem/conv", "features.init_block.conv"),
        ("stem/norm", "features.init_block.bn"),
        *PYTORCHCV.rules[2:],
    ),
    features={"stem": "features.init_block", **{f"stage{stage}": f"features.stage{stage}" for stage in (1, 2, 3)}},
)
NAMES = {
    "torchvision/*": TORCHVISION,
    "timm/*": TIMM,
    **{
        f"keras/ResNet{layers}": replace(
            KERAS,
            features={
                "stem": "conv1_relu",
                **{f"stage{stage}": f"conv{stage + 1}_block{size}_out" for stage, size in enumerate(sizes, 1)},
            },
        )
        for layers, sizes in ((50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3)))
    },
    "pytorchcv/*_cifar10": PYTORCHCV_CIFAR,
    "pytorchcv/*": PYTORCHCV,
}
