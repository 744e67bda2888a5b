"""ResNeXt: the names of ResNet."""

from cnnjax.weights.names.resnet import TIMM, TORCHVISION

NAMES = {"torchvision/*": TORCHVISION, "timm/*": TIMM}
