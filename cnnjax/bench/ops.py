"""Which form of a convolution, and of its gradients, is fastest on this machine's CPU; makes `conv_table.json`."""

import functools
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models import create_model, get_variant
from cnnjax.ops.conv_forms import FORMS, admitted
from cnnjax.ops.conv_geometry import Geometry, Map
from cnnjax.ops.conv_table import TABLE, Case, case_of, similar
from cnnjax.ops.onednn import Library, compiler_options

# One of each kind of convolution that the architectures have.
NETWORKS = (
    *("lenet5_modern", "simple_cnn", "cifar_resnet20", "alexnet", "vgg16", "googlenet", "resnet18", "resnet50"),
    *("se_resnet50", "resnext50_32x4d", "densenet121", "inception_v3", "xception", "mobilenet_v1", "efficientnet_b0"),
    "unet",
)
_PIXELS = 224 * 224
# Images of fewer pixels are trained on in large batches too.
_SMALL_PIXELS, _LARGE_BATCH = 64 * 64, 16
# Of these networks' smaller images the last maps are smaller than a window, where other forms win than elsewhere.
_SMALLER: dict[str, tuple[int, ...]] = {"resnet18": (64, 32), "resnet50": (64, 32)}
MAPS: tuple[Map, ...] = ("forward", "by_input", "by_kernel")
# A form has to be that much faster than one that a row of the table stands for already.
WORTH = 1.05
# XLA takes some 25 ms to compile an operation, and these are many: they have to be that much faster than any other.
LONG: dict[str, float] = {"pieces": 1.3, "patches": 1.15}
# Winograd's are so many that it has to be faster by this over the number of a network's different convolutions: of few,
# they would take half as long again to compile.
WINOGRAD = 22.0
# What took that many times as long as another form in its first turn takes no second one.
HOPELESS = 4.0
_LARGE = 2048


class Convolution(NamedTuple):
    """One convolution of some network at some batch size."""

    geometry: Geometry
    batch: int
    channels: int
    features: int


def convolutions_of(names: Iterable[str], batch: int) -> dict[Convolution, list[str]]:
    """The different convolutions of networks at their native size, some at smaller ones too, each with who has it.

    Args:
        batch: images of 224x224 pixels; fewer where they are larger, and 16 times as many too where they are small.
    """
    found: dict[Convolution, list[str]] = {}
    for name in names:
        # A form of gradients by the kernel alone: forward it leaves XLA's own, and what can be folded as it is folded.
        network, (height, width, channels) = create_model(name, lowering="columns"), get_variant(name).input_shape
        sizes = [(name, count, height, width) for count in _batches(batch, height * width)]
        sizes += [(f"{name} at {side}", batch, side, side) for side in _SMALLER.get(name, ())]
        run = functools.partial(network.init_with_output, train=False)
        for label, *shape in sizes:
            images = jax.ShapeDtypeStruct((*shape, channels), jnp.float32)
            for convolution in _in_jaxpr(jax.make_jaxpr(run)(jax.random.key(0), images).jaxpr):
                networks = found.setdefault(convolution, [])
                if label not in networks:
                    networks.append(label)
    return found


def _batches(batch: int, pixels: int) -> tuple[int, ...]:
    if pixels <= _SMALL_PIXELS:
        return batch, batch * _LARGE_BATCH
    return (max(1, min(batch, round(batch * _PIXELS / pixels))),)


def _in_jaxpr(jaxpr: Any) -> Iterator[Convolution]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated" and equation.params["lhs_dilation"] == (1, 1):
            images, kernel = (each.aval.shape for each in equation.invars)
            geometry = Geometry(
                size=images[1:3],
                window=kernel[:2],
                strides=tuple(equation.params["window_strides"]),
                padding=equation.params["padding"],
                groups=equation.params["feature_group_count"],
            )
            yield Convolution(geometry, images[0], images[3], kernel[3])
        elif equation.primitive.name == "conv_general_dilated":
            yield _transposed(equation)
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _in_jaxpr(inner)


def _transposed(equation: Any) -> Convolution:
    """What the transposed convolution of an equation is the gradient by the images of."""
    gradient, kernel = (each.aval.shape for each in equation.invars)
    batch, *size, channels = equation.outvars[0].aval.shape
    _, _, *spatial = equation.params["dimension_numbers"].rhs_spec
    window = (kernel[spatial[0]], kernel[spatial[1]])
    strides = equation.params["lhs_dilation"]
    geometry = Geometry(tuple(size), window, strides, ((0, 0), (0, 0)), 1)
    assert geometry.outputs == gradient[1:3], "transposed convolutions have no padding"
    return Convolution(geometry, batch, channels, gradient[3])


