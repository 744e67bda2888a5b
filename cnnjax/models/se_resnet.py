"""Residual networks with squeeze-and-excitation, and SENet-154: Hu, Shen, Albanie, Sun and Wu 2017,
"Squeeze-and-Excitation Networks", arXiv:1709.01507, Table 1, Figure 3 and the appendix on SENet-154.

Each residual branch ends in a gate: the channels' global means go through a dense layer with a sixteenth of the
channels, ReLU, another dense layer and a sigmoid, and the result multiplies the channels before the shortcut is added.

`senet154` is SE-ResNeXt-152 (64x4d) with half the channels in each bottleneck's first 1x1, three 3x3 convolutions in
the place of the first 7x7, 3x3 kernels in the projections with a stride, and dropout 0.2 before the head.

The defaults are the authors' release: the stem's max pool is Caffe's (padding at the bottom and right only), the stride
of `se_resnet50`, 101 and 152 is on a bottleneck's first 1x1, that of the ResNeXts and of SENet-154 on the 3x3.

Deliberate differences:
- `se_resnet18` and 34 are in neither the paper nor the release: they are what Figure 3 makes of ResNet-18 and 34.
  timm's `legacy_` ones have a ReLU between the last normalisation and the gate: `activate_branch`.
- `se_resnext101_64x4d` is of later releases; here it has the authors' stem as the others.
- SENet-154 was trained with label smoothing 0.1 and, towards the end, frozen BatchNorm: no part of the network.
"""

from typing import Any

from cnnjax.models.resnet import IMAGENET, ResNet
from cnnjax.models.variant import Peers, Variant

_PAPER = "Hu, Shen, Albanie, Sun, Wu 2017, Squeeze-and-Excitation Networks, arXiv:1709.01507"
_DROPOUT = 0.2


def _variant(layers: int, **fields: Any) -> Variant:
    release = {"se_ratio": 16, "stem_pool": "ceil"}
    return Variant(ResNet, (224, 224, 3), _PAPER, {**IMAGENET[layers], **release, **fields})


VARIANTS = {
    **{f"se_resnet{layers}": _variant(layers) for layers in (18, 34)},
    **{f"se_resnet{layers}": _variant(layers, stride_on="conv1") for layers in (50, 101, 152)},
    **{
        f"se_resnext{layers}_{groups}x4d": _variant(layers, cardinality=groups, group_width=4)
        for layers, groups in ((50, 32), (101, 32), (101, 64))
    },
    "senet154": _variant(
        152, cardinality=64, group_width=4, reduced="half", stem="deep", projection_kernel=3, dropout=_DROPOUT
    ),
}

# timm's own: ResNet of today with the gate; its width is a multiple of 8, which matters to 18 and 34.
_TODAY = {"stride_on": "conv2", "stem_pool": "symmetric", "se_divisor": 8, "dropout": 0.0}
PEERS: Peers = {
    **{
        f"timm/legacy_seresnet{layers}": (f"se_resnet{layers}", {"activate_branch": True, "dropout": _DROPOUT})
        for layers in (18, 34)
    },
    **{f"timm/legacy_seresnet{layers}": (f"se_resnet{layers}", {"dropout": _DROPOUT}) for layers in (50, 101, 152)},
    **{
        f"timm/legacy_seresnext{layers}_32x4d": (f"se_resnext{layers}_32x4d", {"dropout": _DROPOUT})
        for layers in (50, 101)
    },
    "timm/legacy_senet154": ("senet154", {}),
    **{f"timm/{name.replace('se_', 'se')}": (name, _TODAY) for name in VARIANTS},
}
