"""What a config's training images look like, as they are and as they are changed; and how many of each class."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax.augment.batches import make_batch_change
from cnnjax.config import Config
from cnnjax.config_augment import CutMix, Mixup
from cnnjax.data.crops import draw_crops
from cnnjax.data.examples import Datasets, Examples
from cnnjax.data.loader import Batch, Shard, TrainBatches
from cnnjax.errors import ConfigError
from cnnjax.train.pictures import as_written, new_figure, require_picture, save_picture, show_image
from cnnjax.train.reporting import Record
from cnnjax.train.state import keys_of
from cnnjax.train.step import augmentation_key


def describe_data(data: Datasets) -> Record:
    """The sizes of a data set's images and, where each image has a class, how many of each there are."""
    sets = {"train": data.train, "test": data.test}
    return {
        "image_shape": list(data.train.image_shape),
        "class_names": list(data.class_names),
        "examples": {name: len(examples) for name, examples in sets.items()},
        "classes": {name: _class_counts(examples, len(data.class_names)) for name, examples in sets.items()},
    }


def draw_preview(config: Config, data: Datasets, path: Path, *, count: int = 6, epochs: int = 5) -> None:
    """Writes a picture: a line for each of the first examples of training, as it is and as the first epochs have it.

    Args:
        path: of a .png, .pdf or .svg.
        count: how many examples, an even number where neighbours are blended.

    Raises:
        ConfigError: there are fewer examples, or one would have no neighbour to be blended with.
        DataError: an image cannot be read.
        RunError: the picture cannot be written.
    """
    most = min(len(data.train), config.data.batch_size)
    if count > most:
        raise ConfigError(f"--count {count}: a batch of this config has {most} examples, choose as many or fewer")
    if count % 2 and any(isinstance(entry, Mixup | CutMix) for entry in config.data.changes):
        raise ConfigError(f"--count {count}: mixup and cutmix blend two and two, choose an even number")
    require_picture(path)
    columns = preview_columns(config, data, count, epochs if config.data.augment else 0)
    figure, panels = new_figure(1.6 * len(columns) + 0.8, 1.6 * count + 0.5, count, len(columns))
    for column, (title, batch) in enumerate(columns):
        panels[0, column].set_title(title, fontsize=9)
        for line in range(count):
            axes = panels[line, column]
            _show(axes, batch, line, data.class_names)
            if column == 0 and batch["label"].ndim == 1:
                axes.set_ylabel(as_written(data.class_names[batch["label"][line]]), fontsize=9)
    save_picture(figure, path)


def preview_columns(config: Config, data: Datasets, count: int, epochs: int) -> list[tuple[str, Batch]]:
    """The first `count` examples of training as they are, and as they are in each of the first epochs."""
    batches = TrainBatches(data.train, batch_size=config.data.batch_size, seed=config.seed, shard=Shard())
    batch = {name: leaf[:count] for name, leaf in batches[0].items()}
    change = jax.jit(make_batch_change(config.data.changes))
    key = augmentation_key(keys_of(config.seed)[1])
    columns = [("as it is", batch)]
    for epoch in range(epochs):
        crops = draw_crops(config.data.crop, seed=config.seed, epoch=epoch, indices=batch["index"])
        read = data.train.read(batch["index"], crops)
        again = {**batch, "image": read.images, "label": read.labels, "epoch": np.full(count, epoch, np.int32)}
        changed = change(again, key)
        columns.append((f"epoch {epoch + 1}", jax.tree.map(np.asarray, changed)))
    return columns


def _show(axes: Any, batch: Batch, line: int, names: tuple[str, ...]) -> None:
    show_image(axes, batch["image"][line])
    if batch["label"].ndim == 3:
        labels = np.ma.masked_equal(batch["label"][line], 0)
        axes.imshow(labels, cmap="tab10", vmin=0, vmax=max(10, len(names)), alpha=0.5, interpolation="nearest")
    elif "share" in batch and (share := batch["share"][line]) < 0.995:
        own, other = (names[batch[name][line]] for name in ("label", "other_label"))
        axes.set_xlabel(as_written(f"{share:.0%} {own}, {1 - share:.0%} {other}"), fontsize=7)


def _class_counts(examples: Examples, classes: int) -> list[int] | None:
    labels = examples.image_labels
    return None if labels is None else np.bincount(labels, minlength=classes).tolist()
