"""The registry of networks. Imports JAX only once a network is asked for."""

import dataclasses
import importlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, get_type_hints

import pydantic

from cnnjax.config_files import check_as
from cnnjax.errors import ConfigError
from cnnjax.registry import Registry

if TYPE_CHECKING:
    from cnnjax.models.variant import Variant
    from cnnjax.nn.network import Network

# Family -> its variants; the module of that name in this package holds them in VARIANTS.
FAMILIES: dict[str, tuple[str, ...]] = {
    "lenet": ("lenet5", "lenet5_modern"),
}

# Fields of a network that are no part of its configuration: Linen's own, and what training sets.
_SET_BY_LINEN = frozenset({"parent", "name"})
_SET_BY_TRAINING = frozenset({"dtype", "batch_averaging"})


def list_models(pattern: str = "*") -> list[str]:
    """The names of all variants that match a shell-style pattern, in the order of the table."""
    return [name for name in _families_by_variant().names() if fnmatchcase(name, pattern)]


def get_variant(name: str) -> "Variant":
    """The variant of that name; ConfigError with the nearest name where there is none."""
    family = _families_by_variant().get(name)
    return importlib.import_module(f"cnnjax.models.{family}").VARIANTS[name]


def check_args(name: str, args: Mapping[str, Any], path: str = "model.args") -> dict[str, Any]:
    """Checks arguments against the fields of a variant's network.

    Args:
        name: the variant.
        args: values for some of the network's fields, as YAML or JSON has them.
        path: what the errors call `args`.

    Returns:
        The arguments in the fields' own types: lists where a tuple is due become tuples.

    Raises:
        ConfigError: an unknown variant or field, a value of the wrong type, or values that do not go together.
    """
    variant = get_variant(name)
    types = get_type_hints(variant.network, include_extras=True)
    definitions: dict[str, Any] = {
        field.name: (types[field.name], None)  # None only says that it may be left out
        for field in dataclasses.fields(variant.network)
        if field.name not in _SET_BY_LINEN | _SET_BY_TRAINING
    }
    closed = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
    checked = check_as(pydantic.create_model(name, __config__=closed, **definitions), args, path)
    typed = {key: getattr(checked, key) for key in args}
    try:
        variant.network(**{**variant.args, **typed})
    except ConfigError as error:  # fields that contradict each other
        raise ConfigError(f"{path}: {error}") from None
    return typed


def create_model(name: str, **fields: Any) -> "Network":
    """Builds a network.

    Args:
        name: a variant that `list_models` names.
        fields: the network's own fields that differ from the variant's, checked by `check_args`; `dtype` and
            `batch_averaging` go to the network as they are.

    Raises:
        ConfigError: an unknown variant or field, a value of the wrong type, or values that do not go together.
    """
    variant = get_variant(name)
    given_by_training = {key: value for key, value in fields.items() if key in _SET_BY_TRAINING}
    others = {key: value for key, value in fields.items() if key not in _SET_BY_TRAINING}
    return variant.network(**{**variant.args, **check_args(name, others, name), **given_by_training})


def _families_by_variant() -> Registry[str]:
    families: Registry[str] = Registry("model")
    for family, variants in FAMILIES.items():
        for variant in variants:
            families.add(variant, family)
    return families
