"""The choice among ways of writing a convolution on a CPU."""

import json

import jax
import pytest

from cnnjax.bench import ops
from cnnjax.ops.conv_forms import FORMS, admitted
from cnnjax.ops.conv_geometry import Geometry
from cnnjax.ops.conv_table import TABLE, Case, case_of, choose, similar

LIBRARIES = ("xla", "onednn")
BASE = Case("dense", False, 9, 64, 64, 1, 1000)
PLAIN = ((1, 1), ((1, 1), (1, 1)))


@pytest.mark.parametrize(
    ("geometry", "channels", "features", "kind"),
    [
        (Geometry((8, 8), (1, 1), (1, 1), ((0, 0), (0, 0)), 1), 4, 8, "pointwise"),
        (Geometry((8, 8), (3, 3), *PLAIN, 1), 4, 8, "dense"),
        (Geometry((8, 8), (3, 3), *PLAIN, 4), 4, 4, "depthwise"),
        (Geometry((8, 8), (3, 3), *PLAIN, 4), 4, 8, "depthwise"),
        (Geometry((8, 8), (3, 3), *PLAIN, 2), 4, 8, "grouped"),
        (Geometry((8, 8), (3, 3), *PLAIN, 1), 1, 8, "dense"),
        (Geometry((16, 16), (2, 2), (2, 2), ((0, 0), (0, 0)), 1), 4, 8, "tiled"),
        (Geometry((17, 16), (2, 2), (2, 2), ((0, 0), (0, 0)), 1), 4, 8, "dense"),
        (Geometry((9, 9), (2, 2), (1, 1), ((0, 0), (0, 0)), 1), 4, 8, "dense"),
        (Geometry((14, 14), (2, 2), (2, 2), ((1, 1), (1, 1)), 1), 4, 8, "dense"),
    ],
)
def test_the_kind_of_a_convolution(geometry, channels, features, kind):
    case = case_of(geometry, 3, channels, features)
    assert (case.kind, case.positions) == (kind, 3 * 64)


@pytest.mark.parametrize(
    ("geometry", "kind"),
    [
        (Geometry((2, 2), (3, 3), *PLAIN, 1), "small"),
        (Geometry((4, 4), (3, 3), (2, 2), ((1, 1), (1, 1)), 1), "small"),
        (Geometry((2, 9), (3, 3), *PLAIN, 1), "small"),
        (Geometry((3, 3), (3, 3), *PLAIN, 1), "dense"),
        (Geometry((2, 2), (3, 3), *PLAIN, 4), "depthwise"),
    ],
)
def test_fewer_outputs_than_the_window_has_are_a_kind_of_their_own(geometry, kind):
    assert case_of(geometry, 8, 4, 4).kind == kind


@pytest.mark.parametrize("batch", [1, 8, 128])
@pytest.mark.parametrize("which", ["forward", "by_input", "by_kernel"])
def test_small_maps_do_not_meet_onednns_slow_routine(which, batch):
    """A 3x3 window on 128 maps of 2x2, 512 channels: 982 ms forward, 14 as a matrix product."""
    geometry = Geometry((2, 2), (3, 3), *PLAIN, 1)
    assert choose("onednn", which, geometry, batch, 512, 512) in ("patches", "taps")


def test_the_nearest_case_of_the_same_kind_decides():
    rows = [
        (BASE._replace(channels=128), "near"),
        (BASE._replace(channels=512), "far"),
        (BASE._replace(strided=True), "strided"),
        (BASE._replace(kind="grouped"), "grouped"),
    ]
    assert similar(BASE, rows) == "near"
    assert similar(BASE._replace(strided=True), rows) == "strided"
    assert similar(BASE._replace(kind="depthwise"), rows) == "native"
    assert similar(BASE._replace(kind="small"), rows) == "near"  # where none was measured, as any dense one
    assert similar(BASE._replace(kind="small"), [*rows, (BASE._replace(kind="small"), "small")]) == "small"
    # Twice as many and half as many are equally far.
    assert similar(BASE._replace(channels=300), rows) == "far"


