"""The pictures of what a run gets wrong."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnjax.train.pictures import as_written, new_figure, show_image


def draw_confusion(confusion: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Writes a PNG: a row for each true class, shaded by the share of it that was taken for each column's."""
    names = [as_written(name) for name in names]
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = 2.2 + 0.42 * len(names)
    figure, panels = new_figure(side + 0.6, side)
    axes = panels[0, 0]
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="found", ylabel="true class")
    if len(names) <= 15:
        for row, column in np.ndindex(confusion.shape):
            if confusion[row, column]:
                colour = "black" if shares[row, column] > 0.5 else "white"
                count = _short(int(confusion[row, column]))
                axes.text(column, row, count, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    figure.savefig(path)


def draw_worst(images: np.ndarray, captions: Sequence[str], path: Path) -> None:
    """Writes a PNG of images with a caption each."""
    columns = 6
    lines = math.ceil(len(images) / columns)
    figure, panels = new_figure(1.6 * columns, 2.1 * lines, lines, columns)
    for index, axes in enumerate(panels.flat):
        axes.set_axis_off()
        if index < len(images):
            show_image(axes, images[index])
            axes.set_title(as_written(captions[index]), fontsize=7)
    figure.savefig(path)


def draw_worst_masks(
    images: np.ndarray, labels: np.ndarray, found: np.ndarray, losses: np.ndarray, names: Sequence[str], path: Path
) -> None:
    """Writes a PNG with a line for each image: itself, its labels, and what was found."""
    figure, panels = new_figure(5.4, 1.8 * len(images) + 0.3, len(images), 3)
    for line, row in enumerate(panels):
        show_image(row[0], images[line])
        for axes, mask in ((row[1], labels[line]), (row[2], found[line])):
            axes.imshow(mask, cmap="tab20", vmin=0, vmax=max(20, len(names)), interpolation="nearest")
        for axes in row:
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"loss {losses[line]:.2f}", fontsize=8)
    for axes, title in zip(panels[0], ("image", "labels", "found"), strict=True):
        axes.set_title(title, fontsize=9)
    figure.savefig(path)


def _short(count: int) -> str:
    return f"{count / 1e6:.3g}M" if count >= 1e6 else f"{count / 1e3:.3g}k" if count >= 1e4 else str(count)
