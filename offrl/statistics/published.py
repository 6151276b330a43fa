"""Published tables, and what runs of one's own say about them, cell by cell.

A cell is `reproduced` where the difference of means is shown to be smaller than a margin that was
stated before, by two one-sided Welch tests (Schuirmann 1987): the 90 % interval of the difference,
for a level of 5 %, lies inside the margin. It `differs` where it is not, and the 95 % interval
leaves out 0. Otherwise the runs are `underpowered`: they show neither. Runs that have not come as
far as the published ones are `unfinished`, whatever their scores. Where data, simulator, protocol,
steps or the rule that makes a score of evaluations are known to be others, the cell has
`other settings`, and nothing is compared. A cell whose source does not give the number of seeds,
the deviation, its ddof and the rule has `no verdict`. The rest is `not run`, or `not in the table`.
"""

import fnmatch
import functools
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from offrl import registry
from offrl.errors import InputError, unknown
from offrl.results.table import ScoreTable
from offrl.toml import read_toml

ERROR_RATE = 0.05  # of the equivalence test, and of the interval that finds a difference
VERDICTS = (
    *("reproduced", "differs", "underpowered", "unfinished"),
    *("no verdict", "other settings", "not run", "not in the table"),
)
NEEDED = {"n": "n", "sd": "deviation", "ddof": "ddof", "rule": "rule"}  # for a verdict
USEFUL = {
    **{"episodes": "episodes", "steps": "steps"},
    **{"data": "data version", "simulator": "simulator version"},
}
TEXTS = (
    *("table", "protocol", "algorithm", "dataset", "rule", "data", "simulator", "environment"),
    *("source", "quoted_from", "note"),
)
MOST_SEEDS = 100  # that `runs_needed` looks at


@dataclass(frozen=True)
class Verdict:
    """What the runs of one cell say about the published value."""

    verdict: str
    difference: float  # ours minus the published mean
    low: float  # of the 95 % Welch interval of the difference; NaN where there is none
    high: float


@cache
def _published() -> pd.DataFrame:
    texts: dict[Hashable, type[str]] = dict.fromkeys(TEXTS, str)
    paths = [p for p in registry.resources("reports", ".csv") if p.stem.startswith("published-")]
    read = [pd.read_csv(path, dtype=texts, na_values="", keep_default_na=False) for path in paths]
    tables = pd.concat(read, ignore_index=True)
    tables = tables.fillna(dict.fromkeys(TEXTS, ""))
    printed, n = tables["sd"], tables["n"]
    whole = printed * np.sqrt(n / (n - 1))
    return tables.assign(printed_sd=printed, sd=printed.where(tables["ddof"] != 0, whole))


def tables() -> dict[str, pd.DataFrame]:
    """The published tables that ship with offrl, a row per cell.

    Scores are on 0-100. `sd` is the sample standard deviation over the n seeds. The source printed
    `printed_sd` with `ddof`: 0 where it took numpy's default, as CORL does, so that sd is larger by
    sqrt(n / (n - 1)); empty where it does not say, and then sd is what it printed. `episodes` are
    those of an evaluation, `rule` is `final`, `best` or, for the mean of the last K evaluations,
    `last-K`. `source` is where the number was read, and `quoted_from` whose number that is, where
    the source quotes it. `protocol` is the one of offrl that has the published settings, and
    `environment` the simulator of offrl that was seen to repeat the published one. What is not
    known is empty: NaN, or no text.
    """
    return {str(name): rows for name, rows in _published().groupby("table", sort=False)}


@cache
def headings() -> dict[str, dict[str, str]]:
    """The title of each published table, and notes on it."""
    written = read_toml(registry.folder("reports") / "published.toml")
    return {name: {"title": "", "notes": "", **values} for name, values in written.items()}


def find_table(
    name: str, algorithms: Sequence[str] = (), datasets: Sequence[str] = ()
) -> pd.DataFrame:
    """The cells of a published table; only those of some algorithms and data sets, where given.

    Both are names or patterns such as `antmaze-*`.

    Raises InputError for a name that there is not.
    """
    known = tables()
    if name not in known:
        raise unknown("published table", name, known)
    cells = known[name]
    for column, names in (("algorithm", algorithms), ("dataset", datasets)):
        present = list(cells[column].unique())
        chosen: set[str] = set()
        for given in names:
            if not (matching := fnmatch.filter(present, given)):
                what = {"dataset": "data set"}.get(column, column)
                raise unknown(f"{what} of the published table {name}", given, present)
            chosen.update(matching)
        if names:
            cells = cells[cells[column].isin(chosen)]
    return cells


