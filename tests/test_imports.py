"""Which part of the package may import which, and which third parties have one door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cnnjax"

# Each room may import itself and the rooms above it; `data` stands beside the networks and sees the first room alone.
ROOMS = (
    (
        "errors",
        "version",
        "registry",
        "malloc",
        "config",
        "config_augment",
        "config_base",
        "config_data",
        "config_faults",
        "config_files",
        "config_parallel",
        "config_schedule",
        "config_yaml",
    ),
    ("ops",),
    ("nn",),
    ("models",),
    ("scaling",),
    ("analysis", "weights"),
    ("data",),
    ("augment",),
    ("train",),
    ("parallel", "checkpoint", "checkpoint_faults"),
    (
        "train.loop",
        "train.opening",
        "train.init_from",
        "train.profiling",
        "train.evaluation",
        "train.run_weights",
        "train.predict",
        "train.preview",
        "train.explain",
        "train.features",
        "train.eval_report",
    ),
    ("study",),
    (
        "",
        "__main__",
        "cli",
        "cli_aot",
        "cli_bench",
        "cli_bench_loop",
        "cli_data",
        "cli_explain",
        "cli_export",
        "cli_features",
        "cli_options",
        "cli_predict",
        "cli_scale",
        "cli_study",
        "cli_weights",
        "terminal",
        "terminal_aot",
        "terminal_scale",
        "terminal_study",
    ),
)
NETWORKS = ("ops", "nn", "models", "analysis", "weights")
# What only one file, or as many as are named, may name.
DOORS: dict[str, str | tuple[str, ...]] = {
    "orbax": "checkpoint",
    "yaml": "config_yaml",
    "typer": tuple(name for name in ROOMS[-1] if name.startswith("cli")),
    "torch": ("weights.files", "weights.pretrained", "bench.torch_contestants", "bench.torch_loader"),
    "huggingface_hub": "weights.pretrained",
    "safetensors": "weights.files",
    "h5py": "weights.keras_files",
    "PIL": ("data.images", "data.image_files", "data.composites", "bench.photographs", "weights.preprocessing"),
    "jax.distributed": "parallel",
    "jax.pmap": "parallel",
    "jax.sharding": "parallel",
    "Mesh": "parallel",
    "NamedSharding": "parallel",
    "pmap": "parallel",
    "shard_map": "parallel",
}


def room_of(module: str) -> int:
    """The number of the room with the longest name that `module` ("train.loop", without the package) begins with."""
    names = {name: number for number, room in enumerate(ROOMS) for name in room}
    parts = module.split(".")
    return next(names[".".join(parts[:end])] for end in range(len(parts), -1, -1) if ".".join(parts[:end]) in names)


def imports_and_names(source: str):
    """(line, dotted name) of everything that is imported, at whatever depth, and of every name with its attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute | ast.Name):
            yield node.lineno, ast.unparse(node)


def is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def violations(module: str, source: str):
    """One sentence for each forbidden import or name in a module's source."""
    for line, name in imports_and_names(source):
        where = f"cnnjax/{module.replace('.', '/') or '__init__'}.py line {line}"
        if name.startswith("."):
            yield f"{where}: relative import {name}"
        for guarded, doors in DOORS.items():
            door, *others = (doors,) if isinstance(doors, str) else doors
            inside = any(module == each or module.startswith(f"{each}.") for each in (door, *others))
            if f".{guarded}." in f".{name}." and not inside:
                yield f"{where}: {name} belongs in cnnjax/{door.replace('.', '/')} alone"
        if name.startswith("cnnjax."):
            target = name.removeprefix("cnnjax.")
            while target and not is_module(target):
                target = target.rpartition(".")[0]
            here, there = (each.split(".")[0] for each in (module, target))
            beside = {here, there} & {"data"} and {here, there} & set(NETWORKS)
            if target and (room_of(target) > room_of(module) or beside):
                yield f"{where}: {module} may not import {target}"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize(("module", "path"), [pytest.param(*each, id=each[0] or "cnnjax") for each in modules()])
def test_imports_go_one_way_and_through_the_doors(module, path):
    found = sorted(set(violations(module, path.read_text(encoding="utf-8"))))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("ops.pooling", "import cnnjax.nn.norm", "line 1: ops.pooling may not import nn.norm"),
        ("nn.norm", "def f():\n    from cnnjax import models", "line 2: nn.norm may not import models"),
        ("models.lenet", "from cnnjax.data.idx import read_idx", "models.lenet may not import data.idx"),
        ("data.loader", "from cnnjax.nn.norm import BatchNorm", "data.loader may not import nn.norm"),
        ("models", "from cnnjax.train.step import predict", "models may not import train.step"),
        ("train.step", "from cnnjax.parallel import Executor", "train.step may not import parallel"),
        ("train.state", "from cnnjax.train.loop import fit", "train.state may not import train.loop"),
        ("config", "from cnnjax.train import loop", "config may not import train.loop"),
        ("train.loop", "from cnnjax.cli import main", "train.loop may not import cli"),
        ("weights.convert", "from cnnjax.train.step import predict", "weights.convert may not import train.step"),
        (
            "weights.convert",
            "from cnnjax.data.image_files import read_image",
            "weights.convert may not import data.image_files",
        ),
        ("nn.norm", "from . import network", "relative import"),
        ("cli", "import yaml", "yaml belongs in cnnjax/config_yaml alone"),
        ("train.loop", "from orbax import checkpoint", "belongs in cnnjax/checkpoint alone"),
        ("weights.convert", "def f():\n    import torch", "line 2: torch belongs in cnnjax/weights/files alone"),
        ("train.predict", "from PIL import Image", "PIL.Image belongs in cnnjax/data/images alone"),
        ("train.loop", "import jax\njax.distributed.initialize()", "line 2: jax.distributed"),
        ("train.step", "from jax.sharding import PartitionSpec", "belongs in cnnjax/parallel alone"),
        ("train.step", "import jax\nf = jax.pmap(g)", "line 2: jax.pmap belongs"),
    ],
)
def test_a_violation_is_told_with_file_and_line(module, source, sentence):
    assert any(sentence in each for each in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("train.loop", "from cnnjax.parallel import make_executor\nfrom cnnjax.checkpoint import Checkpoints"),
        ("parallel", "import jax\njax.distributed.initialize()\nfrom jax.sharding import Mesh"),
        ("data.sources", "from cnnjax.config_data import Source\nfrom cnnjax.data.idx import read_idx"),
        ("cli", "import typer\nfrom cnnjax.train.loop import fit"),
        ("weights.preprocessing", "from PIL import Image\nfrom cnnjax.models import create_model"),
    ],
)
def test_what_is_allowed_is_not_told(module, source):
    assert list(violations(module, source)) == []


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        *((module, "jax") for module in ("cnnjax", "config_files", "models", "cli", "terminal")),
        *((module, "scipy.stats") for module in ("train.loop", "train.evaluation", "train.report")),
    ],
)
def test_answers_without_importing_what_takes_long(module, slow):
    name = module if module == "cnnjax" else f"cnnjax.{module}"
    code = f"import sys, {name}; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_public_names_are_there_and_others_are_refused():
    import cnnjax

    assert {name for name in cnnjax.__all__ if getattr(cnnjax, name) is None} == set()
    assert dir(cnnjax) == sorted(cnnjax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = cnnjax.trian
