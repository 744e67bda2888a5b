"""GoogLeNet: torchvision's names."""

from cnnjax.weights.name_map import NameMap

NAMES = {
    "torchvision/*": NameMap(
        rules=(
            ("conv1/conv", "conv1.conv"),
            ("conv1/norm", "conv1.bn"),
            ("conv2_reduce/conv", "conv2.conv"),
            ("conv2_reduce/norm", "conv2.bn"),
            ("conv2/conv", "conv3.conv"),
            ("conv2/norm", "conv3.bn"),
            ("inception{m:[345][a-e]}/branch1x1/conv1/conv", "inception{m}.branch1.conv"),
            ("inception{m:[345][a-e]}/branch1x1/conv1/norm", "inception{m}.branch1.bn"),
            ("inception{m:[345][a-e]}/branch3x3/conv{c}/conv", "inception{m}.branch2.{c-1}.conv"),
            ("inception{m:[345][a-e]}/branch3x3/conv{c}/norm", "inception{m}.branch2.{c-1}.bn"),
            ("inception{m:[345][a-e]}/branch5x5/conv{c}/conv", "inception{m}.branch3.{c-1}.conv"),
            ("inception{m:[345][a-e]}/branch5x5/conv{c}/norm", "inception{m}.branch3.{c-1}.bn"),
            ("inception{m:[345][a-e]}/branch_pool/conv1/conv", "inception{m}.branch4.1.conv"),
            ("inception{m:[345][a-e]}/branch_pool/conv1/norm", "inception{m}.branch4.1.bn"),
            ("auxiliary{a}/conv/conv", "aux{a}.conv.conv"),
            ("auxiliary{a}/conv/norm", "aux{a}.conv.bn"),
            ("auxiliary{a}/dense", "aux{a}.fc1", "flatten4x4"),
            ("auxiliary{a}/head", "aux{a}.fc2"),
            ("head", "fc"),
        ),
        features={
            "stem": "conv1",
            "stage1": "conv3",
            "stage2": "inception3b",
            "stage3": "inception4e",
            "stage4": "inception5b",
        },
    )
}
