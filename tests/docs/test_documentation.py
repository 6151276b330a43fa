"""What the documentation says runs: its Python, its commands, its notebooks."""

import ast
import contextlib
import inspect
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

import offrl
from offrl.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
# After the language of a block that is only compiled: it needs data, hours or a cluster.
NOT_RUN = "norun"
UsageError: Any = typer.BadParameter.__mro__[1]  # which Typer does not export


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `info` is what stands after the language on its first line."""

    line: int
    language: str
    info: str
    lines: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code of a page, in its order."""
    start: tuple[int, str, str] | None = None
    held: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            held.append(line)
        elif start is None:
            language, _, info = line[3:].partition(" ")
            start, held = (number, language, info), []
        else:
            yield Block(*start, tuple(held))
            start = None
    assert start is None, f"{page}: the block of line {start} does not end"


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", paths, ids=lambda path: str(path.relative_to(ROOT)))


def python(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that holds the scores which pages read."""
    monkeypatch.chdir(tmp_path)
    rows = [(a, d, s, (i + s) / 9) for i, a in enumerate("abc") for d in "xy" for s in range(3)]
    frame = pd.DataFrame(rows, columns=["algorithm", "dataset", "seed", "score"])
    frame.replace({"a": "iql"}).to_csv("scores.csv", index=False)
    return tmp_path


@named([page for page in PAGES if python(page)])
@pytest.mark.usefixtures("workplace")
def test_python_runs(page: Path) -> None:
    """The blocks of a page, one after the other, as a module that another imports."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in python(page):
        where = f"{page}:{block.line}"
        code = compile("\n" * block.line + "\n".join(block.lines), where, "exec")
        assert block.info in ("", NOT_RUN), f"{where}: {block.info!r}"
        if block.info != NOT_RUN:
            exec(code, names)


@named([page for page in PAGES if python(page)])
def test_python_names_what_is_there(page: Path) -> None:
    """In blocks that are not run, and where a script would start runs: names and keywords."""
    for block in python(page):
        for node in ast.walk(ast.parse("\n".join(block.lines))):
            called = node.func if isinstance(node, ast.Call) else node
            path = ast.unparse(called) if isinstance(called, ast.Attribute) else ""
            if re.fullmatch(r"offrl(\.\w+)+", path):
                value = attrgetter(path.partition(".")[2])(offrl)
                if isinstance(node, ast.Call):
                    names = [keyword.arg for keyword in node.keywords if keyword.arg]
                    inspect.signature(value).bind_partial(**dict.fromkeys(names))


def calls(line: str) -> Iterator[list[str]]:
    """The words of each call of offrl on a line of shell, without what stands before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("|&;<>"):
            words.append(word)
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words[:1] == ["offrl"]:
            yield words[1:]
        words = []


def parse(words: list[str]) -> None:
    """Reads a call as the command line does, and carries nothing out. Raises UsageError."""
    command: Any = typer.main.get_command(app)
    name = "offrl"
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            options = {option for parameter in command.params for option in parameter.opts}
            assert {*words} <= {*options, "--help", "-h"}, words
            return
        name, *words = words
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    command.make_context(name, words)


def shell(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The calls in blocks without a language or of bash."""
    for block in blocks(page):
        if block.language in ("", "bash", "sh"):
            for number, line in enumerate(block.lines, block.line + 1):
                if "offrl" in line:
                    yield from ((number, words) for words in calls(line))


def check(page: Path, number: int, words: list[str], *, whole: bool) -> None:
    """Fails where the command line would not read a call; with ... it is no whole one."""
    given = [word for word in words if word != "..."]
    try:
        parse(given)
    except (UsageError, AssertionError) as error:
        if (whole and given == words) or not str(error).startswith("Missing"):
            pytest.fail(f"{page}:{number}: offrl {' '.join(words)}: {error}")


@named([page for page in PAGES if [*shell(page)]])
def test_commands_are_understood(page: Path) -> None:
    for number, words in shell(page):
        check(page, number, words, whole=True)


def mentions(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The calls in the midst of a text, in backquotes; some are only the beginning of one."""
    in_block = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            in_block = not in_block
        elif not in_block:
            for text in re.findall(r"(?<!`)`(offrl [^`]+)`", line):
                yield from ((number, words) for words in calls(text))


@named([page for page in PAGES if [*mentions(page)]])
def test_commands_in_sentences_are_understood(page: Path) -> None:
    for number, words in mentions(page):
        check(page, number, words, whole=False)


FILE = re.compile(r"`((?:benchmarks|datasets|docs|offrl|protocols|reports|tests)/[\w./-]+\.\w+)`")


def test_files_that_are_named_exist() -> None:
    found = [(page, file) for page in PAGES for file in FILE.findall(page.read_text("utf-8"))]
    assert len(found) > 50
    absent = {(page, file) for page, file in found if not (ROOT / file).exists()}
    assert {(page, file) for page, file in absent if "NAME" not in file} == set()


def printed(source: str, names: dict[str, Any]) -> str:
    """What a cell prints, and the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            if value is not None:
                out.write(repr(value))
    return out.getvalue()


@named(NOTEBOOKS)
@pytest.mark.usefixtures("workplace")
def test_notebooks_run_and_show_what_they_print(page: Path) -> None:
    names: dict[str, Any] = {}
    for number, cell in enumerate(json.loads(page.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            shown = ""
            for output in cell["outputs"]:
                if "image/png" not in output.get("data", {}):
                    shown += "".join(output.get("text") or output["data"]["text/plain"])
            assert printed("".join(cell["source"]), names).rstrip() == shown.rstrip(), number


def test_the_citation_is_of_this_version() -> None:
    """Keys and values as Citation File Format 1.2.0 asks for them, a line each."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    values = dict(re.findall(r"^([\w-]+):\s*(.*)$", text, flags=re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= values.keys()
    assert (values["cff-version"], values["version"]) == ("1.2.0", offrl.__version__)
    assert "- name: The offrl developers" in text


def test_the_readme_begins_with_the_main_job_and_the_tests() -> None:
    """The first two blocks of commands, which `.ci/run` and a newcomer give."""
    job, tests = [b.lines for b in blocks(ROOT / "README.md") if b.language == "bash"][:2]
    assert [line.split()[:2] for line in job[1:]] == [["offrl", "run"], ["offrl", "report"]]
    assert tests[-1] == "python -m tox"
