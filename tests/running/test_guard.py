"""Scripts that call for workers: with and without a guard, from a file and from other places."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = 'if __name__ == "__main__":'
SCRIPT = """
import offrl
with open("lines.txt", "a") as file:
    file.write("run\\n")
"""
CALL = 'offrl.train("bc", "pointmaze-quickstart", "runs", steps=2, evaluate_every=2, episodes=1)'
CHECK = "from offrl.running.guard import check_guard as check"


def python(folder: Path, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Runs it as users do: the script's folder is on the path, which tox leaves out."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("way", ["file", "module", "function", "stdin"])
def test_a_script_without_a_guard_ends_in_one_error_and_runs_once(way: str, tmp_path: Path) -> None:
    call = CALL
    if way == "function":
        call = f"def main():\n    {CALL}\nmain()"
    (tmp_path / "plain.py").write_text(SCRIPT + call)
    words = {"stdin": ["-"], "module": ["-m", "plain"]}.get(way, ["plain.py"])
    done = python(tmp_path, *words, stdin=SCRIPT + call if way == "stdin" else "")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if re.match(r"\S*Error: ", line)]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("offrl.errors.InputError: ")
    assert f"put the call under `{GUARD}`" in errors[0]
    assert ("save it to a file" in errors[0]) == (way == "stdin")
    assert (tmp_path / "lines.txt").read_text() == "run\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "text",
    [
        f"{CHECK}\n{GUARD}\n    check()",
        f"{CHECK}\ndef main():\n    check()\n{GUARD}\n    print('x')\n    main()",
        f"{CHECK}\nif '__main__' == __name__ and True:\n    for _ in range(2):\n        check()",
        f"{CHECK}\ntry:\n    {GUARD}\n        check()\nfinally:\n    pass",
        f"{CHECK}\nimport multiprocessing as m\nif m.parent_process() is None:\n    check()",
    ],
)
def test_a_guard_of_any_form_is_seen(text: str, tmp_path: Path) -> None:
    (tmp_path / "guarded.py").write_text(text)
    done = python(tmp_path, "guarded.py")
    assert done.returncode == 0, done.stderr


def test_a_condition_of_another_kind_is_no_guard(tmp_path: Path) -> None:
    (tmp_path / "open.py").write_text(f"{CHECK}\nif True:\n    check()")
    assert "line 3: starts workers" in python(tmp_path, "open.py").stderr


def test_where_there_is_no_script_nothing_has_to_be_guarded(tmp_path: Path) -> None:
    assert python(tmp_path, "-c", f"{CHECK}; check()").returncode == 0
    console = python(tmp_path, "-i", stdin=f"{CHECK}\ncheck() or print('went well')\n")
    assert "went well" in console.stdout


def test_a_guarded_script_trains(tmp_path: Path) -> None:
    (tmp_path / "guarded.py").write_text(f"{SCRIPT}\n{GUARD}\n    print({CALL}[0].status)")
    done = python(tmp_path, "guarded.py")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_module_of_run_is_found_where_scripts_look_for_it() -> None:
    import offrl
    from offrl import runner

    assert runner.run is offrl.run
