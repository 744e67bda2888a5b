"""SE-ResNet, SE-ResNeXt and SENet-154 in timm: those of today, and the `legacy_` ones with names of their own."""

from cnnjax.weights.name_map import NameMap
from cnnjax.weights.names.resnet import TIMM

TODAY = NameMap(
    rules=(
        # SENet-154's deep stem is one sequence whose last normalisation is outside.
        ("stem1/conv", "conv1.0"),
        ("stem1/norm", "conv1.1"),
        ("stem2/conv", "conv1.3"),
        ("stem2/norm", "conv1.4"),
        ("stem3/conv", "conv1.6"),
        ("stem3/norm", "bn1"),
        ("stage{s}/block{b}/squeeze_excite/reduce", "layer{s}.{b-1}.se.fc1", "pointwise"),
        ("stage{s}/block{b}/squeeze_excite/expand", "layer{s}.{b-1}.se.fc2", "pointwise"),
        *TIMM.rules,
    ),
    features=TIMM.features,
)
LEGACY = NameMap(
    rules=(
        ("stem/conv", "layer0.conv1"),
        ("stem/norm", "layer0.bn1"),
        ("stem{n}/conv", "layer0.conv{n}"),
        ("stem{n}/norm", "layer0.bn{n}"),
        ("stage{s}/block{b}/squeeze_excite/reduce", "layer{s}.{b-1}.se_module.fc1", "pointwise"),
        ("stage{s}/block{b}/squeeze_excite/expand", "layer{s}.{b-1}.se_module.fc2", "pointwise"),
        ("head", "last_linear"),
        *TIMM.rules,
    ),
    features={**TIMM.features, "stem": "layer0"},
)
NAMES = {"timm/legacy_*": LEGACY, "timm/*": TODAY}
