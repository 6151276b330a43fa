"""The leaderboards as a static site, from their findings: it opens from a folder, without a server.

SITE/index.html, index.json        all boards; the same numbers for scripts
SITE/protocols/ID-VERSION.html     a board: ranking, what is not ranked, history, quoted scores
SITE/algorithms/, datasets/        the entries of one algorithm, and those on one data set
SITE/submissions/DIGEST.html       one submission: who, what code, how tuned, every score
SITE/bundles/DIGEST.zip            its file

The same submissions give the same bytes. Names of others are shown, escaped, and name no file.
"""

import base64
import hashlib
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from offrl.files import read_own
from offrl.reporting import pages
from offrl.reporting.board import Board
from offrl.reporting.entries import MARGIN, Entry, curve
from offrl.reporting.replaying import MOST_ERRORS
from offrl.reporting.submission import TUNING
from offrl.reporting.values import json_value
from offrl.reporting.words import Words
from offrl.text import one_line
from offrl.version import __version__

LARGEST = 2**30  # bytes of a bundle
LONGEST, MOST_VALUES = 200, 20  # of what a record says: characters, and values of a kind
LONGEST_CONFIG = 4_000  # characters
FOLDERS = ("protocols", "algorithms", "datasets", "submissions", "bundles")
HERE = Path(__file__).parent


def write(boards: Sequence[Board], folder: Path) -> None:
    """Writes the site of some boards into an empty folder."""
    for name in FOLDERS:
        (folder / name).mkdir()
    made = _Pages(boards)
    (folder / "index.html").write_text(made.index(), encoding="utf-8")
    for board in boards:
        path = folder / "protocols" / f"{board_name(board)}.html"
        path.write_text(made.board(board), encoding="utf-8")
    for algorithm in made.algorithms:
        path = folder / "algorithms" / f"{slug(algorithm)}.html"
        path.write_text(made.algorithm(algorithm), encoding="utf-8")
    for dataset in made.datasets:
        path = folder / "datasets" / f"{slug(dataset)}.html"
        path.write_text(made.dataset(dataset), encoding="utf-8")
    for board, entry in made.entries:
        name = entry_name(entry)
        path = folder / "submissions" / f"{name}.html"
        path.write_text(made.submission(board, entry), encoding="utf-8")
        bundle = read_own(entry.checked.path, LARGEST)
        (folder / "bundles" / f"{name}.zip").write_bytes(bundle)
    text = json.dumps(_record(boards), indent=1, allow_nan=False)
    (folder / "index.json").write_text(text + "\n", encoding="utf-8")


def slug(name: str) -> str:
    """A file's name for a name of anything; two names have two, whatever becomes of their case."""
    plain = re.sub(r"[^a-z0-9._=,@-]+", "-", name.lower())[:80].strip("-.")
    if plain == name and not re.search(r"-[0-9a-f]{32}$", name):
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:32]}".lstrip("-")


def board_name(board: Board) -> str:
    """The file's name of a board's page."""
    return f"{slug(board.protocol)}-{board.version}"


def entry_name(entry: Entry) -> str:
    """The file's name of a submission's page."""
    return entry.checked.digest


