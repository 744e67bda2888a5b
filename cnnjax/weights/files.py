"""Arrays by name, to and from files: the only place for safetensors and PyTorch."""

import errno
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import safetensors
import safetensors.numpy

from cnnjax.errors import WeightsError
from cnnjax.weights.keras_files import read_keras, write_keras

KINDS = (".safetensors", ".pth", ".pt", ".weights.h5", ".h5")


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str] = field(default_factory=dict)
    """Of safetensors."""


def kind_of(path: Path) -> str:
    """The ending that says how a file is read and written; WeightsError where it is none of `KINDS`."""
    for kind in KINDS:
        if path.name.endswith(kind):
            return kind
    raise WeightsError(f"{path}: expected a file that ends in one of {', '.join(KINDS)}")


def read_arrays(path: Path, layers: Mapping[str, Sequence[str]] | None = None) -> WeightsFile:
    """The arrays of a file by name; bfloat16 becomes float32.

    `.pth` and `.pt` hold a state_dict, alone or as `state_dict` or `model` of a training checkpoint; reading them runs
    no code. `.weights.h5` and `.h5` are Keras': see `read_keras`, also for `layers`.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or needs a package that is not installed.
    """
    kind = kind_of(path)
    if not path.is_file():
        raise WeightsError(f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}")
    if not path.stat().st_size:
        raise WeightsError(f"{path} is empty")
    try:
        if kind == ".safetensors":
            found = _read_safetensors(path)
        elif kind in (".pth", ".pt"):
            found = WeightsFile(_read_torch(path))
        else:
            found = WeightsFile(read_keras(path, layers))
    except OSError as error:
        if error.errno:
            raise WeightsError(f"{path} cannot be read: {os.strerror(error.errno)}") from None
        raise _damaged(path, kind, error) from None  # h5py's word for it
    except KeyError as error:
        raise _damaged(path, kind, error) from None
    if not found.arrays:
        raise WeightsError(f"{path} holds no arrays")
    # V: bfloat16, which NumPy does not know.
    arrays = {
        name: array.astype(np.float32) if array.dtype.kind == "V" else array for name, array in found.arrays.items()
    }
    return WeightsFile(arrays, found.metadata)


def write_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    layers: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes a file, which appears whole or not at all.

    Args:
        metadata: for `.safetensors`.
        layers: for `.weights.h5`, which is written with them alone: see `write_keras`.

    Raises:
        WeightsError: arrays by these names have no file of that kind, or it cannot be written.
    """
    kind = kind_of(path)
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    if kind == ".weights.h5" and layers is not None:
        with _replacing(path) as temporary:
            write_keras(temporary, layers, whole)
    elif kind == ".safetensors":
        with _replacing(path) as temporary:
            safetensors.numpy.save_file(whole, temporary, dict(metadata or {}))
    elif kind in (".pth", ".pt") and layers is None:
        torch = _torch(path)
        # Copied, for PyTorch takes no array that must not be written to.
        tensors = {name: torch.from_numpy(array.copy()) for name, array in whole.items()}
        with _replacing(path) as temporary:
            torch.save(tensors, temporary)
    else:
        kinds = ".safetensors or .weights.h5" if layers is not None else ".safetensors, .pth or .pt"
        raise WeightsError(f"{path}: these weights are written as {kinds}")


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys()
            return WeightsFile({name: file.get_tensor(name) for name in names}, file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise _damaged(path, ".safetensors", error) from None


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise WeightsError(
                f"{path} holds more than weights: '{code[1]}' would have to run; save its state_dict alone"
            ) from None
        raise WeightsError(f"{path} is damaged, or no PyTorch file of weights alone") from None
    except RuntimeError as error:
        raise _damaged(path, "PyTorch", error) from None
    except (EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError):  # what a damaged pickle runs into
        raise WeightsError(f"{path} is damaged, or no PyTorch file of weights alone") from None
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: expected a state_dict, got an object of type {type(found).__name__}")
    strangers = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise WeightsError(f"{path}: expected a state_dict of tensors, but its '{strangers[0]}' is none")
    parallel = all(name.startswith("module.") for name in found)  # saved from DataParallel
    return {
        (name.removeprefix("module.") if parallel else name): (
            tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        ).numpy()
        for name, tensor in found.items()
    }


def _torch(path: Path) -> ModuleType:
    try:
        import torch
    except ModuleNotFoundError:
        raise WeightsError(
            f"{path} needs PyTorch, which is not installed: pip install 'cnnjax[torch]' (or use .safetensors)"
        ) from None
    return torch


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end."""
    if not path.parent.is_dir():
        raise WeightsError(f"{path} cannot be written: there is no folder {path.parent}")
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors lets nobody else read its files
        temporary.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # each library's word for a full disk
        number = getattr(error, "errno", None)
        full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        reason = os.strerror(errno.ENOSPC) if full else os.strerror(number) if number else _first_line(error)
        raise WeightsError(f"{path} cannot be written: {reason}{'; make room' if full else ''}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _damaged(path: Path, kind: str, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is damaged, or no {kind.removeprefix('.')} file: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:200]