def lacking(cell: Any, fields: dict[str, str] = NEEDED) -> list[str]:
    """What a published cell (a named tuple of its row) does not have of some fields, in words."""
    values = {field: getattr(cell, field) for field in fields}
    return [fields[name] for name, value in values.items() if value == "" or value != value]


def judge(scores: ArrayLike, mean: float, sd: float, n: float, margin: float) -> Verdict:
    """The verdict on one cell.

    Args:
        scores: ours, one per run.
        mean: published.
        sd: published, the sample standard deviation over n runs; NaN where it is not known.
        n: published number of runs; NaN where it is not known.
        margin: the largest difference of means that counts as none, in points of the score.
    """
    ours = np.asarray(scores, dtype=np.float64)
    difference = float(ours.mean() - mean)
    if len(ours) < 2 or not n >= 2 or math.isnan(sd):
        return Verdict("underpowered", difference, math.nan, math.nan)
    one_sided, two_sided = _half_widths(float(ours.var(ddof=1)), len(ours), sd**2, n)
    if two_sided == 0:
        verdict = "reproduced" if abs(difference) < margin else "differs"
        return Verdict(verdict, difference, difference, difference)
    if abs(difference) + one_sided < margin:
        verdict = "reproduced"
    else:
        verdict = "differs" if abs(difference) > two_sided else "underpowered"
    return Verdict(verdict, difference, difference - two_sided, difference + two_sided)


def _half_widths(ours: float, n_ours: int, theirs: float, n_theirs: float) -> tuple[float, float]:
    """Half the Welch intervals of a difference of means, of the variances: 90 % and 95 %."""
    parts = np.array([ours / n_ours, theirs / n_theirs])
    error = float(np.sqrt(parts.sum()))
    if error == 0:
        return 0.0, 0.0
    freedom = parts.sum() ** 2 / (parts**2 / np.array([n_ours - 1, n_theirs - 1])).sum()
    one_sided = float(stats.t.ppf(1 - ERROR_RATE, freedom)) * error
    return one_sided, float(stats.t.ppf(1 - ERROR_RATE / 2, freedom)) * error


def runs_needed(sd: float, n: float, margin: float) -> int | None:
    """The fewest runs that can show a cell reproduced if they agree with it exactly.

    With the published mean and deviation; real runs need more. None where 100 are too few, since
    the published mean itself is not known well enough, or where n or sd is not known.
    """
    if not n >= 2 or math.isnan(sd):
        return None
    enough = (k for k in range(2, MOST_SEEDS + 1) if _half_widths(sd**2, k, sd**2, n)[0] < margin)
    return next(enough, None)


