"""AlexNet: torchvision's names and pytorchcv's."""

from cnnjax.weights.name_map import NameMap

TORCHVISION = NameMap(
    rules=(
        *((f"conv{number}/conv", f"features.{place}") for number, place in enumerate((0, 3, 6, 8, 10), 1)),
        ("dense1", "classifier.1", "flatten6x6"),
        ("dense2", "classifier.4"),
        ("head", "classifier.6"),
    ),
    features={"stage1": "features.1", "stage2": "features.4", "stage3": "features.11", "pool": "features.12"},
)
PYTORCHCV = NameMap(
    rules=(
        ("conv{c:1|2}/conv", "features.stage{c}.unit1.conv"),
        ("conv{c}/conv", "features.stage3.unit{c-2}.conv"),
        ("dense1", "output.fc1.fc", "flatten6x6"),
        ("dense2", "output.fc2.fc"),
        ("head", "output.fc3"),
    ),
    features={
        "stage1": "features.stage1.unit1",
        "stage2": "features.stage2.unit1",
        "stage3": "features.stage3.unit3",
        "pool": "features.stage3",
    },
)
NAMES = {"torchvision/*": TORCHVISION, "pytorchcv/*": PYTORCHCV}
