"""One line a registered network."""

from typing import Any

from cnnjax.analysis.summary import summarize
from cnnjax.models import create_model, get_variant


def describe_model(name: str) -> dict[str, Any]:
    """name, params, batch_stats, macs (for one image of the variant's own size), input and paper of a variant."""
    variant = get_variant(name)
    summary = summarize(create_model(name), variant.input_shape)
    return {
        "name": name,
        "params": summary.params,
        "batch_stats": summary.batch_stats,
        "macs": summary.macs,
        "input": list(variant.input_shape),
        "paper": variant.paper,
    }
