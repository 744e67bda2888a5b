"""What a run's weights carry along: pictures are prepared as the run's held-out images were."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cnnjax.config import Config
from cnnjax.data.image_files import read_image
from cnnjax.train.loop import fit
from cnnjax.train.run_weights import run_weights

FITS = [{"fit": "resize"}, {"fit": "pad"}, {"fit": "crop"}, {"fit": "crop", "shorter_side": 40}]


@pytest.mark.parametrize("fitting", FITS, ids=str)
def test_pictures_are_prepared_as_the_data_were(tmp_path, fitting):
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize((96, 64))
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            photograph.save(tmp_path / "images" / name / f"{number}.png")
    source = {"kind": "folder", "path": str(tmp_path / "images"), "channels": 1, "test_fraction": 0.34}
    data = {"source": source, "image_size": 32, "batch_size": 2, "mean": 0.25, "std": 0.5, **fitting}
    values = {"data": data, "train": {"duration": {"steps": 1}}, "parallel": {"devices": 1}}
    fit(Config.model_validate(values), tmp_path / "run")
    preparation = run_weights(tmp_path / "run").preprocessing
    grey = np.asarray(photograph.convert("L"))[..., None]
    expected = read_image(tmp_path / "images" / "a" / "0.png", size=32, channels=1, **fitting)
    np.testing.assert_allclose(preparation.apply(grey), (expected / 255 - 0.25) / 0.5, atol=1e-6)
