"""TensorBoard events, read back with nothing but the file format's own reader."""

import sys

import pytest

from cnnjax.errors import ConfigError
from cnnjax.train.tensorboard import TensorBoard


def test_each_number_becomes_a_point(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    board = TensorBoard(tmp_path, 0)
    board.add({"kind": "train", "step": 5, "epoch": 0.5, "loss": 1.25, "accuracy": 0.5, "images_per_second": None})
    board.add({"kind": "eval", "weights": "ema", "step": 5, "epoch": 0.5, "loss": 2.5, "examples": 10})
    board.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, points, position = path.read_bytes(), {}, 0
    while position < len(content):  # length, its checksum, the event, its checksum
        length = int.from_bytes(content[position : position + 8], "little")
        event = Event.FromString(content[position + 12 : position + 12 + length])
        points |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
        position += 12 + length + 4
    assert points == {"train/loss": (5, 1.25), "train/accuracy": (5, 0.5), "eval-ema/loss": (5, 2.5)}


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"log.tensorboard: needs the extra `tensorboard`: pip install"):
        TensorBoard(tmp_path, 0)
