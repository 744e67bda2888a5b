"""Which convolutions of the networks are measured."""

from cnnjax.bench.ops import convolutions_of
from cnnjax.ops.conv_table import case_of


def test_transposed_convolutions_are_gradients_by_the_images():
    found = convolutions_of(["unet"], 8)
    tiled = [each for each in found if case_of(each.geometry, *each[1:]).kind == "tiled"]
    assert [(each.channels, each.features, each.geometry.outputs) for each in tiled] == [
        *((512, 1024, (28, 28)), (256, 512, (52, 52)), (128, 256, (100, 100)), (64, 128, (196, 196))),
    ]
    assert {each.geometry.window for each in found} == {(3, 3), (2, 2)}
