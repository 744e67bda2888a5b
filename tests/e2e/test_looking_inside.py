"""The commands that look at data and networks, from end to end on a small run: what they print and write."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_data_show_counts(small, cnnjax):
    described = cnnjax("data", "show", small, "--json").done.json
    assert described["examples"] == {"train": 64, "test": 32}
    assert sum(described["classes"]["train"]) == 64
    text = cnnjax("data", "show", small).done.out
    assert "class 9" in text
    assert text.splitlines()[-1] == "images of 32x32x1"


def test_data_preview_draws(small, tmp_path, cnnjax):
    out = tmp_path / "new" / "preview.png"
    assert cnnjax("data", "preview", small, "data.augment=[{kind: flip}]", "--out", out).done.out.strip() == str(out)
    assert Image.open(out).width > 500
    assert "expected a name that ends in .png" in cnnjax("data", "preview", small, "--out", tmp_path / "x.jpg").error


def test_eval_report_writes_a_page(trained, tmp_path, cnnjax):
    told = cnnjax("eval", trained, "--report", tmp_path / "page", "--json").done.json
    assert told == cnnjax("eval", trained, "--json").done.json
    assert f"**{told['accuracy']:.2%}** of 32 right" in (tmp_path / "page" / "README.md").read_text()
    assert (tmp_path / "page" / "index.html").stat().st_size > 20_000


def test_explain_draws_three_pictures(trained, picture, tmp_path, cnnjax):
    told = cnnjax("explain", trained, picture, "--out", tmp_path / "out", "--class", "class 3", "--json").done.json
    assert [each["class"] for each in told["images"]] == ["class 3"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["attributions.png", "filters.png", "maps.png"]
    refused = cnnjax("explain", trained, picture, "--out", tmp_path / "none", "--layer", "c9").error
    assert refused == "layer 'c9': no such layer; known: c1, c3, s2, s4"
    assert not (tmp_path / "none").exists()


def test_an_exported_run_predicts_the_same_without_cnnjax(trained, picture, tmp_path, cnnjax):
    told = cnnjax("export", trained, tmp_path / "net.jaxexport", "--platforms", "cpu", "--json").done.json
    described = json.loads((tmp_path / "net.jaxexport.json").read_text())
    assert told["description"] == str(tmp_path / "net.jaxexport.json")
    assert described["input"] == "images (batch, 32, 32, 1) uint8"
    code = (
        "import sys, jax, numpy as np; from PIL import Image;"
        "image = Image.open('picture.png'); across = image.resize((32, image.height), Image.Resampling.BILINEAR);"
        "image = across.resize((32, 32), Image.Resampling.BILINEAR);"
        "run = jax.export.deserialize(open('net.jaxexport', 'rb').read()).call;"
        "logits = run(np.asarray(image)[None, ..., None]); print(*jax.nn.softmax(logits)[0]);"
        "assert 'cnnjax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    (predicted,) = cnnjax("predict", trained, picture, "--top", "10", "--json").done.json["predictions"]
    by_class = {each["class"]: each["probability"] for each in predicted["top"]}
    found = dict(zip(described["labels"], map(float, done.stdout.split()), strict=True))
    assert found == pytest.approx(by_class, abs=1e-5)


def test_what_cannot_be_exported_is_told(trained, tmp_path, cnnjax):
    assert "has no batch normalisation to fold" in cnnjax("export", trained, tmp_path / "x.jaxexport", "--fold").error
    assert "no platform 'gpu'" in cnnjax("export", trained, tmp_path / "x.jaxexport", "--platforms", "gpu").error
    assert not list(tmp_path.iterdir())


def test_data_convert_writes_what_a_config_then_trains_on(tmp_path, cnnjax):
    for name, level in (("dark", 10), ("light", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("L", (9 + number, 12), level + number).save(tmp_path / "pictures" / name / f"{number}.png")
    (tmp_path / "pictures" / "dark" / "3.png").write_bytes(b"no image")
    config, out = tmp_path / "files.yaml", tmp_path / "records"
    config.write_text(
        "model: {name: lenet5_modern}\n"
        "data: {source: {kind: folder, path: pictures, channels: 1}, image_size: 32, batch_size: 8}\n"
    )
    given = (config, out, f"data.source.path={tmp_path / 'pictures'}")
    assert "3.png' is not an image" in cnnjax("data", "convert", *given).error
    assert not out.exists()
    told = cnnjax("data", "convert", *given, "data.source.broken=skip", "--json").done.json
    assert (told["path"], told["class_names"]) == (str(out), ["dark", "light"])
    assert sum(told["skipped"].values()) == 1
    assert "is not empty; name another folder" in cnnjax("data", "convert", *given).error
    again = (config, tmp_path / "again", *given[2:], "data.source.broken=skip", "--shard-megabytes", "1")
    said = cnnjax("data", "convert", *again).done.out.splitlines()
    assert said[0].startswith(f"{told['examples']['train']} training examples in 1 file of ")
    assert said[2] == f"data.source: {{kind: arrayrecord, path: {tmp_path / 'again'}}}"
    source = f"data.source={{kind: arrayrecord, path: {out}, channels: 1}}"
    assert cnnjax("data", "show", config, source, "--json").done.json["examples"] == told["examples"]
    assert cnnjax("train", config, source, "train.duration={steps: 2}", "--run-dir", tmp_path / "run").done