class _Pages:
    """The pages of a site, and what leads from one to another."""

    def __init__(self, boards: Sequence[Board]):
        self.boards = boards
        self.entries = [(board, e) for board in boards for e in (*board.live, *board.history)]
        self.by_digest = {entry.checked.digest: entry for _, entry in self.entries}
        self.algorithms = sorted({entry.algorithm for _, entry in self.entries})
        self.datasets = sorted({name for _, entry in self.entries for name in entry.scores})
        self.words = Words()
        script = "".join((HERE / name).read_text("utf-8") for name in ("report.js", "site.js"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        self.shared = {
            "script": Markup(script),
            "digest": digest,
            "version": __version__,
            "tuning": TUNING,
            "margin": MARGIN,
            "most_errors": MOST_ERRORS,
            "page": self,
            "board_name": board_name,
            "entry_name": entry_name,
            "slug": slug,
        }

    def index(self) -> str:
        """The page of all boards."""
        return self._page("site_index.html.j2", up="", title="Leaderboards")

    def board(self, board: Board) -> str:
        """The page of one."""
        title = f"{board.protocol}, version {board.version}"
        return self._page("site_board.html.j2", title=title, board=board, newest=self.newest(board))

    def algorithm(self, name: str) -> str:
        """The page of all entries of an algorithm."""
        entries = [(b, e) for b, e in self.entries if e.algorithm == name]
        return self._page("site_entries.html.j2", title=name, entries=entries, dataset=None)

    def dataset(self, name: str) -> str:
        """The page of all entries on a data set, the highest mean first, the unranked last."""
        entries = [(b, e) for b, e in self.entries if name in e.scores and e.ended is None]
        entries.sort(
            key=lambda pair: (bool(pair[1].unranked), -self.mean(pair[1], name), pair[1].name)
        )
        return self._page("site_entries.html.j2", title=name, entries=entries, dataset=name)

    def submission(self, board: Board, entry: Entry) -> str:
        """The page of a submission."""
        seeds = sorted({seed for of in entry.scores.values() for seed in of})
        return self._page(
            "site_submission.html.j2",
            title=entry.name,
            board=board,
            entry=entry,
            seeds=seeds,
            curves=curve(entry),
            sessions=_sessions(entry),
            code=entry.checked.runs[0].identity.code,
            data=_data(entry),
            config=_config(entry),
        )

    def newest(self, board: Board) -> str | None:
        """The file's name of the board that took the place of an earlier version's, if it is."""
        if board.version == board.newest:
            return None
        names = [board_name(b) for b in self.boards if b.protocol == board.protocol]
        name = f"{slug(board.protocol)}-{board.newest}"
        return name if name in names else ""

    def earlier(self, board: Board) -> list[Board]:
        """The boards of earlier versions."""
        same = [b for b in self.boards if b.protocol == board.protocol]
        return [b for b in same if b.version < board.version]

    def best(self, board: Board) -> list[Entry]:
        """The entries that share the first rank."""
        return [line.entry for line in board.ranking if line.rank == 1]

    def mean(self, entry: Entry, dataset: str) -> float:
        """The mean score of an entry on a data set."""
        return statistics.fmean(entry.scores[dataset].values())

    def spread(self, entry: Entry, dataset: str) -> str:
        """The same with its standard deviation, as text."""
        of = list(entry.scores.get(dataset, {}).values())
        if not of:
            return "–"
        sd = statistics.stdev(of) if len(of) > 1 else math.nan
        return self.words.spread(statistics.fmean(of), sd)

    def quoted(self, row: Mapping[str, Any]) -> str:
        """A published score with what its source prints beside it."""
        return Words(decimals=2).spread(row["mean"], row["printed_sd"])

    def score(self, value: float) -> str:
        """A score as text."""
        return self.words.score(value)

    def interval(self, low: float, high: float) -> str:
        """An interval as text."""
        return self.words.interval(low, high)

    def _page(self, name: str, *, title: str, up: str = "../", **values: Any) -> str:
        page = pages.template(name)
        return page.render(**self.shared, up=up, title=one_line(title), **values) + "\n"


def _sessions(entry: Entry) -> dict[str, list[str]]:
    """Commits, versions and machines of an entry's runs, each once."""
    found: dict[str, set[str]] = defaultdict(set)
    for session in (s for run in entry.checked.runs for s in run.record.sessions):
        found["commit of offrl"].add(str(session.commit or "not noted: an installed wheel"))
        for name, version in session.versions.items():
            found[name[:LONGEST]].add(str(version))
        hardware = {key: str(value) for key, value in session.hardware.items()}
        found["machine"].add(", ".join(f"{key} {hardware[key]}" for key in sorted(hardware)))
    shown = list(found.items())[:MOST_VALUES]
    return {name: [v[:LONGEST] for v in sorted(of)[:MOST_VALUES]] for name, of in shown}


def _data(entry: Entry) -> dict[str, list[tuple[str, str]]]:
    """The views and checksums of an entry's data sets."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for of in (run.identity for run in entry.checked.runs):
        found[of.dataset].add((of.view[:LONGEST], of.data_sha256[:LONGEST]))
    return {dataset: sorted(pairs) for dataset, pairs in sorted(found.items())}


def _config(entry: Entry) -> str:
    """The config of an entry's first run, as text."""
    text = json.dumps(entry.checked.runs[0].identity.config, sort_keys=True)
    return text if len(text) <= LONGEST_CONFIG else f"{text[:LONGEST_CONFIG]}..."


def _record(boards: Sequence[Board]) -> dict[str, Any]:
    """All boards as JSON."""
    return {
        "kind": "offrl leaderboard",
        "format": 1,
        "offrl": __version__,
        "boards": [
            {
                "protocol": board.protocol,
                "version": board.version,
                "newest": board.newest,
                "ranking": [
                    {
                        "rank": line.rank,
                        "letters": line.letters,
                        **json_value({"iqm": line.iqm, "low": line.low, "high": line.high}),
                        **_entry_record(line.entry),
                    }
                    for line in board.ranking
                ],
                "unranked": [_entry_record(entry) for entry in board.unranked],
                "history": [_entry_record(entry) for entry in board.history],
                "notes": list(board.notes),
            }
            for board in boards
        ],
    }


def _entry_record(entry: Entry) -> dict[str, Any]:
    scores = {
        dataset: {str(seed): score for seed, score in of.items()}
        for dataset, of in entry.scores.items()
    }
    return {
        "digest": entry.checked.digest,
        "name": entry.name,
        "algorithm": entry.algorithm,
        "badges": list(entry.badges),
        "doubts": list(entry.doubts),
        "unranked": entry.unranked,
        "ended": entry.ended,
        "successor": entry.successor,
        "scores": scores,
        "submission": entry.submission.model_dump(exclude_none=True),
    }
