"""What is at a path."""

import os
import stat
from pathlib import Path


def is_special(path: str | Path) -> bool:
    """Whether a path leads to a pipe or a device, which may keep a reader waiting or reading for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # whoever opens it tells why
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
