"""How a page looks on a phone, asked of a Chromium without a window."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

WIDTH, HEIGHT = 390, 844
"""Of a common phone, in the pixels that style sheets count in."""

# The page lies in a frame as wide as a phone, for a window of Chromium has a width that it does not go below.
_MEASURE = """
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), view = frame.contentWindow, page = frame.contentDocument;
  const all = [...page.body.querySelectorAll("*")];
  const style = (element) => view.getComputedStyle(element);
  const isBox = (element) => ["auto", "scroll"].includes(style(element).overflowX);
  const isMoved = (element) => element !== page.body && (isBox(element) || isMoved(element.parentElement));
  const right = (element) => element.getBoundingClientRect().right;
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  document.querySelector("pre").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth,
    outside: all.filter((each) => right(each) > frame.clientWidth + 1 && !isMoved(each)).map((each) => each.tagName),
    boxes: all.filter((each) => isBox(each) && each.scrollWidth > each.clientWidth).length,
    letters: Math.min(...all.filter(hasText).map((each) => parseFloat(style(each).fontSize))),
    pictures: [...page.images].map((each) => each.naturalWidth && each.clientWidth / each.naturalWidth),
    requests: view.performance.getEntriesByType("resource").map((each) => each.name.slice(0, 200)),
  });
});
"""


def find_browser() -> str:
    """The path of a Chromium; skips where there is none."""
    named = os.environ.get("CNNJAX_CHROMIUM")
    for name in [named] if named else ["chromium", "chromium-browser", "google-chrome"]:
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium: neither CNNJAX_CHROMIUM nor chromium, chromium-browser or google-chrome is one")


def run_browser(folder: Path, page: Path, *options: str) -> str:
    """What it prints of a page; `folder` is for its own files."""
    quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--hide-scrollbars")
    alone = ("--disable-background-networking", "--disable-component-update", "--no-sandbox")  # root has no sandbox
    words = [find_browser(), "--headless", *quiet, *alone, f"--user-data-dir={folder / 'browser'}", *options]
    done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(page: Path, folder: Path) -> dict[str, Any]:
    """What a page is on a phone.

    Returns:
        width: of all there is, WIDTH unless something overflows. outside: the tags of what does. boxes: how many parts
        are moved sideways by themselves. letters: the smallest, in pixels. pictures: the share of its own width that
        each is shown at, 0 if it cannot be. requests: addresses that were asked for, but for the page's own.
    """
    content = html.escape(page.read_text(encoding="utf-8"))
    frame = f'<iframe width="{WIDTH}" height="{HEIGHT}" style="border: 0" srcdoc="{content}"></iframe>'
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!doctype html><pre></pre>{frame}<script>{_MEASURE}</script>", encoding="utf-8")
    printed = run_browser(folder, wrapper, "--virtual-time-budget=10000", "--dump-dom")
    found: dict[str, Any] = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", printed, re.DOTALL)[1]))
    return {**found, "requests": [each for each in found["requests"] if not each.startswith("data:")]}


def screenshot(page: Path, folder: Path) -> Path:
    """A picture of the top of the page, as a phone shows it."""
    path = folder / f"{page.parent.name}.png"
    run_browser(folder, page, f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={path}")
    return path