def measure(convolution: Convolution, which: Map, rounds: int, library: Library) -> dict[str, float]:
    """Median seconds of each form that can compute one map of a convolution; they take turns."""
    geometry, batch, channels, features = convolution
    shapes = {
        "images": (batch, *geometry.size, channels),
        "kernel": (*geometry.window, channels // geometry.groups, features),
        "gradient": (batch, *geometry.outputs, features),
    }
    operands = {
        "forward": ("images", "kernel"),
        "by_input": ("gradient", "kernel"),
        "by_kernel": ("images", "gradient"),
    }
    random = np.random.default_rng(0)
    one, other = (jnp.asarray(random.normal(size=shapes[name]), jnp.float32) for name in operands[which])
    runs = {
        name: _compile(functools.partial(form, geometry=geometry), one, other, library)
        for name, form in FORMS[which].items()
        if name in admitted(geometry, channels, features) and not _is_native(name, geometry, channels)
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        fastest = min((min(times) for times in seconds.values() if times), default=math.inf)
        for name, run in runs.items():
            if seconds[name] and seconds[name][0] > HOPELESS * fastest:
                continue
            start = time.perf_counter()
            run(one, other).block_until_ready()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _is_native(name: str, geometry: Geometry, channels: int) -> bool:
    """Whether a form is `native` by another name: which of the two is faster would be chance."""
    return name == "phases" and geometry.strides == (1, 1) and not 1 < geometry.groups < channels


def _compile(
    form: Callable[..., jax.Array], one: jax.Array, other: jax.Array, library: Library
) -> Callable[..., jax.Array]:
    run = jax.jit(form, compiler_options=compiler_options(library, "cpu")).lower(one, other).compile()
    run(one, other).block_until_ready()
    return run


def measure_all(names: Sequence[str], batch: int, rounds: int, library: Library) -> Iterator[dict[str, Any]]:
    """For each map of each different convolution of networks: its case, the networks, and the seconds of each form."""
    for convolution, networks in convolutions_of(names, batch).items():
        for which in MAPS:
            yield {
                "map": which,
                "case": case_of(convolution.geometry, *convolution[1:])._asdict(),
                "networks": networks,
                "seconds": measure(convolution, which, rounds, library),
            }


def achieved(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, Map], float]:
    """Operations (a multiplication and an addition are two) a second of each kind's maps, each in its fastest form."""
    work: dict[tuple[str, Map], float] = {}
    seconds: dict[tuple[str, Map], float] = {}
    for row in rows:
        case, key = Case(**row["case"]), (row["case"]["kind"], row["map"])
        products = case.positions * case.window * case.channels * case.features / case.groups
        work[key] = work.get(key, 0.0) + 2 * products
        seconds[key] = seconds.get(key, 0.0) + min(row["seconds"].values())
    return {key: work[key] / seconds[key] for key in sorted(work)}


def measure_peak(library: Library, rounds: int) -> float:
    """Operations a second of a matrix product that is large enough to be at its best."""
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(_LARGE, _LARGE)), jnp.float32)
    run = _compile(jnp.dot, matrix, matrix, library)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * _LARGE**3 / statistics.median(seconds)


def write_table(rows: Sequence[dict[str, Any]], library: Library) -> int:
    """Writes the table by which convolutions are lowered; keeps the rows that the others do not foretell.

    That of the other library stays as it is.

    Returns:
        How many rows it has.
    """
    # Windows of 1x7 and 7x1 are one case.
    alike: dict[tuple[Map, Case], list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault((row["map"], Case(**row["case"])), []).append(row)
    cases = {(name, case) for (_, case), measured in alike.items() for name in _networks(measured)}
    different = Counter(name for name, _ in cases)
    summed = []
    for (which, case), measured in alike.items():
        long = {**LONG, "winograd": 1 + WINOGRAD / min(different[name] for name in _networks(measured))}
        cost = {
            name: long.get(name, 1.0) * sum(row["seconds"].get(name, math.inf) for row in measured)
            for name in measured[0]["seconds"]
        }
        summed.append((which, case, cost))
    # The costliest first: they matter most, and stand for the others.
    summed.sort(key=lambda row: -min(row[2].values()))
    kept: dict[str, list[tuple[Case, str]]] = {which: [] for which in MAPS}
    while True:
        # Each row that is kept becomes the nearest of others, so all are asked again until nothing changes.
        added = 0
        for which, case, seconds in summed:
            best = min(seconds, key=seconds.__getitem__)
            chosen = similar(case, [(other, form) for other, form in kept[which] if form in seconds])
            if seconds[chosen] > WORTH * seconds[best]:
                kept[which].append((case, best))
                added += 1
        if not added:
            break
    found = [
        {"map": which, "case": case._asdict(), "form": form} for which in MAPS for case, form in sorted(kept[which])
    ]
    tables = json.loads(TABLE.read_text(encoding="utf-8"))
    tables[library] = {"jax": jax.__version__, "rows": found}
    TABLE.write_text(f"{{{_lines(tables)}}}\n", encoding="utf-8")
    return len(found)


def _networks(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {name for row in rows for name in row["networks"]}


def _lines(tables: dict[str, Any]) -> str:
    """A row of the table is a line of the file."""
    return ",\n".join(
        f'"{name}": {{"jax": "{table["jax"]}", "rows": [\n' + ",\n".join(map(json.dumps, table["rows"])) + "\n]}"
        for name, table in tables.items()
    )