def compare(
    scores: ScoreTable,
    name: str,
    margin: float,
    *,
    algorithms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    versions: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Our scores beside those of the published table `name`, a row per cell that either has.

    Args:
        scores: ours, on 0-100.
        name: of the published table.
        margin: the largest difference of means that counts as none, in points.
        algorithms: of the table's cells only those of these.
        datasets: likewise.
        versions: that protocols are at, by id; the reason of a verdict names another one.

    Columns: algorithm, dataset, n, step, mean, sd, published, published_sd, published_n,
    published_step, published_dataset, difference, low, high, verdict, reason, source, quoted_from,
    note. Where one side has no such cell its values are NaN. The difference is NaN too where
    settings are others. Raises InputError where the table is not known, the margin is not positive,
    or no cell is in both.
    """
    cells = find_table(name, algorithms, datasets)
    check_margin(margin)
    scores.check_one_setting()
    final = scores.final()
    if scores.scale != 100:
        raise InputError("published scores are on 0-100; bring yours to that scale first")
    ours = {
        (str(label), str(dataset)): rows
        for (label, dataset), rows in final.frame.groupby(["algorithm", "dataset"], sort=False)
    }
    pairs = dict(_pairs(ours, list(cast(Iterable[Any], cells.itertuples()))))
    if not pairs:
        raise InputError(
            f"none of these scores belongs to the table {name!r}, which has "
            f"{', '.join(cells['algorithm'].unique())} on "
            f"{', '.join(cells['dataset'].unique()[:4])}...; names must be the same"
        )
    by_cell: dict[int, list[tuple[str, str]]] = {}
    for key, cell in pairs.items():
        by_cell.setdefault(cell.Index, []).append(key)
    rows: list[dict[str, Any]] = []
    for cell in cast(Iterable[Any], cells.itertuples()):
        keys = by_cell.get(cell.Index, [])
        for key in keys:
            judged = _judged(ours[key], cell, margin, versions or {})
            rows.append({**_own(key, ours[key]), **judged})
        if not keys:
            own = {"algorithm": cell.algorithm, "dataset": cell.dataset, "n": 0, "step": None}
            rows.append({**own, **_theirs(cell), "verdict": "not run", "reason": ""})
    rows += [
        {**_own(key, part), "verdict": "not in the table", "reason": ""}
        for key, part in ours.items()
        if key not in pairs
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    texts = ["published_dataset", "reason", "source", "quoted_from", "note"]
    frame[texts] = frame[texts].fillna("")
    frame.attrs["level"] = 1 - ERROR_RATE
    return frame


COLUMNS = (
    *("algorithm", "dataset", "n", "step", "mean", "sd"),
    *("published", "published_sd", "published_n", "published_step", "published_dataset"),
    *("difference", "low", "high", "verdict", "reason", "source", "quoted_from", "note"),
)


def check_margin(margin: float) -> None:
    """Raises InputError unless a margin is a positive number."""
    if not margin > 0 or math.isinf(margin):
        raise InputError(f"margin is {margin:g}; expected a positive number of points, such as 3")


def tally(frame: pd.DataFrame) -> dict[str, int]:
    """How many cells of a comparison have each verdict, in the order of `VERDICTS`."""
    counts = frame["verdict"].value_counts()
    return {verdict: int(counts.get(verdict, 0)) for verdict in VERDICTS}


def _pairs(
    ours: Iterable[tuple[str, str]], cells: Sequence[Any]
) -> Iterator[tuple[tuple[str, str], Any]]:
    """Each of our cells with the published one that it is of.

    A data set of which the table has no more than another version is paired with that.
    """
    exact = {(cell.algorithm, cell.dataset): cell for cell in cells}
    unversioned = {
        (algorithm, _base(dataset)): cell for (algorithm, dataset), cell in exact.items()
    }
    for label, dataset in ours:
        # One that ran under several protocols or configs carries them behind its label.
        algorithm, of = label.partition(" (")[0], dataset.partition("@")[0]
        if cell := exact.get((algorithm, of)) or unversioned.get((algorithm, _base(of))):
            yield (label, dataset), cell


def _base(dataset: str) -> str:
    """The id of a data set without its version."""
    return re.sub(r"-v\d+$", "", dataset)


def _own(key: tuple[str, str], rows: pd.DataFrame) -> dict[str, Any]:
    """What a comparison shows of our runs of a cell."""
    return {
        **dict(zip(("algorithm", "dataset"), key, strict=True)),
        "n": len(rows),
        "step": _step(rows),
        "mean": float(rows["score"].mean()),
        "sd": float(rows["score"].std()),
    }


def _theirs(cell: Any) -> dict[str, Any]:
    """What a comparison shows of a published cell."""
    return {
        "published": cell.mean,
        "published_sd": cell.sd,
        "published_n": cell.n,
        "published_step": cell.steps,
        "published_dataset": cell.dataset,
        "source": cell.source,
        "quoted_from": cell.quoted_from,
        "note": cell.note,
    }


def _judged(
    rows: pd.DataFrame, cell: Any, margin: float, versions: Mapping[str, int]
) -> dict[str, Any]:
    """The verdict on our runs of a published cell, with the reason, and the published values."""
    step = _step(rows)
    others = [*_others(rows, cell)]
    missing = lacking(cell)
    result = judge(rows["score"], cell.mean, cell.sd, cell.n, margin)
    if others:
        result, reasons = Verdict("other settings", math.nan, math.nan, math.nan), others
    elif missing:
        result = Verdict("no verdict", result.difference, math.nan, math.nan)
        reasons = [f"the source does not give {', '.join(missing)}"]
    elif step is not None and step < cell.steps:
        result = Verdict("unfinished", result.difference, result.low, result.high)
        reasons = [f"{step:,} of {cell.steps:,.0f} steps"]
    else:
        reasons = [*_remarks(rows, cell, versions)]
    values = {"difference": result.difference, "low": result.low, "high": result.high}
    return {
        **_theirs(cell),
        **values,
        "verdict": result.verdict,
        "reason": "; ".join(reasons),
    }


def _others(rows: pd.DataFrame, cell: Any) -> Iterator[str]:
    """What is known to be other in our runs than in the published ones."""
    dataset = str(rows["dataset"].iloc[0]).partition("@")[0]
    if dataset != cell.dataset:
        yield f"data {dataset}, published {cell.dataset}"
    simulators = _simulators(rows)
    if cell.environment and {*simulators} - {cell.environment}:
        yield f"simulator {', '.join(simulators)}, published as {cell.environment}"
    protocols = set(map(_settings_of, _known(rows, "protocol")))
    if cell.protocol and protocols - {cell.protocol}:
        yield f"protocol {', '.join(sorted(protocols))}, published as {cell.protocol}"
    elif protocols and not cell.protocol:
        yield f"protocol {', '.join(sorted(protocols))}, no protocol has the published settings"
    if cell.rule and (rule := _rule(rows)) and rule != cell.rule:
        yield f"score {rule}, published {cell.rule}"
    step = _step(rows)
    if step is not None and step > cell.steps:
        yield f"{step:,} steps, published {cell.steps:,.0f}"


def _remarks(rows: pd.DataFrame, cell: Any, versions: Mapping[str, int]) -> Iterator[str]:
    """What is worth knowing beside a verdict."""
    if len(rows) < 2:
        yield "one run of ours"
    for protocol in sorted(set(_known(rows, "protocol"))):
        version, now = protocol.partition("@")[2], versions.get(_settings_of(protocol))
        if version and now is not None and version != str(now):
            yield f"protocol {protocol}, which is at version {now} now"
    episodes = {int(count) for count in _known(rows, "episodes")}
    if cell.episodes == cell.episodes and episodes - {int(cell.episodes)}:
        yield f"{_counts(episodes)} episodes, published {cell.episodes:,.0f}"
    if cell.simulator and not cell.environment and (simulators := _simulators(rows)):
        yield f"simulator {', '.join(simulators)}, not seen to repeat {cell.simulator}"
    known = {"protocol": "protocol", "environment": "simulator"}
    unsaid = [word for column, word in known.items() if not len(_known(rows, column))]
    unsaid += [] if _step(rows) is not None else ["steps", "rule"]
    if unsaid:
        yield f"not known of ours: {', '.join(unsaid)}"
    if missing := lacking(cell, USEFUL):
        yield f"not known of theirs: {', '.join(missing)}"


def _simulators(rows: pd.DataFrame) -> list[str]:
    """The ids of the simulators that are known, without their modules."""
    return sorted({str(text).rpartition(":")[2] for text in _known(rows, "environment")})


def _counts(values: set[int]) -> str:
    return " or ".join(f"{value:,}" for value in sorted(values))


def _known(rows: pd.DataFrame, column: str) -> list[Any]:
    """The distinct values of a column that are known; none where there is no such column."""
    values: list[Any] = rows[column].dropna().unique().tolist() if column in rows else []
    return [value for value in values if value != ""]


def _step(rows: pd.DataFrame) -> int | None:
    """The last step; None where one is not known."""
    has_steps = "step" in rows and rows["step"].notna().all()
    return int(rows["step"].max()) if has_steps else None


def _rule(rows: pd.DataFrame) -> str | None:
    """How a run's score comes from its evaluations; None where that is not known."""
    if _step(rows) is None:
        return None
    last = max(map(int, _known(rows, "last_evaluations")), default=1)
    return "final" if last == 1 else f"last-{last}"


@functools.lru_cache
def _settings_of(protocol: str) -> str:
    """The id of the protocol whose settings runs of `ID@VERSION` have, whatever their seeds."""
    return re.sub(r"\+seeds=[^+]*$", "", protocol.partition("@")[0])
