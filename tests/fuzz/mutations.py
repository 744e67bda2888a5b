"""What chance, and people with bad intentions, do to files: to their bytes, to their text, and to what that means."""

import json
import random
from collections.abc import Callable
from typing import Any

_WHOLE_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

_BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
)
_MERGE_BOMB = "\n".join(
    ["m0: &m0 {x: 1, y: 2}"]
    + [f"m{level}: &m{level} {{!!merge <<: [*m{level - 1}, *m{level - 1}, *m{level - 1}]}}" for level in range(1, 25)]
)
# Pieces of YAML that mean something, or look so.
SNIPPETS = (
    *("\0", "\t", "\x1b[31m", "\x85", "\u2028", "\ufeff", "\u202e", "\U0001f600", "é", "e\u0301", "\r", "\n", "\n\n"),
    *(
        "&a ",
        "*a",
        "*a ",
        "&a [*a]",
        "<<: *a\n",
        "!!merge <<: {seed: 1}\n",
        "? ",
        "? [a]\n: 1\n",
        "- ",
        ": ",
        ", ",
        "#",
    ),
    *("{", "}", "[", "]", "{}", "[]", "|", ">", ">-", "|\n", '"', "'", "%YAML 3.0\n", "%TAG ! x\n", "---\n", "...\n"),
    *("!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]"),
    *("!!timestamp 2024-01-01", "!!float nan", "!!int x", "!!bool 1", "!!str ", "!!null x", "!x ", "!<tag:x> ", "! "),
    *("1e999", "-1e999", ".inf", "-.Inf", ".nan", "1e-999", "1e308", "-0.0", "9" * 400, "9" * 5000, "1_0", "_", "0x1F"),
    *("0o17", "1:30", "2024-01-01", "yes", "Off", "True", "~", "null", "", " ", "''", '""', '"\\0"', '"\\ud800"'),
    *('"\\x1b[2J"', '"a\\nb"', "${HOME}", "~/x", "../../../etc/passwd", "/dev/zero", "a" * 5000, "é" * 700),
    *("[" * 50, "{a: " * 50, "[" * 3000, "- " * 500, "9" * 30_000 + "x", f"\n{_BOMB}\n", f"\n{_MERGE_BOMB}\n"),
    *("base: run.yaml\n", "base: .\n", "kind: idx\n", "name: a/b\n", 'name: "a\\0b"\n', "seed: 1\nseed: 2\n"),
)
# Values for which nobody has asked there.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.5, 1.0, 0.0, -0.0, 1e-320, 1e-30, 1e30, 1e308, -1e308, 10**6),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -(2**63), 10**19, 10**400, float("inf"), float("nan")),
    *("", " ", "a", "null", "1", "true", "1e3", "é", "\U0001f600", "a\nb", "\x1b[31m", "a\0b", "\u2028", "x" * 3000),
    *(
        "../..",
        "/",
        "~",
        "$HOME",
        "kind",
        "adam",
        "resnet18",
        "lenet5",
        "vgg_a",
        "timm/resnet50",
        "idx",
        "*",
        "!*",
        "[",
    ),
    *([], [1], [0.5, 0.5], [0.5, 0.5, 0.5], ["a"], [None], [[]], [1, "a", None], {}, {"a": 1}, {"kind": "idx"}),
    *({"kind": None}, {"kind": [1]}, {"steps": 1}, {"epochs": 1e300}, {"examples": 10**30}, {"steps": 10**30}),
    *({"": 1}, {"a.b": 1}, {"a\nb": {"c": 1}}, {"name": "x"}, {"args": {}}, {"below": 0}, {"start": 1, "stop": 2}),
)


