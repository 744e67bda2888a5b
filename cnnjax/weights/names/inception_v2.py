"""Inception v2: pytorchcv's names."""

from cnnjax.weights.name_map import NameMap, Rule

# Theirs are numbered within stages that start with a strided module; a strided module has no branch of 1x1 alone.
_UNITS = {
    **{"3a": "stage1.unit1", "3b": "stage1.unit2"},
    **{"3c": "stage2.unit1", "4a": "stage2.unit2", "4b": "stage2.unit3", "4c": "stage2.unit4", "4d": "stage2.unit5"},
    **{"4e": "stage3.unit1", "5a": "stage3.unit2", "5b": "stage3.unit3"},
}
_STRIDED = ("3c", "4e")


def _module(name: str) -> tuple[Rule, ...]:
    ours, theirs = f"inception{name}", f"features.{_UNITS[name]}.branches"
    first = 0 if name in _STRIDED else 1
    return tuple(
        rule
        for layer, there in (("conv", "conv"), ("norm", "bn"))
        for rule in (
            (f"{ours}/branch1x1/conv1/{layer}", f"{theirs}.branch1.{there}"),
            (f"{ours}/branch3x3/conv{{c}}/{layer}", f"{theirs}.branch{first + 1}.conv{{c}}.{there}"),
            (f"{ours}/branch_double3x3/conv{{c}}/{layer}", f"{theirs}.branch{first + 2}.conv{{c}}.{there}"),
            (f"{ours}/branch_pool/conv1/{layer}", f"{theirs}.branch4.conv.{there}"),
        )
    )


NAMES = {
    "pytorchcv/*": NameMap(
        rules=(
            ("conv1/conv", "features.init_block.conv1.conv"),
            ("conv1/norm", "features.init_block.conv1.bn"),
            ("conv2_reduce/conv", "features.init_block.conv2.conv1.conv"),
            ("conv2_reduce/norm", "features.init_block.conv2.conv1.bn"),
            ("conv2/conv", "features.init_block.conv2.conv2.conv"),
            ("conv2/norm", "features.init_block.conv2.conv2.bn"),
            *(rule for name in _UNITS for rule in _module(name)),
            ("head", "output"),
        ),
        features={
            "stem": "features.init_block.conv1",
            "stage1": "features.init_block.conv2",
            "stage2": "features.stage1",
            "stage3": "features.stage2",
            "stage4": "features.stage3",
        },
    )
}
