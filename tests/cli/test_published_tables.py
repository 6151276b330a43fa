"""`offrl list tables`, `offrl show TABLE` and `offrl reproduce` as their users meet them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import Call
from made_runs import write_runs

from offrl.results.rows import Status
from offrl.running import runner
from offrl.running.costs import Cost, note
from offrl.running.events import Event
from offrl.running.jobs import Job, expand
from offrl.running.protocol import find_protocol

HEAD = "algorithm,dataset,seed,step,score,protocol,episodes\n"


def scores(path: Path, *, name: str = "mine") -> Path:
    """BC on DMSD as published, TD3+BC cut short, and an algorithm that the table lacks."""
    rows = [f"bc,neorl2-dmsd,{k},1000000,{s}" for k, s in enumerate((66.4, 65.6, 63.3))]
    rows += [f"td3_bc,neorl2-dmsd,{seed},20000,60.{seed}" for seed in range(3)]
    rows += [f"{name},neorl2-dmsd,{seed},1000000,50.{seed}" for seed in range(3)]
    path.write_text(HEAD + "".join(f"{row},neorl2-dmsd@2,1000\n" for row in rows))
    return path


def test_tables_are_listed_with_what_can_be_judged(call: Call) -> None:
    shown = call("list", "tables", "--json")
    tables = {row["id"]: row for row in json.loads(shown.stdout)}
    assert (tables["corl"]["cells"], tables["corl"]["judged"]) == (300, 300)
    assert tables["corl"]["protocols"] == ["corl"]
    assert (tables["iql-paper"]["cells"], tables["iql-paper"]["judged"]) == (18, 0)
    lines = call("list", "tables").stdout.splitlines()
    assert any(line.split()[:2] == ["neorl2-printed", "NeoRL-2,"] for line in lines)


def test_a_table_is_shown_for_a_person(call: Call) -> None:
    shown = call("show", "neorl2")
    assert (shown.code, shown.stderr) == (0, "")
    text = " ".join(shown.stdout.split())
    assert "arXiv 2503.19267; polixir/NeoRL2 at b50d91d" in text
    assert re.search(r"neorl2-dmsd 65.09 ± 1.64 ", text)
    assert "all 63 cells can have one" in text
    assert max(map(len, shown.stdout.splitlines())) <= 80
    both = call("show", "iql-paper")  # a protocol too
    text = " ".join(both.stdout.split())
    assert "protocol iql-paper" in text
    assert "published table iql-paper" in text
    assert "not known n (all 18 cells), deviation (all 18 cells)" in text
    whole = json.loads(call("show", "iql-paper", "--json").stdout)
    assert {"protocol", "table"} <= set(whole)
    (cell,) = (c for c in whole["table"]["cells"] if c["dataset"] == "hopper-medium-v2")
    assert (cell["mean"], cell["sd"], cell["rule"]) == (66.3, None, "")
    assert cell["quoted_from"] == "Kostrikov et al., IQL, arXiv 2110.06169"


def test_without_a_source_the_runs_and_their_cost_are_shown(call: Call, tmp_path: Path) -> None:
    """Costs are what a run measured, or a stated rate; nothing is started or written."""
    (job, *_) = expand(find_protocol("neorl2-dmsd"), ["bc"], ["neorl2-dmsd"])
    cost = Cost.of(job, 1, "cpu", update=0.0036, updates=5000, episode=0.0)
    (tmp_path / "runs" / ".costs").mkdir(parents=True)
    note(tmp_path / "runs", cost)
    before = sorted(tmp_path.rglob("*"))
    words = ["reproduce", "neorl2", "--dataset", "neorl2-dmsd", "--margin", "3"]
    shown = call(*words, "-o", "runs", "--rate", "edac=1000", "--json")
    plan = json.loads(shown.stdout)
    cells = {cell["algorithm"]: cell for cell in plan["cells"]}
    assert (plan["runs"], plan["done"], plan["uncounted"]) == (12, 0, 6)  # 6 of CQL and TD3+BC
    assert cells["bc"]["hours"] == pytest.approx(3 * 1.0)  # a million steps of 3.6 ms
    assert cells["edac"]["hours"] == pytest.approx(3 * 3e6 / 1000 / 3600)
    assert cells["cql"]["hours"] is None
    assert (cells["mopo"]["runs"], cells["mopo"]["protocol"]) == (0, "")
    assert (cells["bc"]["needed"], cells["bc"]["lacking"]) == (3, [])
    seeds = json.loads(call(*words, "--seed", "0..4", "--json").stdout)
    assert seeds["runs"] == 20
    text = " ".join(call(*words, "-o", "runs").stdout.split())
    assert "12 runs to make, 0 done: about 3 h 00 min of one worker, 9 of unknown cost" in text
    assert "5 cells with settings that no protocol of offrl has" in text
    assert "nothing was started; offrl reproduce neorl2 --dataset neorl2-dmsd" in text
    assert sorted(tmp_path.rglob("*")) == before
    none = call("reproduce", "iql-paper", "--dataset", "hopper-medium-v2", "--margin", "3")
    assert "none: no n," in " ".join(none.stdout.split())


def test_run_hands_the_cells_to_the_runner(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(protocol: str, output: Path, **options: Any) -> list[Event]:
        given.update(options, protocol=protocol, output=output)
        jobs: list[Job] = expand(find_protocol(protocol), options["algorithms"])
        return [Event(job, Status.DONE, job.steps) for job in jobs]

    monkeypatch.setattr(runner, "run", run)
    words = ["reproduce", "neorl2", "--algorithm", "bc", "--dataset", "neorl2-dmsd", "--run"]
    assert call(*words).error.endswith("--run: give the folder of runs with -o")
    made = call(*words, "-o", "runs", "--seed", "0,1", "-j", "1")
    assert made.code == 0, made
    assert made.stdout.endswith("3 of 3 runs are done in runs\n")
    chosen = [given[name] for name in ("protocol", "algorithms", "datasets", "seeds", "workers")]
    assert chosen == ["neorl2-dmsd", ["bc"], ["neorl2-dmsd"], [0, 1], 1]
    for table in ("ogbench", "corl-best"):  # the best evaluation is no protocol's score
        assert call("reproduce", table, "--run", "-o", "runs").error.endswith(
            f"{table}: no protocol of offrl has the settings of these cells"
        )


def test_a_verdict_for_each_cell_in_the_terminal_and_as_json(call: Call, tmp_path: Path) -> None:
    source = scores(tmp_path / "scores.csv")
    shown = call("reproduce", "neorl2", source, "--margin", "5")
    assert shown.code == 0
    assert shown.stdout.endswith(
        "Of 63 published cells 2 have runs here; at a margin of 5 points: 1 reproduced, "
        "1 unfinished, 61 not run, 1 not in the table.\n"
    )
    given = call("reproduce", "neorl2", source, "--margin", "5", "--json")
    whole = json.loads(given.stdout, parse_constant=pytest.fail)  # JSON has no NaN
    counts = {name: count for name, count in whole["tally"].items() if count}
    assert counts == {"reproduced": 1, "unfinished": 1, "not run": 61, "not in the table": 1}
    assert len(whole["cells"]) == 64


def test_a_verdict_on_runs_under_an_earlier_version_of_a_protocol_says_so(
    call: Call, tmp_path: Path
) -> None:
    text = scores(tmp_path / "scores.csv").read_text()
    (tmp_path / "scores.csv").write_text(text.replace("neorl2-dmsd@2", "neorl2-dmsd@1"))
    shown = call("reproduce", "neorl2", "scores.csv", "--margin", "5", "--json")
    cells = {cell["algorithm"]: cell for cell in json.loads(shown.stdout)["cells"] if cell["n"]}
    assert cells["bc"]["verdict"] == "reproduced"
    assert cells["bc"]["reason"].startswith("protocol neorl2-dmsd@1, which is at version 2 now")
    assert "protocol neorl2" not in cells["td3_bc"]["reason"]  # it is unfinished anyway


def test_the_page_shows_every_cell_and_obeys_no_name(call: Call, tmp_path: Path) -> None:
    source = scores(tmp_path / "scores.csv", name="<img src=x>\x1b[1m")
    words = ["reproduce", "neorl2", source, "--margin", "5", "-o", "page"]
    assert call(*words).code == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in page
    assert "\x1b" not in page
    assert page.count('<td class="left"><span') == 2  # a verdict for each cell that both have
    assert '<span class="good">reproduced</span>' in page
    assert "20,000 of 1,000,000 steps" in page
    assert "61 in all." in page
    assert "default-src 'none'" in page
    record = json.loads((tmp_path / "page" / "summary.json").read_text())
    assert record["tally"]["reproduced"] == 1
    files = sorted(path.name for path in (tmp_path / "page").iterdir())
    assert files == record["files"] == ["cells.csv", "index.html", "summary.json"]
    assert call(*words).code == 0  # a page of its own is replaced
    (tmp_path / "page" / "more.txt").write_text("mine")
    assert "more.txt does not belong" in call(*words).error


def test_a_bundle_of_runs_is_a_source_too(call: Call, tmp_path: Path) -> None:
    """The runs in it have simulators and rules, which are the published ones."""
    write_runs(tmp_path / "runs", "bc", protocol="neorl2-dmsd", dataset="neorl2-dmsd", mean=65.0)
    assert call("results", "pack", "runs", "-o", "runs.zip").code == 0
    words = ["--margin", "50", "--json"]
    packed = json.loads(call("reproduce", "neorl2", "runs.zip", *words).stdout)
    (cell,) = (cell for cell in packed["cells"] if cell["n"])
    assert (cell["algorithm"], cell["n"], cell["step"]) == ("bc", 3, 1_000_000)
    assert cell["verdict"] == "reproduced"
    assert packed == json.loads(call("reproduce", "neorl2", "runs", *words).stdout)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("reproduce neorl3", "unknown published table 'neorl3'; did you mean 'neorl2'"),
        ("reproduce neorl2 scores.csv", "no --margin: give the largest difference of means"),
        ("reproduce neorl2 scores.csv --margin 0", "margin is 0; expected a positive"),
        ("reproduce neorl2 scores.csv --margin 3 --run", "--run, --seed and --rate are for runs"),
        ("reproduce corl scores.csv --margin 3", "none of these scores belongs to the table"),
        ("reproduce neorl2 --margin -1", "margin is -1; expected a positive number"),
        ("reproduce neorl2 --rate bc=fast", "--rate 'bc=fast': expected a number"),
        (
            "reproduce neorl2 --rate bcc=9",
            "unknown algorithm of the published table neorl2 'bcc'",
        ),
        (
            "reproduce neorl2 --dataset dmsd",
            "unknown data set of the published table neorl2",
        ),
        ("reproduce neorl2 --rate 0", "expected a positive number of steps"),
        ("reproduce neorl2 --algorithm bcc", "unknown algorithm of the published table neorl2"),
        ("reproduce neorl2 --dry-run", "--dry-run: give the scores to read"),
        ("list table", "unknown kind 'table'; did you mean 'tables'?"),
        ("show neorl", "unknown name 'neorl'; did you mean 'neorl2"),
    ],
)
def test_bad_input_is_one_line(call: Call, tmp_path: Path, words: str, line: str) -> None:
    scores(tmp_path / "scores.csv")
    assert line in call(*words.split()).error
