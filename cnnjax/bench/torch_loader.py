"""PyTorch's loader with torchvision's transforms, in a process of its own; needs torch and torchvision.

`python -m cnnjax.bench.torch_loader FOLDER SIZE BATCH WORKERS` says so when it is ready; then each line of input is a
number of batches to read, and it prints the images per second.
"""

import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def endless(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def main() -> None:
    """Serves one loader on standard input and output."""
    folder, size, batch, workers = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)  # what is left for each worker of two cores
    prepare = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader: DataLoader[Any] = DataLoader(
        datasets.ImageFolder(folder, prepare),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    batches = endless(loader)
    next(batches)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(2 * workers):  # made while others had their turn
            next(batches)
        start, count = perf_counter(), int(line)
        for _ in range(count):
            next(batches)
        print(count * batch / (perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
