"""The history as TensorBoard events, for those who ask for it."""

from pathlib import Path
from typing import Any

from cnnjax.errors import ConfigError
from cnnjax.train.run_folder import Record

_NOT_CURVES = ("kind", "weights", "step", "epoch", "examples", "class_iou")


class TensorBoard:
    """Writes each record's numbers under train/, eval/ and eval-ema/, into `tensorboard/` in the run folder."""

    def __init__(self, run_dir: Path, step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(
                "log.tensorboard: needs the extra `tensorboard`: pip install 'cnnjax[tensorboard]'; or set it to false"
            ) from None
        # What a killed process wrote of later steps is made again.
        self._writer: Any = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1 if step else None)

    def add(self, record: Record) -> None:
        """One point for each number of a record."""
        group = "eval-ema" if record.get("weights") == "ema" else record["kind"]
        for name, value in record.items():
            if name not in _NOT_CURVES and value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, record["step"])

    def close(self) -> None:
        """Flushes."""
        self._writer.close()
