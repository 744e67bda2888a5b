"""VGG: torchvision's names, timm's with other ones for the head, and Keras'."""

from cnnjax.weights.name_map import NameMap, Rule

SIZES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
HEADS: dict[str, tuple[Rule, ...]] = {
    "torchvision": (("dense1", "classifier.0", "flatten7x7"), ("dense2", "classifier.3"), ("head", "classifier.6")),
    "timm": (
        ("dense1", "pre_logits.fc1", "window7x7"),
        ("dense2", "pre_logits.fc2", "pointwise"),
        ("head", "head.fc"),
    ),
}


def _torch(sizes: tuple[int, ...], normalised: bool, head: tuple[Rule, ...]) -> NameMap:
    """All layers are numbered through: convolution, normalisation if any, activation, and a pool after each stage."""
    rules: list[Rule] = []
    features = {}
    place = 0
    for stage, size in enumerate(sizes, 1):
        for conv in range(1, size + 1):
            rules.append((f"stage{stage}/conv{conv}/conv", f"features.{place}"))
            if normalised:
                rules.append((f"stage{stage}/conv{conv}/norm", f"features.{place + 1}"))
            place += 3 if normalised else 2
        features[f"stage{stage}"] = f"features.{place - 1}"
        place += 1
    return NameMap((*rules, *head), {**features, "pool": f"features.{place - 1}"})


def _keras(sizes: tuple[int, ...]) -> NameMap:
    return NameMap(
        rules=(
            ("stage{s}/conv{c}/conv", "block{s}_conv{c}"),
            ("dense{d}", "fc{d}"),
            ("head", "predictions"),
        ),
        features={
            **{f"stage{stage}": f"block{stage}_conv{size}" for stage, size in enumerate(sizes, 1)},
            "pool": "block5_pool",
        },
    )


NAMES = {
    **{
        f"{library}/vgg{layers}{suffix}": _torch(sizes, suffix == "_bn", head)
        for library, head in HEADS.items()
        for layers, sizes in SIZES.items()
        for suffix in ("", "_bn")
    },
    **{f"keras/VGG{layers}": _keras(SIZES[layers]) for layers in (16, 19)},
}
