"""A segmentation network whose answer is known: white pixels are ink, black ones ground."""

import numpy as np

from cnnjax.weights.bundle import Weights
from cnnjax.weights.preprocessing import Preprocessing


def threshold_weights(fit: str | None = "stretch", padding: str = "same", num_classes: int = 3) -> Weights:
    """A U-Net of one level for 16x16 grey images, whose convolutions hand each pixel on as it is."""
    conv1, conv2, head = np.zeros((3, 3, 1, 8)), np.zeros((3, 3, 8, 8)), np.zeros((8, num_classes))
    conv1[1, 1, 0, 0] = conv2[1, 1, 0, 0] = 1
    head[0, 1] = 1
    bias = np.full(num_classes, -9.0)
    bias[:2] = 0, -0.5
    convs = {
        f"conv{number}": {"conv": {"kernel": kernel.astype(np.float32), "bias": np.zeros(8, np.float32)}}
        for number, kernel in ((1, conv1), (2, conv2))
    }
    params = {"stage1": convs, "head": {"kernel": head.astype(np.float32), "bias": bias.astype(np.float32)}}
    return Weights(
        model="unet",
        fields={"num_classes": num_classes, "levels": 1, "width": 0.125, "dropout": 0.0, "padding": padding},
        input_shape=(16, 16, 1),
        variables={"params": params, "batch_stats": {}},
        preprocessing=None if fit is None else Preprocessing(size=(16, 16), fit=fit),
        labels=("ground", "ink"),
        origin="made by hand",
    )
