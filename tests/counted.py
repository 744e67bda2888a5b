"""Summaries of networks as published, each counted once in a process."""

import functools

from cnnjax.analysis.summary import Summary, summarize
from cnnjax.models import create_model, get_variant
from cnnjax.nn.network import Network


@functools.cache
def summary_of(network: Network, input_shape: tuple[int, int, int]) -> Summary:
    """What the network costs."""
    return summarize(network, input_shape)


def summary_of_name(name: str) -> Summary:
    """What a variant costs at its own size."""
    return summary_of(create_model(name), get_variant(name).input_shape)
