"""Random changes of bytes, of text, and of what stands at a path."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

# What programs trip over: numbers, nesting, names, controls, escapes and paths.
WORDS = [
    *(b"0", b"-1", b"1.5", b"1e400", b"-1e308", b"1e200", b"1e-320", b"nan", b"-inf", b"1_000"),
    *(b"9223372036854775808", b"18446744073709551616", b"9" * 5000, b"0x1F", b"1,5", b"007"),
    *(b"true", b"false", b"null", b"None", b'""', b"''", b"[]", b"{}", b"[[]]", b"[1, 2]"),
    *(b"[" * 3000, b'{"a":' * 3000, b"{a=" * 2000, b'"' * 3, b"x" * 3000, b"1979-05-27"),
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"\r", b"\n", b"\t", b" ", b"\\", b'"'),
    *("\u202e".encode(), "\u00e9".encode(), "e\u0301".encode(), "算法".encode(), b"\xed\xa0\x80"),
    *(b'"\\ud800"', b'"\\u0000"', b"\\x00", b"[/b]", b"=1+1", b"@a", b"<b>", b"$x^{2$", b"{{7*7}}"),
    *(b"..", b".", b"/", b"/dev/zero", b"~nosuchuser/x", b"../x", b"pipe", b"CON", b"a/b", b"a\\b"),
    *(b";", b",", b"=", b"#", b"[", b"]", b"{", b"}", b":", b"card [1].toml", b"*", b"?"),
]
TOKEN = re.compile(rb"[A-Za-z0-9_.+-]+")

Change = Callable[[bytes, Random], bytes]


def _place(data: bytes, random: Random) -> tuple[int, int]:
    """A random stretch, mostly a short one."""
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice([1, 2, 4, 16, 64, 512]))


def flip(data: bytes, random: Random) -> bytes:
    """One to eight flipped bits."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8]) if data else 0):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, random: Random) -> bytes:
    """A stretch of zeros, ones or garbage in place of what stood there."""
    start, end = _place(data, random)
    size = end - start
    filling = random.choice([b"\0" * size, b"\xff" * size, random.randbytes(size)])
    return data[:start] + filling + data[end:]


def delete(data: bytes, random: Random) -> bytes:
    """A stretch less."""
    start, end = _place(data, random)
    return data[:start] + data[end:]


def duplicate(data: bytes, random: Random) -> bytes:
    """A stretch twice."""
    start, end = _place(data, random)
    return data[:end] + data[start:end] + data[end:]


def insert(data: bytes, random: Random) -> bytes:
    """A word or garbage anywhere."""
    start, _ = _place(data, random)
    added = random.choice([random.choice(WORDS), random.randbytes(random.choice([1, 4, 64]))])
    return data[:start] + added + data[start:]


def cut(data: bytes, random: Random) -> bytes:
    """The beginning alone, or all but the last byte."""
    return data[: random.choice([0, len(data) - 1, random.randrange(len(data) + 1)])]


def extend(data: bytes, random: Random) -> bytes:
    """More behind the end."""
    return data + random.choice([b"\n", b"\0", data, random.randbytes(64), random.choice(WORDS)])


def swap(data: bytes, random: Random) -> bytes:
    """Two stretches in each other's place."""
    (a, b), (c, d) = sorted([_place(data, random), _place(data, random)])
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def replace_token(data: bytes, random: Random) -> bytes:
    """A word, or another of the file's own, in place of a number or a name."""
    tokens = list(TOKEN.finditer(data))
    if not tokens:
        return insert(data, random)
    token = random.choice(tokens)
    word = random.choice([random.choice(WORDS), random.choice(tokens)[0]])
    return data[: token.start()] + word + data[token.end() :]


def replace_line(data: bytes, random: Random) -> bytes:
    """A line left out, twice, or in the place of another."""
    lines = data.split(b"\n")
    place = random.randrange(len(lines))
    lines[place : place + 1] = random.choice(
        [[], [lines[place]] * 2, [random.choice(lines)], [lines[place], random.choice(WORDS)]]
    )
    return b"\n".join(lines)


BYTES: list[Change] = [flip, flip, overwrite, delete, duplicate, insert, cut, extend, swap]
TEXT: list[Change] = [*BYTES, *[replace_token] * 8, *[replace_line] * 3]


def mutate(data: bytes, random: Random, changes: list[Change]) -> bytes:
    """One to four of the changes, one after another."""
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        data = random.choice(changes)(data, random)
    return data


def mutate_file(path: Path, random: Random, changes: list[Change] = BYTES) -> None:
    """The same of a file."""
    path.write_bytes(mutate(path.read_bytes(), random, changes))


def mutate_json(text: bytes, random: Random) -> bytes:
    """A value somewhere inside of JSON replaced by one of another kind, or its key."""
    value = json.loads(text)
    odd: list[Any] = [
        None,
        True,
        -1,
        2**64,
        1.5,
        1e308,
        float("nan"),
        "",
        "x",
        "\x00",
        "\ud800",
        [],
        {},
    ]
    odd += [[[]], {"a": {}}, "a/../b", "\x1b[2J", "9" * 4400, [None], ["x"] * 3, 0, "~nosuchuser"]
    spots: list[Any] = []

    def walk(node: object) -> None:
        items = (
            node.items()
            if isinstance(node, dict)
            else enumerate(node)
            if isinstance(node, list)
            else ()
        )
        for key, item in list(items):
            spots.append((node, key))
            walk(item)

    walk(value)
    for _ in range(random.choice([1, 1, 2])):
        node, key = random.choice(spots)
        match random.randrange(4):
            case 0 if isinstance(node, dict):
                node.pop(key, None)
            case 1 if isinstance(node, dict) and key in node:
                node[random.choice(["x", "", "\x00", key + " "])] = node.pop(key)
            case _ if isinstance(node, dict) or key < len(node):
                node[key] = random.choice(odd)
    return json.dumps(value).encode()


def replace_by_oddity(path: Path, random: Random) -> None:
    """Something else at the path: a pipe, a folder, a device, a link, nothing, nothing in it."""
    kind = random.choice(["pipe", "folder", "device", "loop", "dangling", "nothing", "empty"])
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
        case "dangling":
            path.symlink_to("nowhere")
        case "empty":
            path.write_bytes(b"")
