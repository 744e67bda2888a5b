"""The registry of networks. Imports JAX only once a network is asked for."""

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, get_type_hints

import pydantic

from cnnjax.config_files import check_as
from cnnjax.errors import ConfigError
from cnnjax.registry import Registry

if TYPE_CHECKING:
    from cnnjax.models.variant import PeerRow, Variant
    from cnnjax.nn.network import Network

# Family -> its variants; the module of that name in this package holds them in VARIANTS, and other libraries' in PEERS.
FAMILIES: dict[str, tuple[str, ...]] = {
    "lenet": ("lenet5", "lenet5_modern"),
    "alexnet": ("alexnet", "alexnet_single_tower", "alexnet_owt"),
    "nin": ("nin_cifar10", "nin_cifar100"),
    "vgg": (
        *("vgg11", "vgg13", "vgg16", "vgg19", "vgg_a_lrn", "vgg_c"),
        *("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    ),
    "simple_cnn": ("simple_cnn",),
    "resnet": (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("resnet50_v1", "resnet101_v1", "resnet152_v1", "resnet18_a", "resnet34_a", "plain18", "plain34"),
        *("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110"),
        *("cifar_resnet20_b", "cifar_resnet32_b", "cifar_resnet44_b", "cifar_resnet56_b", "cifar_resnet110_b"),
        *("cifar_plain20", "cifar_plain32", "cifar_plain44", "cifar_plain56", "cifar_plain110"),
    ),
    "densenet": ("densenet121", "densenet161", "densenet169", "densenet201", "densenet264"),
    "xception": ("xception",),
    "mobilenet": ("mobilenet_v1", "mobilenet_v1_075", "mobilenet_v1_050", "mobilenet_v1_025"),
    "resnext": ("resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    "se_resnet": (
        *("se_resnet18", "se_resnet34", "se_resnet50", "se_resnet101", "se_resnet152"),
        *("se_resnext50_32x4d", "se_resnext101_32x4d", "se_resnext101_64x4d", "senet154"),
    ),
    "efficientnet": (
        *(f"efficientnet_b{phi}" for phi in range(8)),
        *(f"efficientnet_lite{phi}" for phi in range(5)),
    ),
    "unet": ("unet", "unet_same"),
    "googlenet": ("googlenet", "googlenet_bn"),
    "inception_v2": ("inception_v2", "inception_v2_slim", "se_inception"),
    "inception_v3": ("inception_v3",),
    "inception_v4": ("inception_v4",),
    "inception_resnet": ("inception_resnet_v2", "inception_resnet_v1", "inception_resnet_v2_paper"),
}

# Another name of the same network -> the name that `list_models` has.
ALIASES: dict[str, str] = {
    "vgg_a": "vgg11",
    "vgg_b": "vgg13",
    "vgg_d": "vgg16",
    "vgg_e": "vgg19",
    "inception_v1": "googlenet",
    "bn_inception": "inception_v2",
    "se_bn_inception": "se_inception",
}

# Fields of a network that are no part of its configuration: Linen's own, and what training sets.
_SET_BY_LINEN = frozenset({"parent", "name"})
_SET_BY_TRAINING = frozenset({"dtype", "batch_averaging", "lowering"})


def list_models(pattern: str = "*") -> list[str]:
    """The names of all variants that match a shell-style pattern, in the order of the table."""
    return [name for name in _families_by_variant().names() if fnmatchcase(name, pattern)]


def list_peers(pattern: str = "*") -> list[str]:
    """The names of other libraries' networks, such as `timm/resnet50`, that match a shell-style pattern."""
    return [name for name in _peers().names() if fnmatchcase(name, pattern)]


def find_models(pattern: str) -> list[str]:
    """The names of all variants that match a shell-style pattern by their own name or by an alias."""
    known_as = {name: {name} for name in list_models()}
    for alias, name in ALIASES.items():
        known_as[name].add(alias)
    return [name for name, names in known_as.items() if any(fnmatchcase(each, pattern) for each in names)]


def get_peer(name: str) -> tuple[str, Mapping[str, Any]]:
    """For another library's network the variant of ours that it is, and the fields that make it so."""
    ours, fields, *_ = _peers().get(name)
    return ours, fields


def get_variant(name: str) -> "Variant":
    """The variant of that name, ours or `LIBRARY/NAME`; ConfigError with the nearest name where there is none."""
    if "/" in name:
        ours, fields, *input_shape = _peers().get(name)
        variant = get_variant(ours)
        shape = input_shape[0] if input_shape else variant.input_shape
        return dataclasses.replace(variant, args={**variant.args, **fields}, input_shape=shape)
    name = ALIASES.get(name, name)
    return _family(_families_by_variant().get(name)).VARIANTS[name]


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
    except OverflowError:
        raise ConfigError(f"{path}: numbers so large give no network") from None
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


def family_of(name: str) -> str:
    """The family, and so the module in this package, of a variant or of another library's network."""
    if "/" in name:
        name = _peers().get(name)[0]
    return _families_by_variant().get(ALIASES.get(name, name))


def _family(name: str) -> Any:
    return importlib.import_module(f"cnnjax.models.{name}")


@functools.cache
def _peers() -> "Registry[PeerRow]":
    peers: Registry[PeerRow] = Registry("model")
    for family in FAMILIES:
        for name, row in getattr(_family(family), "PEERS", {}).items():
            peers.add(name, row)
    return peers


def _families_by_variant() -> Registry[str]:
    families: Registry[str] = Registry("model")
    for family, variants in FAMILIES.items():
        for variant in variants:
            families.add(variant, family)
    return families
