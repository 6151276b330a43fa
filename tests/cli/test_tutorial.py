"""The tutorial's blocks, as they stand on the page: with small numbers, and every night in full."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Call
from made_runs import write_runs

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SMALL = {"--steps": "4", "--every": "4", "--episodes": "1"}


def blocks() -> list[tuple[str, str, list[str]]]:
    """Language, file and lines of each block, in the order of the page."""
    found = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    return [(language, file, text.splitlines()) for language, file, text in found]


def edit(language: str, file: Path, lines: list[str]) -> None:
    """Makes the changes that a block shows: removed and added lines, or keys with new values."""
    text = file.read_text()
    if language == "toml":
        for line in lines:
            key = re.escape(line.partition(" = ")[0])
            text, count = re.subn(rf"^{key} = .*$", line, text, flags=re.M)
            assert count == 1, line
    else:
        hunks = re.findall(r"^-(.*\n)(?:\+(.*\n))?", "\n".join([*lines, ""]), re.M)
        assert len(hunks) > 1
        for old, new in hunks:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
    file.write_text(text)


def test_the_tutorial_with_small_numbers(call: Call, tmp_path: Path) -> None:
    """The board takes whole runs alone, of which made ones stand for those of the algorithm."""
    write_runs(tmp_path / "made", "bc")
    codes = []
    for language, file, lines in blocks():
        if language != "bash":
            edit(language, tmp_path / file, lines)
            continue
        for line in lines:
            words = [word for w in shlex.split(line)[1:] for word in expanded(w, tmp_path)]
            if words[0] == "check":
                continue  # test_learners.py does
            done = call(*reduced(words))
            codes.append(done.code)
            assert done.code in (0, 2), done
    assert codes == [0, 0, 0, 0, 0, 2, 0, 0, 0]  # 2 where the draft is written
    assert "My method" in (tmp_path / "site" / "protocols" / "quickstart-4.html").read_text()
    page = (tmp_path / "report" / "index.html").read_text()
    assert "my_algo" in page
    assert "(q > v)" in (tmp_path / "my_algo.py").read_text()


def expanded(word: str, folder: Path) -> list[str]:
    """What the shell makes of a pattern."""
    return [str(p) for p in folder.glob(word)] if "*" in word else [word]


def reduced(words: list[str]) -> list[str]:
    """A command of the page with small numbers."""
    if words[0] == "run":
        words = [*words, "--seed", "0", *(word for pair in SMALL.items() for word in pair)]
    elif words[0] == "train":
        words = [SMALL.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    elif words[0] == "report":
        words = [*words, "--reps", "100"]
    elif words[:2] == ["leaderboard", "submit"]:
        words = [{"runs": "made", "my_algo": "bc"}.get(word, word) for word in words]
    return words


@pytest.mark.nightly
def test_the_tutorial_as_it_stands(tmp_path: Path) -> None:
    """In a shell, from an empty folder, in the time that the page names."""
    begun = time.monotonic()
    folder, shims = tmp_path / "empty", tmp_path / "bin"
    folder.mkdir()
    shims.mkdir()
    (shims / "offrl").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m offrl "$@"\n')
    (shims / "offrl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
    environment["OFFRL_CACHE"] = str(tmp_path / "cache")
    for language, file, lines in blocks():
        if language != "bash":
            edit(language, folder / file, lines)
            continue
        for line in lines:
            drafts = "submit" in line and not (folder / "submission.toml").exists()
            done = subprocess.run(
                ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == (2 if drafts else 0), f"{line}\n{done.stdout}{done.stderr}"
    assert "My method" in (folder / "site" / "protocols" / "quickstart-4.html").read_text()
    assert (folder / "report" / "index.html").is_file()
    assert time.monotonic() - begun < 30 * 60
