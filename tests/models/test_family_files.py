"""What a family's file is: short, with its source, and without lines that another family has too."""

import ast
import io
import itertools
import re
import tokenize
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "cnnjax" / "models"
FAMILIES = sorted(path for path in MODELS.glob("*.py") if path.stem not in ("__init__", "variant"))
MOST_LINES = 150
SHARED_LINES = 6
# An arXiv number, a DOI, or the last of the authors' names and the year.
SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|\b10\.\d{4,}/\S|\b[A-Z][\w'-]+(?: et al\.)? (?:19|20)\d\d\b")
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source, *, imports=True):
    """The lines by their numbers without docstrings (of fields too), comments and blank ones; white space is one."""
    left_out = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import() | ast.ImportFrom() if not imports:
                left_out.update(range(node.lineno, node.end_lineno + 1))
            case ast.Expr(ast.Constant(str())):
                left_out.update(range(node.lineno, node.end_lineno + 1))
    lines: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            # A string may span lines.
            for line, text in enumerate(token.string.split("\n"), token.start[0]):
                lines.setdefault(line, []).append(text.strip())
    return {line: " ".join(texts) for line, texts in sorted(lines.items()) if line not in left_out}


def shared_runs(one, other):
    """Where the runs of `SHARED_LINES` lines begin that two sources share: pairs of line numbers."""

    def runs(source):
        lines = list(code_lines(source, imports=False).items())
        for index in range(len(lines) - SHARED_LINES + 1):
            numbers, texts = zip(*lines[index : index + SHARED_LINES], strict=True)
            yield texts, numbers[0]

    begins = dict(runs(one))
    return [(begins[texts], line) for texts, line in runs(other) if texts in begins]


def test_all_families_are_looked_at():
    assert {"lenet", "alexnet", "resnet", "efficientnet", "unet"} <= {path.stem for path in FAMILIES}


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_a_family_is_short_and_cites_its_source(path):
    source = path.read_text(encoding="utf-8")
    count = len(code_lines(source))
    assert count <= MOST_LINES, f"{path.name} has {count} lines of code: move what others share to cnnjax/nn"
    first_paragraph = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
    assert SOURCE.search(first_paragraph), f"{path.name} does not begin with a docstring that cites its source"


def test_no_two_families_share_a_run_of_lines():
    sources = {path.name: path.read_text(encoding="utf-8") for path in FAMILIES}
    found = [
        f"{one}:{line} ~ {other}:{other_line}"
        for one, other in itertools.combinations(sources, 2)
        for line, other_line in shared_runs(sources[one], sources[other])
    ]
    assert not found, "\n".join(found)


def test_docstrings_comments_and_blank_lines_are_no_code():
    source = '"""Of the\n\nfile."""\n\n# why\nimport math  # how\n\nclass A:\n    x: int = 1\n    """Of the field."""\n'
    assert code_lines(source) == {6: "import math", 8: "class A :", 9: "x : int = 1"}
    assert list(code_lines(source, imports=False)) == [8, 9]
    assert code_lines('x = """one\ntwo"""\n') == {1: 'x = """one', 2: 'two"""'}


@pytest.mark.parametrize(("lines", "expected"), [(5, []), (6, [(3, 2)]), (7, [(3, 2), (4, 3)])])
def test_a_run_is_found_wherever_it_stands(lines, expected):
    body = [f"x{line} = {line}" for line in range(lines)]
    one = "\n".join(["import math", "a = 1", *body, "b = 2"])
    other = "\n".join(["c = 3", *(line.replace(" = ", "  =  ") for line in body), "import math"])
    assert shared_runs(one, other) == expected


@pytest.mark.parametrize(
    ("docstring", "cites"),
    [
        ("LeNet-5: LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning", True),
        ("Network in Network: Lin, Chen and Yan, arXiv:1312.4400", True),
        ("doi 10.1109/5.726791", True),
        ("Szegedy et al. 2015, Going deeper", True),
        ("A network for images of 2012 pixels, in 1998 or so", False),
        ("", False),
    ],
)
def test_what_a_source_is(docstring, cites):
    assert bool(SOURCE.search(docstring)) == cites
