"""The comparison of a train step's compilation with and without `scan` and `remat`."""

import json
import shlex

import pytest

from cnnjax.bench.compile_time import measure_compile_time
from cnnjax.errors import ConfigError

# Blocks enough for a loop to be shorter than what it stands for, each small.
NETWORK = ("cifar_resnet20", "stage_sizes=[8]", "stage_widths=[8]", "stem_width=8")
# What compiles fast, and has `remat` alone.
TINY = ("vgg11", "stage_sizes=[1]", "stage_widths=[8]", "dense_width=8")


def test_every_setting_is_compiled_and_compared(cnnjax):
    code, out, _ = cnnjax("bench", "compile", *NETWORK, "--input", "16", "--batch-size", "4", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["model"], result["batch_size"], result["input_size"]) == ("cifar_resnet20", 4, 16)
    settings = result["settings"]
    assert [(each["scan"], each["remat"]) for each in settings] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    plain, remat, scan, _ = settings
    assert plain["time_ratio"] == plain["memory_ratio"] == 1
    for each in settings:
        seconds = [setting["lower_seconds"] + setting["compile_seconds"] for setting in (each, plain)]
        assert min(seconds) > 0
        assert each["time_ratio"] == pytest.approx(seconds[0] / seconds[1])
        assert each["memory_ratio"] == pytest.approx(each["temporary_bytes"] / plain["temporary_bytes"])
    assert scan["operations"] < plain["operations"]
    assert remat["operations"] > plain["operations"]


def test_only_the_switches_that_there_are(cnnjax):
    code, out, _ = cnnjax("bench", "compile", *TINY, "--input", "32")
    assert code == 0
    first, *settings = out.strip().split("\n")
    assert first == "vgg11, batch 2, 32x32, compiled for cpu"
    assert [line.split(":")[0] for line in settings] == ["remat off", "remat on"]
    assert "(ratio 1.00)" in settings[0]


def test_a_network_without_switches_is_refused(cnnjax):
    code, _, err = cnnjax("bench", "compile", "lenet5")
    assert (code, err) == (2, "error: model lenet5 has no field scan or remat: there is nothing to compare\n")


@pytest.mark.parametrize("switch", ["scan", "remat"])
def test_what_is_measured_cannot_be_set(switch):
    with pytest.raises(ConfigError, match=f"^{switch} is what is measured, on and off; leave it out of the network's"):
        measure_compile_time("resnet18", {switch: True})


def test_wrong_fields_are_refused(cnnjax):
    code, _, err = cnnjax("bench", "compile", "resnet18", "widht=2")
    assert (code, err) == (2, "error: resnet18.widht: unknown key; did you mean 'width'?\n")


def test_a_page_grows_by_a_network_and_forgets_what_was_measured_again(cnnjax, tmp_path):
    tiny = (*TINY, "--input", "32", "--report", str(tmp_path / "page"), "--json")
    results = []
    for batch_size in (1, 2, 1):
        code, out, _ = cnnjax("bench", "compile", *tiny, "--batch-size", str(batch_size))
        assert code == 0
        results.append(json.loads(out))
    rows = [json.loads(line) for line in (tmp_path / "page" / "results.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in results[0]} for row in rows] == results[1:]
    page = (tmp_path / "page" / "README.md").read_text()
    assert page.count(f"| `{' '.join(TINY)}` |") == 4
    assert f"| {results[2]['settings'][1]['operations']:,} |" in page
    assert f"cnnjax bench compile {shlex.join(TINY)}" in page
    assert str(tmp_path) not in page


def test_a_page_that_cannot_be_written_or_read_is_told(cnnjax, tmp_path):
    tiny = ("bench", "compile", *TINY, "--input", "32", "--report")
    (tmp_path / "file").write_text("")
    code, _, err = cnnjax(*tiny, str(tmp_path / "file" / "page"))
    assert code == 2
    assert err == f"error: {tmp_path / 'file' / 'page'} cannot be written (Not a directory); choose another --report\n"
    (tmp_path / "results.jsonl").write_text("no JSON")
    code, _, err = cnnjax(*tiny, str(tmp_path))
    assert code == 2
    assert "results.jsonl cannot be read" in err
    assert (tmp_path / "results.jsonl").read_text() == "no JSON"