def test_dense_convolutions_unlike_all_rows_are_native():
    """What was fastest for 8 images of LeNet-5 is many times slower than XLA's own for 128 of them."""
    rows = [(BASE, "measured"), (BASE._replace(kind="depthwise"), "measured")]
    assert similar(BASE._replace(positions=7 * BASE.positions), rows) == "measured"
    assert similar(BASE._replace(positions=16 * BASE.positions), rows) == "native"
    # Where XLA's own is always slow, any row is better than none.
    assert similar(BASE._replace(kind="depthwise", positions=16 * BASE.positions), rows) == "measured"


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_row_names_a_form_that_can_be_asked_for(library):
    rows = json.loads(TABLE.read_text())[library]["rows"]
    assert {row["map"] for row in rows} == set(FORMS)
    for row in rows:
        assert row["form"] in FORMS[row["map"]]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 3), (5, 5), (1, 7), (7, 7)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize(("groups", "channels", "features"), [(1, 3, 64), (1, 512, 512), (64, 64, 64), (32, 128, 128)])
def test_the_choice_can_compute_the_convolution(library, which, window, strides, groups, channels, features):
    """The nearest case may be one of another window, whose form is of no use here."""
    geometry = Geometry((56, 56), window, strides, ((0, 0), (0, 0)), groups)
    assert choose(library, which, geometry, 8, channels, features) in admitted(geometry, channels, features)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Of rows: what a table that is written of them holds for oneDNN."""
    file = tmp_path / "table.json"
    before = {"xla": {"jax": "0.1", "rows": [{"map": "forward"}]}, "onednn": {"jax": "0.1", "rows": [{"map": "gone"}]}}
    file.write_text(json.dumps(before))
    monkeypatch.setattr(ops, "TABLE", file)

    def write(rows):
        count = ops.write_table(rows, "onednn")
        tables = json.loads(file.read_text())
        assert tables["xla"] == before["xla"]  # measured another time
        assert tables["onednn"]["jax"] == jax.__version__
        kept = tables["onednn"]["rows"]
        assert len(kept) == count
        return [(Case(**row["case"]), row["form"]) for row in kept]

    return write


def measured(which, case, network="some", **seconds):
    return {"map": which, "case": case._asdict(), "networks": [network], "seconds": seconds}


def test_the_table_stands_for_all_that_was_measured(written):
    """A row that is kept may be nearer to others than what stood for them before."""
    rows = [
        measured("forward", BASE._replace(channels=channels), native=native, taps=taps)
        for channels, native, taps in (
            (64, 9.0, 1.0),
            (90, 7.0, 1.0),
            (128, 1.0, 8.0),
            (181, 1.0, 5.0),
            (256, 3.0, 1.0),
        )
    ]
    table = written(rows)
    assert len(table) < len(rows)
    for row in rows:
        assert similar(Case(**row["case"]), table) == min(row["seconds"], key=row["seconds"].get)


def test_windows_of_equal_size_are_one_case(written):
    """1x7 and 7x1 are: what is best for both together is kept."""
    rows = [measured("forward", BASE, native=1.0, taps=2.0), measured("forward", BASE, native=5.0, taps=1.0)]
    assert written(rows) == [(BASE, "taps")]


def test_what_takes_long_to_compile_has_to_be_much_faster(written):
    rows = [
        measured("by_kernel", BASE._replace(channels=8), native=1.2, pieces=1.0),
        measured("by_kernel", BASE._replace(channels=800), native=1.5, pieces=1.0),
    ]
    table = written(rows)
    assert [similar(Case(**row["case"]), table) for row in rows] == ["native", "pieces"]


def test_winograd_has_to_be_faster_the_fewer_convolutions_a_network_has(written):
    """It is a larger part of what such a network takes to compile."""
    few = [measured("forward", BASE._replace(channels=8, window=25), "small", native=2.0, winograd=1.0)]
    many = [
        measured("forward", BASE._replace(channels=64 + count), "large", native=1.5, winograd=1.0)
        for count in range(60)
    ]
    table = written(few + many)
    assert {similar(Case(**row["case"]), table) for row in many} == {"winograd"}
    assert similar(Case(**few[0]["case"]), table) == "native"


def test_what_each_kind_achieves_is_told_of_its_fastest_forms():
    depthwise = BASE._replace(kind="depthwise", groups=64)
    rows = [
        measured("forward", BASE, native=2.0, taps=1.0),
        measured("forward", BASE._replace(positions=3000), native=1.0, taps=2.0),
        measured("by_input", BASE, native=4.0),
        measured("forward", depthwise, native=1.0),
    ]
    products = 1000 * 9 * 64 * 64
    assert ops.achieved(rows) == {
        ("dense", "by_input"): 2 * products / 4,
        ("dense", "forward"): 2 * 4 * products / 2,
        ("depthwise", "forward"): 2 * products / 64,
    }
