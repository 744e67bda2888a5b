"""The roofline and the model of many chips, by hand-made numbers."""

import pytest

from cnnjax.aot.chips import Chip
from cnnjax.aot.collectives import Collectives
from cnnjax.aot.estimate import SECONDS_A_HOP, Work, estimate, predict, torus
from cnnjax.aot.plan import chips_in, predictions
from cnnjax.errors import ConfigError

CHIP = Chip("made up", flops=100.0, memory_bytes=1, memory_bandwidth=10.0, link_bandwidth=5.0, dimensions=2)


def work_of(**changes) -> Work:
    fields = {"flops": 50.0, "bytes_accessed": 20.0, "collectives": [Collectives("all-reduce", 3, 4)], "float32": False}
    return Work(**(fields | changes))


def test_the_longest_part_bounds_a_step():
    found = estimate(work_of(), CHIP, 4)
    assert (found.compute, found.memory) == (0.5, 2.0)
    assert found.interconnect == pytest.approx(2 * 3 / 4 * 4 / 5)
    assert (found.seconds, found.bound) == (2.0, "memory")
    assert estimate(work_of(float32=True), CHIP, 4).compute == 2.0
    gathered = estimate(work_of(collectives=[Collectives("all-gather", 3, 4)]), CHIP, 4)
    assert gathered.interconnect == pytest.approx(found.interconnect / 2)
    assert estimate(work_of(), CHIP, 1).interconnect == 0


def test_more_chips_wait_longer():
    assert [torus(number, 2) for number in (1, 2, 8, 16)] == [(1, 1), (2, 1), (4, 2), (4, 4)]
    assert torus(1024, 3) == (16, 8, 8)
    alone, many = predict(work_of(), CHIP, 1), predict(work_of(), CHIP, 16)
    assert (alone.at_best, alone.at_worst) == (2.0, 2.0)
    assert many.at_best == 2.0
    # Three collectives, and six hops along two sides of four, there and back.
    assert many.at_worst == pytest.approx(2.0 + 2 * 15 / 16 * 4 / 5 + 3 * 2 * 6 * SECONDS_A_HOP)


@pytest.mark.parametrize(
    ("changes", "numbers", "message"),
    [
        ({"topology": "cpu:8"}, [4], "expected a step that fits on several TPUs, such as v5e:2x2, .* got cpu:8"),
        ({"devices": 1}, [4], "expected a step that fits on several TPUs"),
        ({"train": {"fits": False}}, [4], "expected a step that fits"),
    ],
)
def test_what_cannot_be_predicted_is_told(changes, numbers, message):
    told = {"topology": "v5e:2x2", "devices": 4, "precision": "bfloat16", "train": {"fits": True}} | changes
    with pytest.raises(ConfigError, match=f"--chips: {message}"):
        predictions(told, numbers)


@pytest.mark.parametrize("text", ["4,6", "0", "-4", "many", "4,,8", ""])
def test_numbers_of_chips_are_powers_of_two(text):
    assert chips_in("1,4, 1024") == [1, 4, 1024]
    with pytest.raises(ConfigError, match=f"--chips: expected powers of two, such as 4,16,64, got '{text}'"):
        chips_in(text)
