"""A page in Markdown as one HTML file with its pictures inside."""

import base64
import html
import re
import struct
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1a1a1a; background: #fff; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; display: block; }
pre { background: #f5f5f5; padding: 0.6rem; overflow-x: auto; font-size: 0.85rem; }
"""
# On a narrow screen a picture is pushed sideways rather than shrunk further: its letters have a dozen pixels.
_SMALLEST = 0.75


def write_html(markdown: str, title: str, folder: Path, path: Path) -> None:
    """Writes `path`: no scripts, nothing from elsewhere; pictures of `folder` become part of the file."""
    from markdown_it import MarkdownIt

    # Names are anybody's: tags among them are letters.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'<img src="([^"]+\.png)"', lambda match: f"<img {_inline(folder / match[1])}", body)
    # What may be wider than the screen is moved in a box of its own, not the whole page.
    body = re.sub(r"<p>(<img [^>]*>)</p>|(<table>.*?</table>)", r'<div class="wide">\1\2</div>', body, flags=re.DOTALL)
    path.write_text(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        encoding="utf-8",
    )


def as_text(name: str) -> str:
    """A name as a page's Markdown shows it, in a line of its own or a table: no mark of it means anything."""
    return re.sub(r"([\\`*<>\[\]|&]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(name.split()))


def _inline(picture: Path) -> str:
    content = picture.read_bytes()
    (width,) = struct.unpack(">I", content[16:20])  # of a PNG's first part
    style = f"min-width: {round(_SMALLEST * width)}px"
    return f'style="{style}" src="data:image/png;base64,{base64.b64encode(content).decode()}"'
