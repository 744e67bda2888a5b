"""Totals alone: those of a summary, with each different block traced once."""

import jax.numpy as jnp
import pytest
from flax import linen as nn
from uncountable import Bare, Looped

from cnnjax.analysis.count import Counts, count
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.nn.network import Network, Outputs

CALLS = []


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        CALLS.append((self.features, self.is_initializing()))
        x = nn.Conv(self.features, (3, 3))(x)
        seen = self.variable("batch_stats", "largest", lambda: jnp.zeros(self.features))
        return x + seen.value


class Repeated(Network, kw_only=True):
    blocks: int = 5

    @nn.compact
    def __call__(self, images, *, train):
        x = images
        for _ in range(self.blocks):
            x = Block(3)(x)
        shared = nn.Dense(4, name="shared")
        x = shared(x) + 2 * shared(x)
        if train or self.is_initializing():
            nn.Dense(10, name="auxiliary")(x)
        return Outputs(logits=x.mean((1, 2)), aux={}, features={"all": x})


@pytest.fixture(autouse=True)
def no_calls_yet():
    CALLS.clear()


def test_a_repeated_block_counts_each_time_and_is_traced_once():
    found = count(Repeated(), (8, 8, 3))
    conv, shared, auxiliary = 3 * 9 * 3 + 3, 3 * 4 + 4, 4 * 10 + 10
    assert found == Counts(5 * conv + shared + auxiliary, 5 * 3, 64 * (5 * 3 * 9 * 3 + 2 * 3 * 4))
    assert CALLS == [(3, True), (3, False)]


def test_what_is_known_is_not_traced_again():
    known = {}
    first, CALLS[:] = count(Repeated(), (8, 8, 3), known), []
    deeper = count(Repeated(blocks=7), (8, 8, 3), known)
    assert not CALLS
    assert (deeper.params - first.params, deeper.batch_stats) == (2 * (3 * 9 * 3 + 3), 7 * 3)
    count(Repeated(), (9, 9, 3), known)
    assert len(CALLS) == 2


@pytest.mark.parametrize("fields", [{"remat": True}, {"scan": True}])
def test_how_a_network_is_compiled_makes_no_difference(fields):
    small = {"stage_sizes": (4, 4), "stage_widths": (8, 16)}
    plain = count(create_model("resnet50", **small), (64, 64, 3))
    assert count(create_model("resnet50", **small, **fields), (64, 64, 3)) == plain


def test_a_module_in_a_loop_raises_each_time():
    known = {}
    for _ in range(3):  # it is traced twice, to initialise and to evaluate
        with pytest.raises(TypeError, match=r"^a module is called in a loop, and nothing says how often"):
            count(Looped(), (4, 4, 3), known)


def test_a_layer_that_nothing_can_count_raises():
    with pytest.raises(TypeError, match=r"^Bare '' holds parameters \(offset\), and nothing says how to count it"):
        count(Bare(), (4, 4, 1))


def test_images_that_do_not_fit_raise_the_networks_own_error():
    with pytest.raises(ConfigError, match="at least 16x16"):
        count(create_model("lenet5"), (8, 8, 1))
