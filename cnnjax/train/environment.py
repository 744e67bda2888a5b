"""Where a number comes from: versions, devices, code and command, and the words for them on a page."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cnnjax.train.reporting import Record


def environment() -> Record:
    """What may explain a difference between two runs: versions, devices, code and command."""
    import jax

    packages = ("cnnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [_program(sys.argv[0]), *sys.argv[1:]],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: metadata.version(name) for name in packages},
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "git": _git(),
    }


def commit_of(git: Record | None) -> str:
    """The commit that `environment` found, and whether the files were changed since."""
    return "unknown" if git is None else git["commit"][:12] + (" with changes" if git["changed"] else "")


def versions_of(found: Record) -> str:
    """Versions, system and devices of what `environment` found."""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    devices = ", ".join(found["devices"])
    system = f"{found['system']}, {found['cpus']} CPUs, devices {devices}"
    return f"Python {found['python']}, {packages}; {system}"


def portable(found: Record) -> Record:
    """Without the paths of the machine: absolute ones in the command keep only their last part."""
    words = [
        "=".join(Path(part).name if part.startswith("/") else part for part in word.split("=", 1))
        for word in found["command"]
    ]
    return {**found, "command": words}


def _program(path: str) -> str:
    name = Path(path).name
    return "cnnjax" if name in ("cnnjax", "__main__.py") else name


def _git() -> Record | None:
    """Commit of the checkout that this package runs from, and whether it was changed; None outside a checkout."""
    here = Path(__file__).parents[1]

    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):  # no git, or installed from a package
        return None
