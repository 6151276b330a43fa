"""Tables of a paper: scores by data set and algorithm, and which of them are the best."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from offrl.errors import InputError
from offrl.reporting.findings import SAME_RUNS
from offrl.results.naming import Naming
from offrl.results.table import ScoreTable
from offrl.statistics.bootstrap import Array
from offrl.statistics.comparison import compare
from offrl.statistics.labels import main_method, percent
from offrl.statistics.resampling import Resampling
from offrl.statistics.significance import ALPHA, welch
from offrl.statistics.summary import per_task, summarise

Statistic = Literal["mean", "iqm"]
STATISTICS: Sequence[Statistic] = ("mean", "iqm")
AVERAGE = {"mean": "average", "iqm": "IQM"}  # of a group of data sets, in a row's name
FEWEST_REPS = 100  # of a comparison whose intervals nobody sees
SAME = 1e-9  # relative difference of means that is rounding


@dataclass(frozen=True)
class Cell:
    """A score: NaN where there is none, as are `sd` and the ends of the interval.

    `best` is whether it is the best of its data set or average, or not told apart from that.
    """

    value: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    runs: int = 0
    failed: int = 0
    best: bool = False


@dataclass(frozen=True)
class Heading:
    """The name of a row or a column, its group, and whether it is an average over data sets."""

    text: str
    group: str = ""
    average: bool = False


@dataclass(frozen=True)
class PaperTable:
    """Scores by rows and columns, which `transposed` exchanges.

    `corner` is what stands above the rows' names, `caption` says what the cells are.
    """

    corner: str
    rows: Sequence[Heading]
    columns: Sequence[Heading]
    cells: Sequence[Sequence[Cell]]
    statistic: Statistic
    scale: float
    caption: str

    def transposed(self) -> "PaperTable":
        """The same with rows for columns."""
        return replace(
            self,
            corner="algorithm" if self.corner == "data set" else "data set",
            rows=self.columns,
            columns=self.rows,
            cells=tuple(zip(*self.cells, strict=True)),
        )


def paper_table(
    table: ScoreTable,
    naming: Naming | None = None,
    *,
    statistic: Statistic = "mean",
    averages: bool = True,
    algorithms: Sequence[str] | None = None,
    resampling: Resampling = Resampling(),
) -> PaperTable:
    """The scores of a table by data set and algorithm, with averages per group and over all.

    Of a data set a cell has the mean with its standard deviation (ddof 1), or the IQM with its
    interval. An average is that of the data sets' means, or the IQM of all their runs; an algorithm
    that lacks one of them has none. The best of a row is marked, and so is every one that is not
    told apart from it: on a data set by Welch's tests of the means, corrected by Holm's method over
    the row's pairs; in an average by the tests of `compare`, over all pairs.

    Args:
        table: the scores; a hole is an empty cell.
        naming: order, labels and groups of names.
        statistic: "mean" or "iqm".
        averages: whether there are averages, where there are several data sets.
        algorithms: their order; by default that of the naming.
        resampling: of the intervals.
    """
    if statistic not in STATISTICS:
        raise InputError(f"statistic {statistic!r:.40}; expected {' or '.join(STATISTICS)}")
    naming = naming or Naming()
    final = table.final()
    names = list(algorithms or naming.ordered(final.algorithms))
    main = [name for name in names if name not in final.ways]
    scores = final.cells()
    tasks = {(row["algorithm"], row["dataset"]): row for row in per_task(final).to_dict("records")}
    rows: list[Heading] = []
    cells: list[list[Cell]] = []
    grouped = naming.grouped(final.datasets)
    for group, datasets in grouped:
        for dataset in datasets:
            of_row = {a: scores[a][dataset] for a in main if dataset in scores[a]}
            known = {name: tasks[name, dataset] for name in names}
            values = {name: float(row[statistic]) for name, row in known.items()}
            ends = _intervals(final, [dataset], resampling) if statistic == "iqm" else {}
            best = _best(values, _apart_on(of_row))
            rows.append(Heading(naming.label(dataset), group))
            cells.append(
                [
                    Cell(
                        values[name],
                        float(row["std"]),
                        *ends.get(name, (math.nan, math.nan, math.nan))[1:],
                        int(row["n"]),
                        int(row["n_failed"]),
                        name in best,
                    )
                    for name, row in known.items()
                ]
            )
        if averages and group and len(datasets) > 1:
            rows.append(Heading(f"{group} {AVERAGE[statistic]}", group, average=True))
            cells.append(_averages(final, names, scores, datasets, statistic, resampling))
    if averages and len(final.datasets) > 1:
        rows.append(Heading("average" if statistic == "mean" else "IQM of all", average=True))
        cells.append(_averages(final, names, scores, final.datasets, statistic, resampling))
    ways = final.ways
    texts = [
        f"{naming.label(name)} ({SAME_RUNS})" if name in ways else naming.label(name)
        for name in names
    ]
    return PaperTable(
        "data set",
        tuple(rows),
        tuple(map(Heading, texts)),
        tuple(map(tuple, cells)),
        statistic,
        final.scale,
        _caption(cells, statistic, final.scale, resampling, any(row.average for row in rows)),
    )


def _intervals(
    final: ScoreTable, datasets: Sequence[str], resampling: Resampling
) -> dict[str, tuple[float, float, float]]:
    """IQM and the ends of its interval by algorithm, over some data sets."""
    part = final.selected(datasets=datasets)
    if not len(part.frame):
        return {}
    summary = summarise(part, resampling=resampling, partial=True)
    method = main_method(summary["ci_method"])
    rows = summary[(summary["metric"] == "iqm") & (summary["ci_method"] == method)]
    return {
        row["algorithm"]: (row["estimate"], row["ci_low"], row["ci_high"])
        for row in rows.to_dict("records")
    }


def _averages(
    final: ScoreTable,
    names: Sequence[str],
    scores: Mapping[str, Mapping[str, Array]],
    datasets: Sequence[str],
    statistic: Statistic,
    resampling: Resampling,
) -> list[Cell]:
    """The averages over data sets; none of an algorithm that lacks one."""
    whole = [name for name in names if all(dataset in scores[name] for dataset in datasets)]
    tested = [name for name in whole if min(len(scores[name][d]) for d in datasets) > 1]
    tested = [name for name in tested if name not in final.ways]
    if statistic == "mean":
        values = {
            name: float(np.mean([scores[name][dataset].mean() for dataset in datasets]))
            for name in whole
        }
        ends = {name: (value, math.nan, math.nan) for name, value in values.items()}
    else:
        found = _intervals(final, datasets, resampling)
        ends = {name: found[name] for name in whole if name in found}
        values = {name: end[0] for name, end in ends.items()}
    apart: dict[frozenset[str], bool] = {}
    if len(tested) > 1:
        part = final.selected(datasets=datasets)
        quick = replace(resampling, reps=FEWEST_REPS, engine="offrl")
        try:
            pairs = compare(part, algorithms=tested, resampling=quick).pairs
        except InputError as error:
            raise InputError(f"{error}, or leave the averages out: --no-averages") from None
        apart = {
            frozenset((x, y)): verdict in ("better", "worse")
            for x, y, verdict in zip(pairs["x"], pairs["y"], pairs["verdict"], strict=True)
        }
    best = _best(values, apart)
    nothing = (math.nan, math.nan, math.nan)
    return [
        Cell(value, math.nan, low, high, best=name in best)
        for name in names
        for value, low, high in [ends.get(name, nothing)]
    ]


def _apart_on(cells: Mapping[str, Array]) -> dict[frozenset[str], bool]:
    """Whether each pair with two runs or more is told apart on a data set."""
    tested = [name for name, scores in cells.items() if len(scores) > 1]
    if len(tested) < 2:
        return {}
    pairs = list(itertools.combinations(tested, 2))
    tests = welch({name: {"": cells[name]} for name in tested}, pairs)
    return {
        # Without any spread there is no test: means that differ are apart.
        frozenset((x, y)): p <= ALPHA
        if not math.isnan(p)
        else not math.isclose(cells[x].mean(), cells[y].mean(), rel_tol=SAME)
        for (x, y), p in zip(pairs, tests["p_holm"], strict=True)
    }


def _best(values: Mapping[str, float], apart: Mapping[frozenset[str], bool]) -> Collection[str]:
    """The algorithms of the best value, and those that are not told apart from one of them."""
    finite = {name: value for name, value in values.items() if not math.isnan(value)}
    if not finite:
        return ()
    most = max(finite.values())
    best = [name for name, value in finite.items() if math.isclose(value, most, rel_tol=SAME)]
    return {
        name
        for name in finite
        if name in best or any(not apart.get(frozenset((name, other)), True) for other in best)
    }


def _caption(
    cells: Sequence[Sequence[Cell]],
    statistic: Statistic,
    scale: float,
    resampling: Resampling,
    averages: bool,
) -> str:
    counts = sorted({cell.runs for row in cells for cell in row if cell.runs})
    if counts[-1:] == [1]:
        return f"Scores of one run each, on 0–{scale:g}. Bold: the best of a data set or average."
    runs = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else f"{counts[0] if counts else 0}"
    what = {
        "mean": "Mean ± standard deviation (ddof 1)",
        "iqm": f"IQM [{percent(resampling.level)} interval]",
    }[statistic]
    tests = "Welch's tests of the means, Holm's correction over a row's pairs"
    if averages:
        tests += "; averages by the tests over all pairs of the comparison"
    return (
        f"{what} over {runs} runs; scores on 0–{scale:g}. Bold: "
        f"the best of a data set and what is not told apart from it at {percent(ALPHA)} ({tests}"
        f"{'; single runs are not tested' if 1 in counts else ''})."
    )
