"""ResNeXt: Xie, Girshick, Dollar, Tu and He 2016, "Aggregated Residual Transformations for Deep Neural Networks",
arXiv:1611.05431, Table 1 and section 3.3.

ResNet whose bottlenecks have wider 3x3 convolutions in groups: `resnext50_32x4d` has 32 groups (the cardinality) of 4
channels each in the first stage, and twice as many channels in each later one, for the cost of ResNet-50.

    conv1   7x7, 64, stride 2                                    112x112
    conv2   3x3 max pool, stride 2;
            1x1 128, 3x3 128 in 32 groups, 1x1 256,    3 times     56x56
    conv3   1x1 256, 3x3 256 in 32 groups, 1x1 512,    4 times     28x28
    conv4   1x1 512, 3x3 512 in 32 groups, 1x1 1024,   6 times     14x14 (23 times in ResNeXt-101)
    conv5   1x1 1024, 3x3 1024 in 32 groups, 1x1 2048, 3 times       7x7

It is the paper's form (c), which equals (a), parallel branches that are summed, and (b), branches concatenated early.
Shortcuts are projections where the shape changes; the stride is on the 3x3 convolution.

Deliberate differences: none. `resnext101_32x8d` is not the paper's but a later release's (Mahajan et al. 2018).
"""

from cnnjax.models.resnet import IMAGENET, ResNet
from cnnjax.models.variant import Peers, Variant

_PAPER = (
    "Xie, Girshick, Dollar, Tu, He 2016, Aggregated Residual Transformations for Deep Neural Networks, arXiv:1611.05431"
)

# Layers, cardinality, channels of a group in the first stage.
_SIZES = ((50, 32, 4), (101, 32, 4), (101, 32, 8), (101, 64, 4))

VARIANTS = {
    f"resnext{layers}_{groups}x{width}d": Variant(
        ResNet, (224, 224, 3), _PAPER, {**IMAGENET[layers], "cardinality": groups, "group_width": width}
    )
    for layers, groups, width in _SIZES
}
PEERS: Peers = {
    **{f"torchvision/{name}": (name, {}) for name in VARIANTS if name != "resnext101_32x4d"},
    **{f"timm/{name}": (name, {}) for name in VARIANTS},
}
