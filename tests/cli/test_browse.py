"""`offrl list` and `offrl show`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import BROKEN, CARD, Call

from offrl import registry
from offrl.learning.learner import find_algorithm


@pytest.mark.parametrize("what", ["datasets", "algorithms", "protocols"])
def test_list(call: Call, what: str) -> None:
    rows = json.loads(call("list", what, "--json").stdout)
    shown = call("list", what)
    assert shown.code == 0
    for row in rows:
        assert row["id"] in shown.stdout
    known = {
        "datasets": {"neorl2-dmsd", "pointmaze-quickstart", "hopper-medium-v2"},
        "algorithms": {"bc", "td3_bc", "iql"},
        "protocols": {"quickstart", "neorl2-dmsd"},
    }
    assert known[what] <= {row["id"] for row in rows}
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_list_has_what_is_scored_and_what_was_measured(
    call: Call, monkeypatch: pytest.MonkeyPatch, unscored: Callable[..., None]
) -> None:
    monkeypatch.setattr(find_algorithm("bc"), "agreement", None)
    monkeypatch.setattr(find_algorithm("iql"), "agreement", "authors 09d7002")
    lines = call("list", "algorithms").stdout.splitlines()
    (bc,) = (line for line in lines if line.startswith(" bc "))
    (iql,) = (line for line in lines if line.startswith(" iql "))
    assert "not measured" in bc
    assert "authors 09d7002" in iql
    assert "not measured" in call("show", "bc").stdout
    listed = {row["id"]: row for row in json.loads(call("list", "datasets", "--json").stdout)}
    assert listed["door-human-v1"]["scored"] is True
    assert listed["antmaze-umaze-v2"]["scored"] is True
    unscored("antmaze-umaze-v2")
    listed = {row["id"]: row for row in json.loads(call("list", "datasets", "--json").stdout)}
    assert listed["antmaze-umaze-v2"]["scored"] is False
    lines = call("list", "datasets").stdout.splitlines()
    (maze,) = (line for line in lines if line.startswith(" antmaze-umaze-v2 "))
    assert maze.split()[-1] == "no"


def test_list_chooses_data_sets(call: Call) -> None:
    def ids(*words: str) -> set[str]:
        return {row["id"] for row in json.loads(call("list", "datasets", "--json", *words).stdout)}

    everything, neorl2 = ids(), ids("--family", "neorl2")
    assert {"neorl2-dmsd", "neorl2-fusion"} <= neorl2
    assert all(name.startswith("neorl2-") for name in neorl2)
    assert "neorl2-fusion" not in ids("--scored")
    assert ids("--scored", "--family", "neorl2") == neorl2 & ids("--scored")
    assert ids("--search", "ANT maze LARGE", "--family", "d4rl") < everything
    assert "antmaze-large-play-v2" in ids("--search", "ANT maze LARGE")
    assert "maze2d-large-v1" not in ids("--search", "ANT maze LARGE", "--scored")
    assert call("list", "datasets", "--search", "zzzz", "--json").stdout == "[]\n"
    none = call("list", "datasets", "--search", "zzzz")
    assert none.stdout == "no datasets of offrl's fit; offrl list datasets shows all\n"
    wrong = call("list", "datasets", "--family", "neorl")
    assert wrong.code == 2
    assert "unknown family 'neorl'; did you mean 'neorl2'?" in wrong.stderr
    other = call("list", "algorithms", "--scored")
    assert other.code == 2
    assert "--family, --scored and --search choose among datasets" in other.stderr


def test_a_card_is_shown_whole(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    lines = call("show", "neorl2-simglucose").stdout.splitlines()
    assert lines[0] == "neorl2-simglucose v1"
    parts = [line for line in lines[1:] if not line.startswith(" ")]
    assert parts == ["data", "scores", "notes", "known faults", "licence", "citation"]
    words = " ".join(" ".join(lines).split())
    mirror = "https://huggingface.co/datasets/polixirai/NeoRL2/resolve/main/Simglucose/"
    assert f"mirror {mirror}Simglucose-train.npz" in words  # on one line, to be copied
    assert "Simglucose-train.npz (MD5 6195a3634379f576958440b7e0c8fc53)" in words
    assert "transitions 100,257, episodes 280, mean return 353.452" in words
    assert "validation: transitions 20,018, episodes 62" in words
    assert "offrl/Simglucose-v0, 480 steps" in words
    assert "0 is a return of 9.75, 100 one of 475.0: NeoRL-2" in words
    assert "known faults none noted" in words
    fusion = " ".join(call("show", "neorl2-fusion").stdout.split())
    assert "no environment: a policy cannot be scored" in fusion
    words = " ".join(call("show", "antmaze-umaze-v2").stdout.split())
    assert "AntMazeUMaze-v2, 700 steps" in words
    assert "valid with mujoco >=3.1.6,<3.5 (" in words
    assert "transitions not known, episodes not known, mean return not known" in words
    words = " ".join(call("show", "pointmaze-quickstart").stdout.split())
    assert "made on your machine by pointmaze: offrl data make pointmaze-quickstart" in words
    assert "versions of the simulator in which scores are valid: not known" in words
    rooms = " ".join(call("show", "minari-fourrooms-v0").stdout.split())
    assert "7 discrete actions: left, right, forward, pickup, drop, toggle, done" in rooms
    assert "minari:D4RL/door/human-v2" in call("show", "minari-door-human-v2").stdout


VARIED = """
id = "varied"
version = 1
title = "Two settings"
source = "offrl"
datasets = ["hopper-medium-v2", "hopper-expert-v2", "pen-human-v1", "antmaze-umaze-v2"]
seeds = [3, 1]
steps = 1000
[evaluation]
every = 100
episodes = 10
[algorithms.slow]
algorithm = "td3_bc"
[[algorithms.slow.on]]
datasets = ["hopper-*"]
config = { alpha = 1.25 }
[[algorithms.slow.on]]
datasets = ["pen-*"]
episodes = 7
config = { alpha = 3.0, actor_hidden = [16, 16] }
[algorithms.bc]
datasets = ["pen-*"]
"""


def test_show_prints_what_data_sets_share_and_a_row_per_distinct_setting(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unscored: Callable[..., None]
) -> None:
    unscored("antmaze-umaze-v2")
    (tmp_path / "varied.toml").write_text(VARIED)
    monkeypatch.setenv("COLUMNS", "140")
    wide = call("show", "varied.toml").stdout
    words = [line.split() for line in wide.splitlines()]
    assert "slow (td3_bc) on all data sets" in wide
    assert "steps 1,000, every 100, actor_lr 0.0003" in wide
    assert ["data", "sets", "episodes", "alpha", "actor_hidden"] in words
    assert ["hopper-*", "10", "1.25", "[256,", "256]"] in words
    assert ["pen-human-v1", "7", "3", "[16,", "16]"] in words
    assert ["antmaze-umaze-v2", "10", "2.5", "[256,", "256]"] in words
    assert "bc on pen-human-v1" in wide
    assert ["without", "a", "simulator", "antmaze-umaze-v2"] in words
    assert ["seeds", "3,", "1"] in words
    assert ["runs", "10"] in words  # four sets and one, two seeds each
    monkeypatch.setenv("COLUMNS", "50")
    narrow = call("show", "varied.toml").stdout
    assert max(map(len, narrow.splitlines())) <= 50
    words = [line.split() for line in narrow.splitlines()]
    usual = "unless said below, episodes 10, alpha 1.25, actor_hidden [256, 256]"
    assert usual in " ".join(narrow.split())
    assert ["hopper-*", "as", "above"] in words
    assert ["antmaze-umaze-v2", "alpha", "2.5"] in words


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("iql", {"algorithm"}, ["config.expectile", "0.7", "    L_V  = mean L2_tau("]),
        ("quickstart", {"protocol"}, ["bc on pointmaze-quickstart", "episodes 50", "alpha 2.5"]),
        (
            "hopper-medium-v2",
            {"dataset"},
            ["100 one of 3234.3: d4rl/infos.py", "mean return 1422.056"],
        ),
        ("neorl2-dmsd", {"protocol", "dataset"}, ["7, 42, 210", "849.51"]),
        ("tiny.toml", {"protocol"}, ["batch_size 4"]),
        ("card.toml", {"dataset"}, ["PointMaze_UMaze-v3, 20 steps", "checksum not known"]),
        ("broken.py", {"algorithm"}, ["config.batch_size"]),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_show(call: Call, tmp_path: Path, name: str, kinds: set[str], words: list[str]) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    assert set(json.loads(call("show", name, "--json").stdout)) == kinds
    shown = call("show", name)
    assert shown.code == 0
    for word in words:
        assert word in shown.stdout


DOCUMENTED = BROKEN.replace(
    "import dataclasses",
    '''"""Mine: an algorithm that nobody needs, with a title of just so many words.

