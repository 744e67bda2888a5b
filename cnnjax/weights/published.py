"""How pictures were prepared for other libraries' published weights, and what their classes are called."""

import difflib
import functools
from dataclasses import dataclass
from importlib import resources

from cnnjax.errors import WeightsError
from cnnjax.models import list_peers
from cnnjax.weights.preprocessing import Preprocessing

IMAGENET_CLASSES = 1000
# Mean and std of a 0..1 image; "caffe" is blue, green, red bytes minus their means.
_NORMALISATIONS: dict[str, dict[str, object]] = {
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "inception": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "bytes": {"mean": (0.48235, 0.45882, 0.40784), "std": (1 / 255, 1 / 255, 1 / 255)},
    "caffe": {"scale": 1.0, "order": "bgr", "mean": (103.939, 116.779, 123.68)},
    "127.5": {"scale": 127.5, "mean": 1.0},
    "127/128": {"scale": 1.0, "mean": 127.0, "std": 128.0},
}


@dataclass(frozen=True)
class Published:
    """One way in which a network's published weights want their images."""

    preprocessing: Preprocessing
    tags: tuple[str, ...]
    """The library's names of the weights that share it."""


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 classes of ILSVRC 2012 by number: the first WordNet lemma of each, as timm lists them."""
    return tuple(_read("imagenet_classes.txt"))


def published(peer: str) -> tuple[Published, ...]:
    """Those of a network such as `timm/resnet50`, its library's default first; empty where it has none."""
    return _table().get(peer, ())


def published_preprocessing(name: str) -> Preprocessing:
    """That of `LIBRARY/NETWORK`, by default, or of `LIBRARY/NETWORK.TAG`; WeightsError as of `find_published`."""
    return find_published(name)[2]


def find_published(name: str) -> tuple[str, str, Preprocessing]:
    """Network, tag and preparation of images of `LIBRARY/NETWORK.TAG`, or of `LIBRARY/NETWORK`: its library's default.

    Raises:
        WeightsError: there are no such published weights.
    """
    for peer, rows in _table().items():
        if name == peer:
            return peer, rows[0].tags[0], rows[0].preprocessing
        for row in rows:
            for tag in row.tags:
                if name == f"{peer}.{tag}":
                    return peer, tag, row.preprocessing
    if name in list_peers():
        raise WeightsError(
            f"of {name} the network is known, but no published weights; import a file of them, or choose others"
        )
    names = [f"{peer}.{tag}" for peer, rows in _table().items() for row in rows for tag in row.tags]
    near = difflib.get_close_matches(name, [*_table(), *names], n=1)
    hint = f"did you mean '{near[0]}'?" if near else "name some such as timm/resnet50 or timm/resnet50.a1_in1k"
    raise WeightsError(f"unknown published weights '{name}'; {hint}")


@functools.cache
def _table() -> dict[str, tuple[Published, ...]]:
    table: dict[str, tuple[Published, ...]] = {}
    for line in _read("published.txt"):
        peer, size, shorter_side, interpolation, normalisation, *tags = line.split()
        fit = {"fit": "stretch"} if shorter_side == "-" else {"shorter_side": int(shorter_side)}
        prepared = Preprocessing.model_validate(
            {
                "size": (int(size), int(size)),
                "interpolation": interpolation,
                **fit,
                **({"rounding": "nearest"} if normalisation == "127/128" else {}),
                **_NORMALISATIONS[normalisation],
            }
        )
        table[peer] = (*table.get(peer, ()), Published(prepared, tuple(tags)))
    return table


def _read(name: str) -> list[str]:
    text = resources.files("cnnjax.weights").joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