def mutate_bytes(random: random.Random, content: bytes) -> bytes:
    """A file's content after one to four accidents."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        content = random.choice(_ACCIDENTS)(random, content)
    return content


def mutate_text(random: random.Random, text: str) -> bytes:
    """A text's bytes after one to three changes: of whole lines, with pieces of YAML, or as of any bytes."""
    for _ in range(random.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        line = random.randrange(len(lines))
        change = random.randrange(7)
        if change == 0:
            place = _place(random, text)
            text = text[:place] + random.choice(SNIPPETS) + text[place:]
        elif change == 1:
            key = lines[line].partition(":")[0]
            lines[line] = f"{key}: {random.choice(SNIPPETS)}"
            text = "\n".join(lines)
        elif change == 2:
            lines.insert(random.randrange(len(lines) + 1), lines[line])
            text = "\n".join(lines)
        elif change == 3:
            del lines[line]
            text = "\n".join(lines)
        elif change == 4:
            lines[line] = (
                random.choice(("  ", "\t", " ")) + lines[line] if random.random() < 0.5 else lines[line].strip()
            )
            text = "\n".join(lines)
        elif change == 5:
            other = random.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
            text = "\n".join(lines)
        else:
            return mutate_bytes(random, text.encode("utf-8", "surrogatepass"))
    return text.encode("utf-8", "surrogatepass")


def mutate_tree(random: random.Random, tree: Any) -> Any:
    """A copy of a tree of mappings, lists and values, after one to three changes."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.choice((1, 1, 2, 3))):
        holders = [each for each in _containers(tree) if each]
        if not holders:
            return random.choice(VALUES)
        holder = random.choice(holders)
        key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        _CHANGES[random.randrange(len(_CHANGES))](random, tree, holder, key)
    return tree


def mutate_word(random: random.Random, word: str) -> str:
    """A name with something wrong."""
    place = _place(random, word)
    return random.choice(
        (word[:place] + word[place + 1 :], word[:place] + random.choice("aZ0_.- é\n\0=") + word[place:], word.upper(),
         word * 2, word * 400, "", word[::-1])
    )  # fmt: skip


def _containers(tree: Any) -> list[Any]:
    found, waiting = [], [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list):
            found.append(each)
            waiting += each.values() if isinstance(each, dict) else each
    return found


def _replace(random: random.Random, tree: Any, holder: Any, key: Any) -> None:
    holder[key] = random.choice(VALUES)


def _scale(random: random.Random, tree: Any, holder: Any, key: Any) -> None:
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = random.choice((-value, value + 1, value - 1, value * 1000, value / 7, float(value), str(value)))
    else:
        _replace(random, tree, holder, key)


def _delete(random: random.Random, tree: Any, holder: Any, key: Any) -> None:
    del holder[key]


def _wrap(random: random.Random, tree: Any, holder: Any, key: Any) -> None:
    holder[key] = random.choice(([holder[key]], {"a": holder[key]}, {"kind": holder[key]}, [holder[key]] * 3))


def _rename(random: random.Random, tree: Any, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[mutate_word(random, key)] = holder.pop(key)
    else:
        holder.append(holder[key])


def _move(random: random.Random, tree: Any, holder: Any, key: Any) -> None:
    """Copies one part over another, of whatever type."""
    other = random.choice([each for each in _containers(tree) if each])
    place = random.choice(list(other) if isinstance(other, dict) else range(len(other)))
    other[place] = json.loads(json.dumps(holder[key]))


def _nest(random: random.Random, tree: Any, holder: Any, key: Any) -> None:
    for _ in range(random.choice((3, 60, 250))):
        holder[key] = [holder[key]] if random.random() < 0.5 else {"a": holder[key]}


_CHANGES = (_replace, _replace, _replace, _scale, _scale, _delete, _wrap, _rename, _move, _nest)


def _place(random: random.Random, content: bytes | str) -> int:
    return random.randrange(len(content) + 1)


def _span(random: random.Random, content: bytes) -> tuple[int, int]:
    start = _place(random, content)
    return start, min(len(content), start + random.choice((1, 2, 4, 9, 40, 300)))


def _flip_a_bit(random: random.Random, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _flip_an_early_bit(random: random.Random, content: bytes) -> bytes:
    return _flip_a_bit(random, content[:48]) + content[48:]


def _write_a_number(random: random.Random, content: bytes) -> bytes:
    size = random.choice((1, 2, 4))
    number = random.choice(_WHOLE_NUMBERS) % (1 << 8 * size)
    place = _place(random, content[: random.choice((32, 200, 1 << 30))])
    return content[:place] + number.to_bytes(size, random.choice(("big", "little"))) + content[place + size :]


def _delete_some(random: random.Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    return content[:start] + content[stop:]


def _insert_some(random: random.Random, content: bytes) -> bytes:
    place = _place(random, content)
    return content[:place] + random.randbytes(random.choice((1, 2, 7, 100))) + content[place:]


def _repeat_some(random: random.Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    return content[:stop] + content[start:stop] * random.choice((1, 1, 3, 50)) + content[stop:]


def _blank_some(random: random.Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    return content[:start] + random.choice((b"\0", b"\xff", b" ")) * (stop - start) + content[stop:]


def _swap_some(random: random.Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    place = random.randrange(max(1, start))
    return content[:place] + content[start:stop] + content[place:start] + content[stop:]


def _cut_off(random: random.Random, content: bytes) -> bytes:
    return content[: _place(random, content)]


def _begin_later(random: random.Random, content: bytes) -> bytes:
    return content[_place(random, content[:64]) :]


def _append(random: random.Random, content: bytes) -> bytes:
    return content + random.choice((b"\0", b"x" * 9, content, content[:20]))


_ACCIDENTS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_flip_a_bit, _flip_a_bit, _flip_an_early_bit, _flip_an_early_bit, _write_a_number, _write_a_number),
    *(_delete_some, _insert_some, _repeat_some, _blank_some, _swap_some, _cut_off, _cut_off, _begin_later, _append),
)
