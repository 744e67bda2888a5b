"""The stems of Inception v3 and v4: for the paper's images, and for small ones."""

import pytest
from definitions import built

from cnnjax.errors import ConfigError

SHALLOW = {
    "inception_v3": {"width": 0.125, "depth": 0.1, "num_classes": 5},
    "inception_v4": {"width": 0.125, "stage_sizes": (1, 1, 1), "num_classes": 5},
}


def outputs_and_leaves(name, shape, **fields):
    return built(name, shape, train=True, **SHALLOW[name], **fields)


@pytest.mark.parametrize("name", SHALLOW)
def test_the_small_stem_has_the_same_convolutions_at_full_size(name):
    outputs, small = outputs_and_leaves(name, (32, 24, 1), stem="small")
    assert outputs_and_leaves(name, (75, 75, 1), stem="imagenet")[1] == small
    sides = {stage: shape[:2] for stage, shape in outputs.features.items()}
    assert sides == {"stem": (32, 24), "stage1": (32, 24), "stage2": (32, 24), "stage3": (15, 11), "stage4": (7, 5)}


@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 75), ("small", 7)])
@pytest.mark.parametrize("name", SHALLOW)
def test_smallest_images(name, stem, smallest):
    fields = {"stem": stem, "auxiliary_classifiers": 1}
    outputs, _ = outputs_and_leaves(name, (smallest, smallest + 20, 1), **fields)
    assert outputs.features["stage4"][0] == 1
    assert outputs.aux == {"auxiliary": (5,)}
    with pytest.raises(ConfigError, match=f"of at least {smallest}x{smallest}; got"):
        outputs_and_leaves(name, (smallest + 20, smallest - 1, 1), **fields)
