"""What a network computes of a whole data set below its head: features for other classifiers."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.analysis.layer_outputs import Variables, head_inputs, layer_output, mean_over_positions, output_shapes
from cnnjax.config import Config
from cnnjax.config_data import DataConfig, ImagesSource
from cnnjax.data.crops import Crop
from cnnjax.data.examples import ChosenExamples, Datasets, Examples, Read
from cnnjax.data.files import DecodedExamples
from cnnjax.data.loader import Shard, eval_batches
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError, DataError, RunError
from cnnjax.registry import did_you_mean
from cnnjax.train.predict import compile_with, find_weights, require_preparation
from cnnjax.train.run_folder import DATA, read_config, read_facts
from cnnjax.train.task import DataFacts
from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing

ENDING = ".npz"
Extract = Callable[[np.ndarray], jax.Array]
"""(batch, height, width, channels) uint8, of the network's size, to the features."""


@dataclass(frozen=True, eq=False)
class Features:
    """Of each example that can be read, in the data's order, the training set unchanged by augmentation."""

    train_features: np.ndarray
    """(N, D) float32; (N, height, width, D) where positions are kept."""
    train_labels: np.ndarray
    """(N,) int32, indices into `class_names`."""
    test_features: np.ndarray
    """Of the held-out set."""
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    skipped: int = 0
    """Files that cannot be read, where the source leaves them out."""


def extract_features(
    source: str | Path | Weights,
    config: Config | None = None,
    *,
    layer: str | None = None,
    maps: bool = False,
    checkpoint: str | int = "last",
) -> Features:
    """What a network's head reads of each example: the input of its last dense layer.

    Args:
        source: a run folder, whose weights are taken (their moving average, where the run keeps one), a file that
            `cnnjax weights import` or `export` wrote, or what `load_weights` made of it.
        config: whose data (`data.source`) and `eval.batch_size` are taken; by default a run's own. Its images are
            prepared as the weights want it: its `image_size`, `fit`, `mean` and `std` count nothing.
        layer: a module whose output is taken instead, a map averaged over its positions.
        maps: keep the positions.
        checkpoint: of a run: "last", "best" or a step.

    Raises:
        ConfigError: there is no such layer, no config, or images or pixels that these weights cannot be applied to.
        RunError, WeightsError: the weights cannot be read, or the data is not what the run was trained on.
        DataError: the data cannot be read.
    """
    weights = find_weights(source, checkpoint)
    if weights.network.labels_pixels:
        raise ConfigError(f"{weights.model} gives each pixel a class, and no image features that a class goes with")
    preparation = require_preparation(weights)
    check_layer(weights, layer, maps)
    if config is not None:
        datasets, batch_size = _other_data(config.data, weights, preparation), config.eval.batch_size
    elif isinstance(source, Weights) or Path(source).suffix == ".safetensors":
        raise ConfigError("a file of weights has no data of its own; name a config whose data the network shall see")
    else:
        datasets, batch_size = _own_data(Path(source)), read_config(Path(source)).eval.batch_size
    if datasets.train.label_shape:
        raise ConfigError("data.source: it has a class for each pixel, expected one for each image")
    extract = make_extract(weights, preparation, layer=layer, maps=maps)
    train, test = (_collect(extract, part, batch_size) for part in (datasets.train, datasets.test))
    skipped = len(datasets.train) + len(datasets.test) - len(train[1]) - len(test[1])
    return Features(*train, *test, class_names=datasets.class_names, skipped=skipped)


def check_layer(weights: Weights, layer: str | None, maps: bool) -> None:
    """ConfigError unless the network has the layer, and maps where their positions are to be kept."""
    if layer is None:
        if maps:
            raise ConfigError("--maps: keeps the positions of a layer's maps; name the layer with --layer")
        return
    shapes = output_shapes(weights.network.clone(lowering="native"), weights.variables, weights.input_shape)
    if layer not in shapes:
        raise ConfigError(f"layer '{layer}': no such layer; {did_you_mean(layer, shapes)}")
    if maps and len(shapes[layer]) != 3:
        raise ConfigError(f"--maps: the output of '{layer}' has no positions to keep; leave --maps out")


