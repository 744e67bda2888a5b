"""The picture of changed training images shows what training sees; the table counts what there is."""

import jax
import numpy as np
import pytest
from PIL import Image

from cnnjax.augment.batches import make_batch_change
from cnnjax.config import Config
from cnnjax.data.loader import Shard, TrainBatches
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError, RunError
from cnnjax.train.opening import prepare
from cnnjax.train.preview import describe_data, draw_preview, preview_columns
from cnnjax.train.step import augmentation_key

CHANGES = [{"kind": "flip"}, {"kind": "rotation"}, {"kind": "mixup", "alpha": 1.0}]


def make(**data) -> Config:
    source = {
        "kind": "synthetic",
        "image_size": 16,
        "channels": 3,
        "classes": 3,
        "train_examples": 24,
        "test_examples": 6,
    }
    usual = {"source": source, "image_size": 32, "batch_size": 8, "augment": CHANGES}
    return Config.model_validate({"seed": 5, "data": usual | data, "parallel": {"devices": 1}})


def test_columns_are_what_the_steps_see():
    config = make()
    task, data, _ = prepare(config)
    columns = preview_columns(config, data, 8, 2)
    assert [title for title, _ in columns] == ["as it is", "epoch 1", "epoch 2"]
    batch = TrainBatches(data.train, batch_size=8, seed=5, shard=Shard())[0]
    np.testing.assert_array_equal(columns[0][1]["image"], batch["image"])
    key = augmentation_key(jax.random.wrap_key_data(task.init_state().key))
    seen = jax.jit(make_batch_change(config.data.augment))(batch, key)
    for name, leaf in seen.items():
        np.testing.assert_allclose(columns[1][1][name], leaf, atol=1e-6)
    assert not np.allclose(columns[2][1]["image"], seen["image"], atol=0.01)


@pytest.mark.parametrize("augment", [CHANGES, []])
def test_picture_has_a_column_an_epoch(tmp_path, augment):
    config = make(augment=augment)
    draw_preview(config, load(config.data), tmp_path / "new" / "all.png", count=4, epochs=3)
    width, height = Image.open(tmp_path / "new" / "all.png").size
    assert (width > height) == bool(augment)


def test_masks_are_drawn_too(tmp_path):
    source = {"kind": "digits_on_photographs", "train_examples": 4, "test_examples": 2}
    config = make(source=source, image_size=None, batch_size=4, augment=CHANGES[:2])
    draw_preview(config, load(config.data), tmp_path / "masks.png", count=2, epochs=2)
    assert (tmp_path / "masks.png").stat().st_size > 10_000
    assert describe_data(load(config.data))["classes"] == {"train": None, "test": None}


def test_counts_are_those_of_the_classes():
    described = describe_data(load(make().data))
    assert described["classes"] == {"train": [8, 8, 8], "test": [2, 2, 2]}
    assert (described["examples"], described["image_shape"]) == ({"train": 24, "test": 6}, [32, 32, 3])


def test_faults_are_told(tmp_path):
    config = make()
    data = load(config.data)
    with pytest.raises(ConfigError, match=r"--count 9: a batch of this config has 8 examples"):
        draw_preview(config, data, tmp_path / "x.png", count=9)
    with pytest.raises(ConfigError, match=r"--count 3: mixup and cutmix blend two and two, choose an even number"):
        draw_preview(make(augment=CHANGES), data, tmp_path / "x.png", count=3)
    with pytest.raises(ConfigError, match=r"expected a name that ends in .png, .pdf, .svg"):
        draw_preview(config, data, tmp_path / "x.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        draw_preview(config, data, tmp_path / "file" / "x.png", count=2, epochs=1)
