"""The whole table of `experiments/peer_parity`: python tests/parity/table.py OUT [PATTERN ...]

Measures every network of other libraries that the registry knows (or those that match), writes a line each to
OUT/results.jsonl as it goes, leaves out what is there already, and makes OUT/README.md of all lines.
"""

import json
import os
import platform
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from measure import DOUBLE_LIMIT, LIMIT, at_native_size, at_odd_size, equal

from cnnjax.models import list_peers

SEEDS = (0, 1)
PACKAGES = ("jax", "flax", "torch", "torchvision", "timm", "keras", "pytorchcv", "efficientnet-lite-pytorch")


def main(out: Path, patterns: list[str]) -> None:
    """Measures what is missing, then writes the page."""
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.jsonl"
    done = {record["name"] for record in _read(results)}
    for name in list_peers():
        if name in done or (patterns and not any(fnmatchcase(name, pattern) for pattern in patterns)):
            continue
        since = time.perf_counter()
        native = [at_native_size(name, seed) for seed in SEEDS]
        record = {
            "name": name,
            "native": native,
            "odd": at_odd_size(name, SEEDS[-1] + 1),
            "seconds": round(time.perf_counter() - since, 1),
            "commit": _commit(),
            "python": platform.python_version(),
            "packages": {package: metadata.version(package) for package in PACKAGES},
        }
        with open(results, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(_row(record), flush=True)
    (out / "README.md").write_text(_page(_read(results)), encoding="utf-8")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _row(record: dict[str, Any]) -> str:
    native = record["native"]
    odd = [record["odd"]] if record["odd"] else []
    singles = [found["float32"] for found in native]
    stages = [value for found in singles for stage, value in found.items() if stage != "logits"]
    doubles = [value for found in (*native, *odd) for value in found.get("float64", {}).values()]
    cells = (
        f"`{record['name']}`",
        f"{max(found['logits'] for found in singles):.1e}",
        str(len(stages) // len(singles)),
        f"{max(stages):.1e}" if stages else "",
        f"{odd[0]['float32']['logits']:.1e}" if odd else "",
        f"{max(doubles):.1e}" if doubles else "",
        "yes" if all(equal(found) for found in (*native, *odd)) else "**no**",
    )
    return f"| {' | '.join(cells)} |"


def _page(records: list[dict[str, Any]]) -> str:
    order = {name: index for index, name in enumerate(list_peers())}
    records = sorted((record for record in records if record["name"] in order), key=lambda each: order[each["name"]])
    commits = ", ".join(sorted({record["commit"] for record in records}))
    versions = "; ".join(
        sorted({", ".join(f"{key} {value}" for key, value in record["packages"].items()) for record in records})
    )
    return "\n".join(
        [
            "# Are these the other libraries' networks?",
            "",
            "Each network of another library gets random weights and running statistics, ours gets them through",
            "`cnnjax.weights`, and both see the same two images of noise; two seeds. A number is the largest",
            "difference relative to the largest value: of the logits and of the worst stage at the native size, and of",
            "the logits at a size that is neither square nor native (where the library's network admits one).",
            f"Equal means below {LIMIT:g} in float32 on a CPU; where rounding alone makes more, both compute again in",
            f"float64, and everything must be below {DOUBLE_LIMIT:g}. The weights come back bit for bit, or there is",
            "no row. The largest images (from 456 pixels) are single ones.",
            "",
            f"{len(records)} of {len(order)} networks. Made by `python tests/parity/table.py experiments/peer_parity`",
            f"at commit {commits} with {versions}. The raw numbers are in [results.jsonl](results.jsonl).",
            "",
            "| network | logits | stages compared | worst stage | logits, odd size | worst in float64 | equal |",
            "|---|---|---|---|---|---|---|",
            *(_row(record) for record in records),
            "",
        ]
    )


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    ).stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