A paragraph of two lines, the first of which is longer than a narrow terminal has room for,
and the second is short:
    L = (x - y)^2                                  (eq. 1)
    L2 = mean log(alpha) (log pi(a|s) + H_t) - mean (alpha log pi(a|s) - min_i Q_i(s, a))
and it goes on.

Known differences:
1. One.
2. Another, whose words fill more than one line of the terminal, and which carries on
   in the next.
"""
import dataclasses''',
    1,
)


def test_show_fills_paragraphs_and_keeps_equations(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(DOCUMENTED)
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("show", "mine.py").stdout.splitlines()
    assert max(map(len, lines)) <= 60
    start = lines.index("A paragraph of two lines, the first of which is longer than")
    assert lines[start + 1 :] == [
        "a narrow terminal has room for, and the second is short:",
        "    L = (x - y)^2                                  (eq. 1)",
        "    L2 = mean log(alpha) (log pi(a|s) + H_t) - mean (alpha",
        "        log pi(a|s) - min_i Q_i(s, a))",
        "and it goes on.",
        "",
        "Known differences:",
        "1. One.",
        "2. Another, whose words fill more than one line of the",
        "   terminal, and which carries on in the next.",
    ]
    monkeypatch.setenv("COLUMNS", "200")
    lines = call("show", "mine.py").stdout.splitlines()
    assert any(line.endswith("has room for, and the") for line in lines)  # 99 characters
    (tmp_path / "bare.py").write_text(BROKEN)
    assert call("show", "bare.py").code == 0


@pytest.mark.parametrize("width", [80, 60])
def test_show_of_an_algorithm_fits_the_terminal(
    call: Call, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for name in registry.modules("algorithms"):
        assert max(map(len, call("show", name).stdout.splitlines())) <= width, name


def test_a_card_of_a_stranger_is_shown_as_text(call: Call, tmp_path: Path) -> None:
    card = CARD.replace('title = "mine"', r'title = "\u001b[2J[/b] [link=x]:x:"')
    (tmp_path / "c.toml").write_text(card.replace('"good.npz"', '"[/b].npz"'))
    shown = call("show", "c.toml")
    assert shown.code == 0
    assert r"\x1b[2J[/b] [link=x]:x:" in shown.stdout
    assert "[/b].npz" in "".join(shown.stdout.split())  # a long path goes over two lines
    assert "\x1b" not in shown.stdout
    forged = card.replace('"good.npz"', '"a.npz", urls = ["http://x\\nknown faults"]')
    (tmp_path / "c.toml").write_text(forged)
    lines = call("show", "c.toml").stdout.splitlines()
    assert "    from http://x known faults" in lines
    assert lines.count("known faults") == 1
