"""Our networks with another library's random weights give that library's numbers."""

import os

import pytest

from cnnjax.models import list_peers

pytest.importorskip("torch", reason="needs the extra `parity`")
from measure import at_native_size, at_odd_size, equal

pytestmark = pytest.mark.parity

# One of each family and library, small where there is a choice; with CNNJAX_PARITY=all each, and two seeds.
CHOSEN = (
    *("torchvision/alexnet", "pytorchcv/alexnet", "pytorchcv/nin_cifar10"),
    *("torchvision/vgg11_bn", "timm/vgg11", "keras/VGG16"),
    *("torchvision/resnet18", "torchvision/resnet50", "timm/resnet50", "keras/ResNet50"),
    *("pytorchcv/resnet20_cifar10", "pytorchcv/resnet50"),
    *("torchvision/resnext50_32x4d", "timm/seresnet18", "timm/legacy_seresnet50", "timm/legacy_seresnext50_32x4d"),
    *("torchvision/densenet121", "keras/DenseNet121", "timm/legacy_xception", "keras/Xception"),
    *("timm/mobilenetv1_100", "keras/MobileNet+alpha0.25_r128", "efficientnet-lite-pytorch/efficientnet-lite0"),
    *("torchvision/inception_v3", "keras/InceptionV3", "timm/inception_v4", "pytorchcv/inceptionresnetv1"),
    *("torchvision/efficientnet_b0", "timm/tf_efficientnet_b0", "keras/EfficientNetB0", "timm/efficientnet_lite0"),
    *("torchvision/googlenet+aux", "pytorchcv/bninception"),
)
# Of those, one of each family whose networks take more than one size.
ODD = (
    *("torchvision/alexnet", "timm/vgg11", "timm/resnet50", "torchvision/resnext50_32x4d", "timm/seresnet18"),
    *("torchvision/densenet121", "timm/legacy_xception", "timm/mobilenetv1_100", "torchvision/inception_v3"),
    *("timm/inception_v4", "timm/tf_efficientnet_b0", "torchvision/googlenet+aux"),
)
ALL = os.environ.get("CNNJAX_PARITY") == "all"
PEERS = tuple(list_peers()) if ALL else CHOSEN


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("seed", [0, 1] if ALL else [0])
def test_logits_and_stages_at_native_size(name, seed):
    found = at_native_size(name, seed)
    assert equal(found), found


@pytest.mark.repeats
@pytest.mark.parametrize("name", PEERS if ALL else ODD)
def test_logits_at_an_odd_size(name):
    found = at_odd_size(name, seed=2)
    if found is None:
        pytest.skip("this library's networks have one size")
    assert equal(found), found
