"""Networks of torchvision and timm, and plain PyTorch ones where neither has the network; needs the extra `parity`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

LEARNING_RATE, MOMENTUM = 1e-3, 0.9
# Of our training's config, which is Inception's and GoogLeNet's.
_AUXILIARY_WEIGHT = 0.3


class _Level(nn.Sequential):
    def __init__(self, channels: int, features: int) -> None:
        convolutions = [nn.Conv2d(channels, features, 3, padding=1), nn.Conv2d(features, features, 3, padding=1)]
        super().__init__(convolutions[0], nn.ReLU(inplace=True), convolutions[1], nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Our `unet_same`: five levels of two 3x3 convolutions, two pixels' logits."""

    def __init__(self, channels: int = 1, classes: int = 2) -> None:
        super().__init__()
        widths = [64, 128, 256, 512, 1024]
        self.down = nn.ModuleList(_Level(*pair) for pair in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[-2::-1])
        self.decode = nn.ModuleList(_Level(2 * width, width) for width in widths[-2::-1])
        self.pool, self.dropout, self.head = nn.MaxPool2d(2), nn.Dropout(0.5), nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to (batch, classes, height, width)."""
        encoded: list[torch.Tensor] = []
        for number, level in enumerate(self.down):
            x = level(self.pool(x) if encoded else x)
            x = self.dropout(x) if number >= len(self.down) - 2 else x
            encoded.append(x)
        for up, decode, skip in zip(self.up, self.decode, encoded[-2::-1], strict=True):
            x = decode(torch.cat([skip, up(x)], 1))
        logits: torch.Tensor = self.head(x)
        return logits


def lenet5() -> nn.Module:
    """Our `lenet5_modern`."""
    convolutions = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    connected = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*convolutions, nn.Flatten(), *connected)


PLAIN: dict[str, Callable[[], nn.Module]] = {"unet_same": UNet, "lenet5_modern": lenet5}


def build(library: str, model: str, *, train: bool) -> nn.Module:
    """A network by its name in its library."""
    if library == "torchvision":
        import torchvision

        options: dict[str, bool] = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
        if model == "googlenet":
            options["aux_logits"] = train
        elif model == "inception_v3":
            options["aux_logits"] = False
        built: nn.Module = torchvision.models.get_model(model, weights=None, **options)
        return built
    if library == "timm":
        import timm

        made: nn.Module = timm.create_model(model, pretrained=False)
        return made
    return PLAIN[model]()


def step_of(
    library: str, model: str, layout: str, images: np.ndarray, labels: np.ndarray, *, train: bool
) -> Callable[[int], None]:
    """A function that takes so many steps.

    Args:
        layout: `nhwc` for channels last, else channels first.
        images: (batch, height, width, channels).
        labels: (batch,) or (batch, height, width).
    """
    memory_format = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    module = build(library, model, train=train).to(memory_format=memory_format)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).contiguous(memory_format=memory_format)
    if not train:
        module.eval()

        def infer(times: int) -> None:
            with torch.inference_mode():
                for _ in range(times):
                    module(x)

        return infer
    y, update = torch.from_numpy(labels.astype(np.int64)), training_of(module)

    def learn(times: int) -> None:
        for _ in range(times):
            update(x, y)

    return learn


def training_of(module: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """SGD with momentum on one batch of images and labels."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), LEARNING_RATE, MOMENTUM)
    loss_of = nn.functional.cross_entropy

    def update(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        logits, *auxiliary = outputs if isinstance(outputs := module(x), tuple) else (outputs,)
        loss = loss_of(logits, y)
        for each in auxiliary:
            loss = loss + _AUXILIARY_WEIGHT * loss_of(each, y)
        loss.backward()
        optimizer.step()

    return update


def loop_rate(model: str, layout: str, images: np.ndarray, labels: np.ndarray, batch: int, steps: int) -> float:
    """Images per second of a plain training loop over a data set in memory, shuffled and normalised.

    Args:
        images: (examples, height, width, channels), of the network's size, uint8.
    """
    import time

    memory_format = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    update = training_of(PLAIN[model]().to(memory_format=memory_format))
    data = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    targets = torch.from_numpy(labels.astype(np.int64))
    start, order = time.perf_counter(), torch.randperm(len(data))
    for number in range(steps):
        place = number * batch % (len(data) - batch + 1)
        if place < batch:
            order = torch.randperm(len(data))
        chosen = order[place : place + batch]
        x = data[chosen].float().div_(255).sub_(0.5).div_(0.5).contiguous(memory_format=memory_format)
        update(x, targets[chosen])
    return steps * batch / (time.perf_counter() - start)
