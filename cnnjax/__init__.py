"""cnnjax: convolutional networks as published, in pure-functional JAX and Flax."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cnnjax.version import __version__

if TYPE_CHECKING:
    from cnnjax.analysis.summary import summarize
    from cnnjax.config import Config
    from cnnjax.config_files import load_config
    from cnnjax.errors import CnnjaxError
    from cnnjax.models import create_model, list_models
    from cnnjax.train.evaluation import evaluate
    from cnnjax.train.features import extract_features
    from cnnjax.train.loop import fit
    from cnnjax.train.predict import predict, predict_masks
    from cnnjax.weights.bundle import load_weights

# Loaded when first asked for, so that the command line can answer before JAX is imported.
_HOMES = {
    "CnnjaxError": "cnnjax.errors",
    "Config": "cnnjax.config",
    "create_model": "cnnjax.models",
    "evaluate": "cnnjax.train.evaluation",
    "extract_features": "cnnjax.train.features",
    "fit": "cnnjax.train.loop",
    "list_models": "cnnjax.models",
    "load_config": "cnnjax.config_files",
    "load_weights": "cnnjax.weights.bundle",
    "predict": "cnnjax.train.predict",
    "predict_masks": "cnnjax.train.predict",
    "summarize": "cnnjax.analysis.summary",
}

__all__ = [
    "CnnjaxError",
    "Config",
    "__version__",
    "create_model",
    "evaluate",
    "extract_features",
    "fit",
    "list_models",
    "load_config",
    "load_weights",
    "predict",
    "predict_masks",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnnjax' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
