"""How pictures are begun, shown an image in, and written."""

from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.errors import ConfigError
from cnnjax.train.run_folder import not_written

_ENDINGS = (".png", ".pdf", ".svg")


def new_figure(width: float, height: float, lines: int = 1, columns: int = 1, dpi: int = 120) -> tuple[Any, Any]:
    """A matplotlib figure of so many inches, without a window, and its panels (lines, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(lines, columns, squeeze=False)


def show_image(axes: Any, image: np.ndarray) -> None:
    """An image (height, width, channels), bytes or floats from 0 to 1, grey or in colours, without ticks."""
    white = 255 if image.dtype == np.uint8 else 1
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=white)
    axes.set(xticks=[], yticks=[])


def as_written(text: str) -> str:
    """A name as matplotlib shall show it: dollar signs are no formula."""
    return text.replace("$", r"\$")


def require_picture(path: Path) -> None:
    """ConfigError unless the name is that of a picture."""
    if path.suffix not in _ENDINGS:
        raise ConfigError(f"'{path}': expected a name that ends in {', '.join(_ENDINGS)}")


def save_picture(figure: Any, path: Path) -> None:
    """Writes a picture; RunError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise not_written(path, error, "--out") from None