def make_extract(
    weights: Weights, preparation: Preprocessing, *, layer: str | None = None, maps: bool = False
) -> Extract:
    """The compiled function from a batch of bytes to features; see `extract_features`."""
    network, options = weights.network.on(jax.default_backend())
    mean, std = (jnp.asarray(values, jnp.float32) for values in (preparation.mean, preparation.std))

    def extract(variables: Variables, images: jax.Array) -> jax.Array:
        pixels = images[..., ::-1] if preparation.order == "bgr" else images
        x = (pixels.astype(jnp.float32) / preparation.scale - mean) / std
        if layer is None:
            return head_inputs(network, variables, x)
        output = layer_output(network, variables, x, layer)
        return output.astype(jnp.float32) if maps else mean_over_positions(output)

    return compile_with(weights.variables, extract, options)


def save_features(features: Features, path: str | Path) -> None:
    """Writes a NumPy archive of train_features, train_labels, test_features, test_labels and class_names.

    Raises:
        ConfigError: its name does not end in .npz.
        RunError: it cannot be written.
    """
    path = Path(path)
    require_archive(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    arrays = {
        "train_features": features.train_features,
        "train_labels": features.train_labels,
        "test_features": features.test_features,
        "test_labels": features.test_labels,
        "class_names": np.array(features.class_names, np.str_),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # its stubs take the arrays for another option
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"'{path}' cannot be written: {error.strerror or error}; choose another --out") from None


def require_archive(path: Path) -> None:
    """ConfigError unless the name ends in .npz."""
    if path.suffix != ENDING:
        raise ConfigError(f"'{path}': expected a name that ends in {ENDING}")


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Arrays in memory as bytes of the size that weights of another origin take."""

    examples: Examples
    preparation: Preprocessing
    channels: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width = self.preparation.size
        return height, width, self.channels

    @property
    def label_shape(self) -> tuple[int, ...]:
        return self.examples.label_shape

    @property
    def image_labels(self) -> np.ndarray | None:
        return self.examples.image_labels

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, indices: np.ndarray, crops: Sequence[Crop] | None = None) -> Read:
        read = self.examples.read(indices, crops)
        # Grey becomes colours as it does when a file is read.
        pixels = np.broadcast_to(read.images, (*read.images.shape[:-1], self.channels))
        images = np.zeros((len(indices), *self.image_shape), np.uint8)
        for place, image in enumerate(pixels):
            images[place] = self.preparation.fit_size(image)
        return Read(images, read.labels, read.mask)


def _prepared(examples: Examples, preparation: Preprocessing, channels: int) -> Examples:
    """The same as the weights take them, of images that were not brought to any other size before."""
    if isinstance(examples, ChosenExamples):
        return replace(examples, examples=_prepared(examples.examples, preparation, channels))
    if isinstance(examples, DecodedExamples):
        decoding = replace(examples.decoding, size=preparation.size, prepare=preparation.fit_size)
        return replace(examples, decoding=decoding)
    return _Prepared(examples, preparation, channels)


def _own_data(run_dir: Path) -> Datasets:
    datasets = load(read_config(run_dir).data)
    if DataFacts.of(datasets) != read_facts(run_dir):
        raise RunError(
            f"the data is not what {run_dir} was trained on (see its {DATA}); restore it, or name a config whose data "
            "the network shall see"
        )
    return datasets


def _other_data(config: DataConfig, weights: Weights, preparation: Preprocessing) -> Datasets:
    """Each image at its own size, then as the weights take it."""
    channels, source = weights.input_shape[-1], config.source
    changed: dict[str, Any] = {"mean": 0.0, "std": 1.0, "image_size": None}
    if isinstance(source, ImagesSource):
        if channels not in (1, 3):
            raise ConfigError(f"{weights.model} takes images of {channels} channels; files are read with 1 or 3")
        read = source.model_copy(update={"channels": channels, "in_memory": False})
        changed |= {"source": read, "image_size": preparation.size[0]}
    datasets = load(config.model_copy(update=changed))
    own = datasets.train.image_shape[-1]
    if own not in (1, channels):
        raise ConfigError(f"data.source: its images have {own} channels, and {weights.model} takes {channels}")
    train, test = (_prepared(part, preparation, channels) for part in (datasets.train, datasets.test))
    return Datasets(train, test, datasets.class_names)


def _collect(extract: Extract, examples: Examples, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The features and labels of all examples that can be read, in order."""
    # A small set is padded to itself, not to a large batch.
    batches = eval_batches(examples, batch_size=min(batch_size, len(examples)), shard=Shard())
    features, labels = [], []
    for batch in batches:
        good = batch["mask"] > 0
        features.append(np.asarray(extract(batch["image"]))[good])
        labels.append(batch["label"][good])
    if not sum(map(len, labels)):
        raise DataError("data.source: none of its files can be read")
    return np.concatenate(features), np.concatenate(labels)
