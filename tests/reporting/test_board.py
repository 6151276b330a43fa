"""Boards: who shares a rank, what stands in the history, and that a site is the same twice."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import write_runs

from offrl import registry
from offrl.errors import InputError
from offrl.reporting import entries
from offrl.reporting.board import Board, read_boards
from offrl.reporting.replaying import Replay, Replayed, replay_path, replay_seed, write_replay
from offrl.reporting.site import build
from offrl.reporting.submission import Submission, submission_text
from offrl.reporting.submission_checks import check_submission
from offrl.reporting.submission_runs import Run
from offrl.results.bundle import pack
from offrl.statistics.resampling import Resampling

FEW = Resampling(200)
Make = Callable[..., str]


@pytest.fixture
def submit(tmp_path: Path) -> Make:
    """Adds a submission to the folder `board`; gives its digest."""

    def make(
        name: str,
        label: str = "td3_bc",
        *,
        authors: Any = ("Us",),
        contact: str | None = None,
        kind: str = "none",
        replaces: str | None = None,
        **options: Any,
    ) -> str:
        root = tmp_path / f"runs-{len([*tmp_path.iterdir()])}"
        write_runs(root, label, **options)
        played = {"settings_tried": 3, "online_episodes": 30} if kind == "online-selection" else {}
        values = {
            "name": name,
            "authors": list(authors),
            "contact": contact or f"{authors[0].encode().hex()}@host.org",
            "code": "https://github.com/us/code",
            "commit": "0123abcd",
            "licence": "MIT",
            "replaces": replaces,
            "tuning": {"kind": kind, "settings_tried": 1, "online_episodes": 0, **played},
            "compute": {"hours": 0.5, "hardware": "one CPU"},
        }
        path = tmp_path / "board" / f"{root.name}.zip"
        pack(root, path, submission=submission_text(Submission.model_validate(values)))
        return check_submission(path).digest

    return make


def board(folder: Path) -> Board:
    (found,) = [b for b in read_boards(folder / "board", resampling=FEW) if b.live or b.history]
    return found


def test_entries_that_are_not_told_apart_share_a_rank(submit: Make, tmp_path: Path) -> None:
    submit("high", "td3_bc", mean=150, draw=1)
    submit("low", "bc", mean=20, draw=2)
    submit("low too", "iql", mean=21, draw=3)
    made = board(tmp_path)
    assert [(line.entry.name, line.rank) for line in made.ranking[:1]] == [("high", 1)]
    assert {(line.entry.name, line.rank) for line in made.ranking[1:]} == {
        ("low", 2),
        ("low too", 2),
    }
    assert [line.letters for line in made.ranking] == ["a", "b", "b"]
    for line in made.ranking:
        scores = sorted(line.entry.scores["pointmaze-quickstart@1"].values())
        assert line.iqm == pytest.approx(np.mean(scores[1:4]))  # of five the middle three
        assert line.low <= line.iqm <= line.high
        assert line.entry.badges == ("checked",)


def test_no_two_entries_share_a_name_or_a_page(submit: Make, tmp_path: Path) -> None:
    first = submit("mine", draw=1)
    submit("mine", "bc", draw=2)
    submit(f"mine (Us, {first[:6]})", "iql", draw=3)
    names = [line.entry.name for line in board(tmp_path).ranking]
    assert sum(name.startswith("mine (Us, ") for name in names) == len({*names}) == 3
    assert f"mine (Us, {first})" in names
    build(tmp_path / "board", tmp_path / "site", resampling=FEW)
    assert len([*(tmp_path / "site" / "submissions").iterdir()]) == 3
    slug = registry.load("reports", "site", "site").slug
    labels = ["bc", "BC", "b c", "b/c", slug("b c"), "", "-", "x" * 90, "x" * 91]
    assert slug("bc") == "bc"
    assert len({slug(label).casefold() for label in labels}) == len(labels)


def test_a_later_submission_replaces_an_earlier_one_and_says_so(
    submit: Make, tmp_path: Path
) -> None:
    first = submit("mine", draw=1)
    submit("other", "bc", draw=2)
    second = submit("mine", draw=3)
    with pytest.raises(InputError, match=r"with an author or the contact in common, is in .*newer"):
        board(tmp_path)
    for path in (tmp_path / "board").glob("*.zip"):
        if check_submission(path).digest == second:
            path.unlink()
    third = submit("mine", draw=3, replaces=first)
    made = board(tmp_path)
    assert {entry.name for entry in made.live} == {"mine", "other"}
    (old,) = made.history
    assert (old.checked.digest, old.ended, old.successor) == (first, "replaced", third)
    (tmp_path / "board" / "withdrawn.toml").write_text(
        f'[[withdrawn]]\ndigest = "{third}"\nreason = "<b>a fault</b> in our code"\n'
    )
    ended = {entry.ended for entry in board(tmp_path).history}
    assert ended == {"replaced", "withdrawn: <b>a fault</b> in our code"}
    for by in ({"authors": ["Them"]}, {"contact": "a-namesake@host.org"}):
        (tmp_path / "board" / "theirs.zip").unlink(missing_ok=True)
        before = {*(tmp_path / "board").glob("*.zip")}
        submit("mine", "iql", draw=9, replaces=third, **by)
        (path,) = {*(tmp_path / "board").glob("*.zip")} - before
        path.rename(tmp_path / "board" / "theirs.zip")
        with pytest.raises(InputError, match="is by others; a submission is replaced by one of"):
            board(tmp_path)


def test_another_group_reproduces_an_entry_or_contradicts_it(submit: Make, tmp_path: Path) -> None:
    def precise(identity: Any, rows: list[Any]) -> None:
        """Scores of 60 and a bit by seed, whatever was drawn."""
        shift = 60 + 0.1 * identity["seed"] - rows[-1]["score"]
        per_point = (138.381 - 8.185) / 100
        rows[-1]["returns"] = [value + shift * per_point for value in rows[-1]["returns"]]
        rows[-1]["return"] = float(np.mean(rows[-1]["returns"]))
        rows[-1]["score"] = (rows[-1]["return"] - 8.185) / per_point

    submit("ours", draw=1, change=precise)
    submit("theirs", draw=2, change=precise, authors=["Them"])
    by_name = {entry.name: entry for entry in board(tmp_path).live}
    assert by_name["ours"].badges == ("checked", "reproduced by others")
    assert [entry.name for entry in by_name["ours"].confirmed] == ["theirs"]
    submit("far off", draw=3, mean=140, authors=["Others"])
    by_name = {entry.name: entry for entry in board(tmp_path).live}
    assert by_name["ours"].badges == ("checked",)
    assert by_name["ours"].doubts == ("scores differ from those of far off",)
    for path in (tmp_path / "board").glob("*.zip"):
        if check_submission(path).submission.name != "ours":  # type: ignore[union-attr]
            path.unlink()

    def shuffled(identity: Any, rows: list[Any]) -> None:
        """The runs of `ours`, each under the next seed and its episodes in another order."""
        precise(identity, rows)
        rows[-1]["returns"] = rows[-1]["returns"][::-1]
        identity["seed"] = (identity["seed"] + 1) % 5
        for row in rows:
            row["seed"] = identity["seed"]

    submit("a copy", draw=1, change=precise, authors=["Copyists"])
    submit("in other order", draw=1, change=shuffled, authors=["Them"])
    made = board(tmp_path)
    assert {entry.badges for entry in made.live} == {("checked",)}
    assert (
        "a copy, in other order, ours: have the same returns, or nearly, and count as one"
        in (made.notes[-1].rpartition(" measurement: a copy")[0])
    )


def test_a_copy_with_some_noise_reproduces_nothing(submit: Make, tmp_path: Path) -> None:
    def noisy(identity: Any, rows: list[Any]) -> None:
        """Other seeds of the returns of `ours`, each a bit off."""
        random = np.random.default_rng(identity["seed"])
        rows[-1]["returns"] = [value + random.choice([-1, 0, 1]) for value in rows[-1]["returns"]]
        rows[-1]["return"] = float(np.mean(rows[-1]["returns"]))
        rows[-1]["score"] = 100 * (rows[-1]["return"] - 8.185) / (138.381 - 8.185)
        identity["seed"] = (identity["seed"] + 1) % 5
        for row in rows:
            row["seed"] = identity["seed"]

    submit("ours", draw=1)
    submit("noisy", draw=1, change=noisy, authors=["Them"])
    made = board(tmp_path)
    assert {entry.badges for entry in made.live} == {("checked",)}
    assert "noisy, ours: have the same returns, or nearly" in made.notes[-1]


@pytest.mark.parametrize(
    "by",
    [
        {"authors": ["\uff55S"]},
        {"authors": ["Us", "A Second"], "contact": "another@host.org"},
        {"authors": ["Nobody"], "contact": "5573@HOST.org"},
    ],
)
def test_a_group_has_one_entry_however_it_is_spelt(
    submit: Make, tmp_path: Path, by: dict[str, Any]
) -> None:
    submit("mine", draw=1)
    submit("mine again", draw=2, **by)
    with pytest.raises(InputError, match="with an author or the contact in common"):
        board(tmp_path)


def test_scores_differ_by_tests_that_are_corrected_for_the_data_sets() -> None:
    """A difference of p = 0.024 is shown alone, and not as one of twenty; one of 1e-3 is."""

    def scores(*shifts: float) -> dict[str, dict[int, float]]:
        return {
            f"d{number}": {seed: level + shift for seed, level in enumerate((30, 50, 70, 30, 70))}
            for number, shift in enumerate(shifts)
        }

    same = [0.0] * 19
    assert entries.verdict_of_others(scores(0), scores(35)) == "differs"
    assert entries.verdict_of_others(scores(0, *same), scores(35, *same)) == ""
    assert entries.verdict_of_others(scores(0, *same), scores(70, *same)) == "differs"
    near = {name: {seed: 50 + seed / 10 for seed in of} for name, of in scores(0, *same).items()}
    assert entries.verdict_of_others(near, near) == "reproduced"
    assert entries.verdict_of_others(near, {"d0": near["d0"]}) == ""
    level = {"d0": {0: 50.0, 1: 50.0}}
    assert entries.verdict_of_others(level, {"d0": {0: 90.0, 1: 90.0}}) == "differs"


@pytest.mark.parametrize(("shift", "holds"), [(0.0, True), (40.0, False)])
def test_a_replay_agrees_or_does_not(
    submit: Make, tmp_path: Path, shift: float, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = submit("mine", draw=1)
    (path,) = (tmp_path / "board").glob("*.zip")

    def returns(run: Run) -> list[float]:
        random = np.random.default_rng(run.identity.seed)
        return [v + shift for v in random.permutation(run.rows[-1].returns).tolist()]

    runs = [
        Replayed(dataset=run.identity.dataset, seed=run.identity.seed, returns=returns(run))
        for run in check_submission(path).runs
    ]
    write_replay(Replay(digest=digest, commit="abcdef0", runs=runs), replay_path(path))
    with pytest.raises(InputError, match="its bundle has no weights, so nothing can be replayed"):
        board(tmp_path)
    weighed = replace(check_submission(path), has_weights=True)
    monkeypatch.setattr(entries, "check_submission", lambda *_, **_options: weighed)
    (entry,) = board(tmp_path).live
    assert ("re-evaluated" in entry.badges) is holds
    assert bool(entry.doubts) is not holds
    moved = [  # two runs, so that the mean over seeds is the same
        run.model_copy(update={"returns": [v + by for v in run.returns]})
        for run, by in zip(runs, (100, 0, -100, 0, 0), strict=True)
    ]
    write_replay(Replay(digest=digest, commit="abcdef0", runs=moved), replay_path(path))
    (entry,) = board(tmp_path).live
    (agreed,) = entry.replayed
    assert (agreed.errors <= 4) is holds
    assert {0, 2} <= {*agreed.apart}
    assert "re-evaluated" not in entry.badges
    assert "seed 0, 2" in entry.doubts[0] or not holds
    write_replay(Replay(digest="0" * 64, commit="abcdef0", runs=runs), replay_path(path))
    with pytest.raises(InputError, match="is of another bundle"):
        board(tmp_path)
    assert replay_seed(digest, "abcdef0") != replay_seed(digest, "abcdef1")


@pytest.mark.parametrize("version", ["0", "03", "\u00b2", "5"])
def test_no_board_is_of_a_version_that_never_was(
    submit: Make, tmp_path: Path, version: str
) -> None:
    def other(identity: Any, rows: list[Any]) -> None:
        for each in (identity, *rows):
            each["protocol"] = f"quickstart@{version}"

    submit("odd", draw=1, change=other)
    with pytest.raises(InputError, match="quickstart"):
        read_boards(tmp_path / "board", resampling=FEW)


def test_a_new_version_of_a_protocol_has_a_board_of_its_own(submit: Make, tmp_path: Path) -> None:
    def earlier(identity: Any, rows: list[Any]) -> None:
        for each in (identity, *rows):
            each["protocol"] = "quickstart@3"

    submit("now", draw=1)
    submit("then", draw=2, change=earlier)
    boards = [b for b in read_boards(tmp_path / "board", resampling=FEW) if b.live]
    assert [(b.name, b.newest, [e.name for e in b.live]) for b in boards] == [
        ("quickstart@4", 4, ["now"]),
        ("quickstart@3", 4, ["then"]),
    ]
    build(tmp_path / "board", tmp_path / "site", resampling=FEW)
    old = (tmp_path / "site" / "protocols" / "quickstart-3.html").read_text()
    assert "This board is frozen" in old
    assert 'href="quickstart-4.html"' in old
    assert "quickstart-3.html" in (tmp_path / "site/protocols/quickstart-4.html").read_text()


def test_a_board_stays_where_protocols_and_cards_go_on(submit: Make, tmp_path: Path) -> None:
    """The protocol had one data set then, whose simulator was another in its first version."""

    def earlier(identity: Any, rows: list[Any], version: int = 1) -> None:
        for each in (identity, *rows):
            each.update(protocol="corl@1", dataset=f"hopper-medium-v2@{version}")
        if version == 1:
            identity["environment"]["id"] = "Hopper-v2"
            for row in rows:
                row["environment"] = "Hopper-v2"
                row["simulator"]["mujoco"] = "2.0"

    def later(identity: Any, rows: list[Any]) -> None:
        earlier(identity, rows, version=2)

    def contradicted(identity: Any, rows: list[Any]) -> None:
        earlier(identity, rows)
        rows[-1]["environment"] = "Hopper-v3"

    files: Any = {"protocol": "corl", "dataset": "hopper-medium-v2", "seeds": [0, 1, 2, 3]}
    submit("a", "iql", **files, draw=1, change=earlier)
    submit("b", "td3_bc", **files, draw=2, change=earlier)
    made = board(tmp_path)
    assert {line.entry.name for line in made.ranking} == {"a", "b"}
    assert made.datasets == ("hopper-medium-v2@1",)
    assert any("hopper-medium-v2@1: is an earlier version of the data" in n for n in made.notes)
    submit("c", "cql", **files, draw=3, change=later)
    made = board(tmp_path)
    assert [line.entry.name for line in made.ranking] == ["c"]
    assert {entry.unranked for entry in made.unranked} == {
        "ran on hopper-medium-v2@1, of which others ran on a later version"
    }
    build(tmp_path / "board", tmp_path / "site", resampling=FEW)
    submit("d", "bc", **files, draw=4, change=contradicted)
    with pytest.raises(InputError, match="played in 'Hopper-v3'; expected Hopper-v2"):
        board(tmp_path)


def test_partial_entries_are_shown_and_published_scores_have_no_rank(
    submit: Make, tmp_path: Path
) -> None:
    submit("partial", "td3_bc", protocol="corl", dataset="hopper-medium-v2", seeds=[0, 1, 2, 3])
    made = board(tmp_path)
    assert made.ranking == ()
    (entry,) = made.unranked
    assert entry.unranked is not None
    assert "partial: lacks " in entry.unranked
    build(tmp_path / "board", tmp_path / "site", resampling=FEW)
    for page in ("datasets/hopper-medium-v2@2.html", "algorithms/td3_bc.html"):
        assert '<span class="flag">partial: lacks ' in (tmp_path / "site" / page).read_text()
    assert "td3_bc" in set(made.quoted["algorithm"])


def test_data_of_one_name_are_the_same_unless_they_are_made(submit: Make, tmp_path: Path) -> None:
    def other_data(identity: Any, _rows: Any) -> None:
        identity["data_sha256"] = "1" * 64

    def other_view(identity: Any, _rows: Any) -> None:
        identity.update(view="transitions", data_sha256="2" * 64)

    submit("made here", draw=1)
    submit("made there", "bc", draw=2, change=other_data)
    assert any("with 2 checksums, as machines that make" in note for note in board(tmp_path).notes)
    files: Any = {"protocol": "corl", "dataset": "hopper-medium-v2", "seeds": [0, 1, 2, 3]}
    submit("ours", **files, draw=3)
    submit("of another view", "decision_transformer", **files, draw=4, change=other_view)
    read_boards(tmp_path / "board", resampling=FEW)
    submit("theirs", "iql", **files, draw=5, change=other_data)
    with pytest.raises(InputError, match=r"hopper.*: its runs trained on data") as caught:
        read_boards(tmp_path / "board", resampling=FEW)
    assert str(caught.value).endswith("so find the right one and withdraw the other")


def test_the_same_submissions_give_the_same_site_and_a_faulty_one_gives_none(
    submit: Make, tmp_path: Path
) -> None:
    submit("<script>alert(1)</script>", draw=1, authors=['"><img src=x onerror=alert(2)>'])
    submit("=cmd|' /C calc'!A0", "bc", draw=2)
    submit(r"\input{/etc/passwd}", "iql", draw=3)
    build(tmp_path / "board", tmp_path / "a", resampling=FEW)
    build(tmp_path / "board", tmp_path / "b", resampling=FEW)
    build(tmp_path / "board", tmp_path / "a", resampling=FEW)
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*")}
    assert files == {p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*")}
    for file in files:
        if (tmp_path / "a" / file).is_file():
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    pages = "".join(path.read_text() for path in (tmp_path / "a").rglob("*.html"))
    assert "<script>alert" not in pages
    assert "<img" not in pages
    record = json.loads((tmp_path / "a" / "index.json").read_text())
    ranking = record["boards"][0]["ranking"]
    assert {line["name"] for line in ranking} >= {"<script>alert(1)</script>"}
    before = (tmp_path / "a" / "index.json").read_bytes()
    submit("broken", draw=4, seeds=[0, 1])
    with pytest.raises(InputError, match="lacks the seeds 2, 3, 4 of quickstart"):
        build(tmp_path / "board", tmp_path / "a", resampling=FEW)
    assert (tmp_path / "a" / "index.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds something that is no site of offrl"):
        build(tmp_path / "board", tmp_path / "mine")
