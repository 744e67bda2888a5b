"""Which convolutions of the networks are measured."""

import pytest

from cnnjax.bench.ops import Convolution, convolutions_of, measure
from cnnjax.ops.conv_geometry import Geometry
from cnnjax.ops.conv_table import case_of


def test_transposed_convolutions_are_gradients_by_the_images():
    found = convolutions_of(["unet"], 8)
    tiled = [each for each in found if case_of(each.geometry, *each[1:]).kind == "tiled"]
    assert [(each.channels, each.features, each.geometry.outputs) for each in tiled] == [
        *((512, 1024, (28, 28)), (256, 512, (52, 52)), (128, 256, (100, 100)), (64, 128, (196, 196))),
    ]
    assert {each.geometry.window for each in found} == {(3, 3), (2, 2)}


def test_a_residual_networks_smaller_images_are_measured_too():
    found = convolutions_of(["resnet18"], 8)
    small = {each.geometry.size: networks for each, networks in found.items() if each.channels == each.features == 512}
    assert small[2, 2] == ["resnet18 at 64"]
    assert small[7, 7] == ["resnet18"]
    assert {each.batch for each in found} == {8}


def test_folded_convolutions_are_measured_beside_the_plain_ones():
    windows = {
        (each.geometry.size, each.geometry.window, each.channels) for each in convolutions_of(["lenet5_modern"], 8)
    }
    assert {((32, 32), (5, 5), 1), ((16, 16), (3, 3), 4), ((14, 14), (5, 5), 6), ((7, 7), (3, 3), 24)} <= windows


@pytest.mark.parametrize(("stride", "groups", "measured"), [(2, 1, True), (1, 1, False), (1, 2, True)])
def test_phases_that_are_xlas_own_are_not_measured_beside_it(stride, groups, measured):
    geometry = Geometry((6, 6), (3, 3), (stride, stride), ((1, 1), (1, 1)), groups)
    seconds = measure(Convolution(geometry, 1, 4, 4), "by_input", 1, "xla")
    assert "native" in seconds
    assert ("phases" in seconds) == measured
