"""Networks as published, each counted or summarised once in a process."""

import functools

from cnnjax.analysis.count import Counts, Known, count
from cnnjax.analysis.summary import Summary, summarize
from cnnjax.models import create_model, get_variant
from cnnjax.nn.network import Network

_KNOWN: Known = {}


@functools.cache
def counts_of(network: Network, input_shape: tuple[int, int, int]) -> Counts:
    """The totals of a network."""
    return count(network, input_shape, _KNOWN)


@functools.cache
def summary_of_name(name: str) -> Summary:
    """What a variant costs at its own size."""
    return summarize(create_model(name), get_variant(name).input_shape)
