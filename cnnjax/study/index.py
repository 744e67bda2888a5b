"""The list of all studies, written anew from what their folders hold."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from cnnjax.errors import RunError
from cnnjax.study.wording import table
from cnnjax.train.run_folder import not_written, write_whole

PAGE = "README.md"
_HEAD = "# Experiments"


def write_index(folder: Path) -> Path:
    """Writes `folder`/README.md: a row for each study in it with its verdicts, then the other pages.

    Raises:
        RunError: a study's results or a folder cannot be read, the list cannot be written, or there is a README.md that
            is no such list.
    """
    try:
        return _write(folder)
    except OSError as error:
        raise not_written(folder / PAGE, error, "--out") from None


def _write(folder: Path) -> Path:
    page = folder / PAGE
    if page.exists() and not _text(page).startswith(_HEAD):
        raise RunError(f"{page} is not a list of experiments; move it away, or choose another --out")
    studies, others = [], []
    for entry in sorted(folder.iterdir()):
        if not (entry / PAGE).is_file():
            continue
        found = _study(entry)
        if found is None:
            title = _text(entry / PAGE).split("\n", 1)[0].lstrip("# ")
            others.append(f"- [{title}]({entry.name}/{PAGE})")
        else:
            verdicts = [each["verdict"] for each in found["verdicts"]]
            studies.append([f"[{found['question']}]({entry.name}/{PAGE})", _in_words(verdicts, found["complete"])])
    lines = [
        _HEAD,
        "",
        "Written by `cnnjax study report`: each question with its verdict. A page tells the claim, the reduction, the",
        "numbers with their error bars and the commands that made them.",
        "",
        *(table(("question", "verdict"), studies) if studies else ["No study has a report yet."]),
        "",
        *(["## Measurements", "", *others, ""] if others else []),
    ]
    write_whole(page, "\n".join(lines))
    return page


def _text(page: Path) -> str:
    """Of anybody's page, in whatever encoding."""
    return page.read_text(encoding="utf-8", errors="replace")


def _study(entry: Path) -> dict[str, Any] | None:
    path = entry / "results.json"
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); write that report again") from None
    return results if isinstance(results, dict) and {"question", "verdicts", "complete"} <= results.keys() else None


def _in_words(verdicts: list[str], complete: bool) -> str:
    counts = Counter(verdicts)
    if len(counts) == 1 and len(verdicts) == 1:
        text = verdicts[0]
    else:
        known = ("reproduced", "not reproduced", "undecided")
        text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in known if counts[verdict])
    return (text or "measured") + ("" if complete else " (not all runs finished)")
