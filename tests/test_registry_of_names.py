"""Names, duplicates and the nearest name."""

import pytest

from cnnjax.errors import CnnjaxError, ConfigError
from cnnjax.registry import Registry, did_you_mean, unknown


@pytest.fixture
def fruits() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.add("pear", 1)
    registry.add("apple", 2)
    return registry


def test_gives_what_was_added(fruits):
    assert fruits.get("pear") == 1
    assert fruits.get("apple") == 2


def test_names_keep_the_order_of_adding(fruits):
    assert fruits.names() == ["pear", "apple"]


def test_a_duplicate_raises_and_changes_nothing(fruits):
    with pytest.raises(ValueError, match="fruit 'pear' is registered twice"):
        fruits.add("pear", 3)
    assert fruits.get("pear") == 1


def test_an_unknown_name_gets_the_nearest(fruits):
    with pytest.raises(ConfigError, match=r"^unknown fruit 'aple'; did you mean 'apple'\?$"):
        fruits.get("aple")


@pytest.mark.parametrize(
    ("name", "known", "phrase"),
    [
        ("lenet", ["lenet5", "resnet50"], "did you mean 'lenet5'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [f"{n:02}" for n in range(30)], f"known: {', '.join(f'{n:02}' for n in range(24))} and 6 more"),
        ("zzz", [], "nothing is known here"),
        ("", ["a"], "known: a"),
    ],
)
def test_did_you_mean(name, known, phrase):
    assert did_you_mean(name, known) == phrase
    assert did_you_mean(name, iter(known)) == phrase
    assert unknown("thing", name, known) == f"unknown thing '{name}'; {phrase}"


def test_every_error_of_the_users_is_caught_by_one_class():
    assert issubclass(ConfigError, CnnjaxError)
