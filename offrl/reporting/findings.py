"""Every number of a report, computed once from a score table."""

import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from offrl.errors import InputError
from offrl.progress import Progress, stage
from offrl.reporting.values import json_value
from offrl.results.checks import natural
from offrl.results.failures import Failure
from offrl.results.naming import Naming
from offrl.results.table import ScoreTable
from offrl.statistics.comparison import Comparison, compare
from offrl.statistics.labels import main_method, percent
from offrl.statistics.letters import letters
from offrl.statistics.metrics import METRICS
from offrl.statistics.profiles import curve, profile
from offrl.statistics.ranks import ranks
from offrl.statistics.remarks import explain
from offrl.statistics.resampling import COVERAGE, Resampling
from offrl.statistics.robustness import robustness
from offrl.statistics.summary import per_group, per_task, summarise
from offrl.statistics.tuning_budget import online_performance
from offrl.version import __version__

SAME_RUNS = "same runs"  # marks another way to act of an algorithm that stands beside it
KIND = "offrl report"  # of `Findings.record`: a folder that holds one may be replaced by another
RULE = (
    "One score per run: the evaluation at the last step that all runs of the algorithm on the data "
    "set share, or the mean of the last ones up to it, as many as the protocol says; where scores "
    "carry no step, the score as given"
)
INTERIM = ("interim: ", "unfinished: ")  # how notes on scores that may still move begin
TOLD = ("better", "worse")  # verdicts on pairs that are told apart
MOST_DRAWN = 10_000  # resamples of profile and ranks: figures show no more than that resolves
RANKING = (
    "algorithm",
    "iqm",
    "ci_low",
    "ci_high",
    "letters",
    "best",
    "runs",
    "failed",
    "median",
    "mean",
    "optimality_gap",
    "n_tasks",
)


@dataclass(frozen=True, eq=False)
class Findings:
    """The numbers of a report; frames have the columns that the functions of their names give.

    Attributes:
        title: what the user calls it; empty by default.
        naming: order, labels and groups of its names.
        table: the scores, with failures, notes and provenance; of an algorithm with several
            settings each setting is an algorithm of its own.
        final: one score per run.
        resampling: that of summary and comparison.
        summary: aggregates over all data sets.
        per_task: scores per data set.
        robustness: altered data sets beside the clean ones; no row where none stand together.
        groups: aggregates per group of data sets; no row without groups.
        profile: performance profiles; no row where no algorithm has all data sets.
        curves: learning curves by data set, and by None over all of several; none where the scores
            of a data set have a single step.
        compared: the algorithms with two runs or more on every data set.
        comparison: all pairs of these; None for fewer than two, or more than it takes.
        ranks: of these; None as well.
        ranking: a row per algorithm with the columns RANKING, by IQM. `letters` are those of
            `statistics.letters`, `best` how often it ranks first on a data set, over resamples.
        budget: expected online performance, where algorithms have several settings, else None.
        notes: what a reader must know.
    """

    title: str
    naming: Naming
    table: ScoreTable
    final: ScoreTable
    resampling: Resampling
    summary: pd.DataFrame
    per_task: pd.DataFrame
    robustness: pd.DataFrame
    groups: pd.DataFrame
    profile: pd.DataFrame
    curves: Mapping[str | None, pd.DataFrame]
    compared: tuple[str, ...]
    comparison: Comparison | None
    ranks: pd.DataFrame | None
    ranking: pd.DataFrame
    budget: pd.DataFrame | None
    notes: tuple[str, ...]

    @property
    def algorithms(self) -> list[str]:
        """All algorithms and other ways to act, in the order in which they are shown."""
        return self.naming.ordered(self.ranking["algorithm"])

    @property
    def datasets(self) -> list[str]:
        """All data sets, in the order in which they are shown."""
        return [name for _, names in self.naming.grouped(self.table.datasets) for name in names]

    @property
    def interim(self) -> list[str]:
        """The notes on runs that are not done, whose scores may still move."""
        return [note for note in self.notes if note.startswith(INTERIM)]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The failed runs, each once however many ways to act it has."""
        ways = self.table.ways
        return tuple(f for f in self.table.failures if f.algorithm not in ways and not f.unfinished)

    @property
    def failed(self) -> dict[str, int]:
        """The number of failed runs of each algorithm."""
        counts = Counter(f.algorithm for f in self.table.failures if not f.unfinished)
        return {name: counts[name] for name in self.table.algorithms}

    @property
    def labels(self) -> dict[str, str]:
        """What figures and tables write for each algorithm.

        That is its label, whether it is another way to act in the same runs, and how many of its
        runs failed.
        """
        ways, labels = self.table.ways, {}
        for name, count in self.failed.items():
            remarks = [SAME_RUNS] if name in ways else []
            remarks += [f"{count} failed"] if count else []
            label = self.naming.label(name)
            labels[name] = f"{label} ({', '.join(remarks)})" if remarks else label
        return labels

    @property
    def runs(self) -> int:
        """The number of runs, finished or failed, each once however many ways to act it has."""
        return len(self.final.only(self.table.main_algorithms).frame) + len(self.failures)

    @property
    def runs_each(self) -> tuple[int, int]:
        """The fewest and the most finished runs of an algorithm on a data set, if it has any."""
        sizes = self.per_task.loc[self.per_task["n"] > 0, "n"]
        return int(sizes.min()), int(sizes.max())

    @property
    def resamples(self) -> tuple[int, int] | None:
        """The fewest and the most resamples behind an interval; None where there is no interval."""
        used = self.summary.loc[self.summary["ci_low"].notna(), "reps"]
        return (int(used.min()), int(used.max())) if len(used) else None

    @property
    def main_method(self) -> str:
        """The interval method that a sentence quotes."""
        return main_method(self.summary["ci_method"])

    def record(self, command: str | None = None) -> dict[str, Any]:
        """The numbers as JSON, with all that made them: the content of summary.json.

        Args:
            command: the command line that made the report.
        """
        return {
            "kind": KIND,
            "format": 1,
            "command": command,
            "title": self.title,
            **self.resampling.record(),
            "scale": self.table.scale,
            "score_rule": RULE,
            "algorithms": self.table.main_algorithms,
            "ways": self.table.ways,
            "datasets": self.table.datasets,
            "labels": dict(self.naming.labels),
            "groups": {name: list(members) for name, members in self.naming.groups.items()},
            "ranking": _rows(self.ranking),
            "summary": _rows(self.summary),
            **({"robustness": _rows(self.robustness)} if len(self.robustness) else {}),
            "comparisons": [] if self.comparison is None else _rows(self.comparison.pairs),
            "failures": [vars(f) for f in self.table.failures if not f.unfinished],
            "unfinished": [vars(f) for f in self.table.failures if f.unfinished],
            "notes": list(self.notes),
            "versions": versions_here(),
            "provenance": json_value(self.table.provenance),
        }


def versions_here() -> dict[str, str]:
    """The versions of what computes a report."""
    packages = ("numpy", "scipy", "pandas", "matplotlib")
    own = {"offrl": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


def compute(
    table: ScoreTable,
    *,
    resampling: Resampling = Resampling(),
    studentized: bool = False,
    naming: Naming | None = None,
    title: str = "",
    progress: Progress | None = None,
) -> Findings:
    """All numbers of a report.

    Args:
        table: the scores; InputError where no run has one.
        resampling: of summary and comparison, at 95 %; profile and ranks take at most
            MOST_DRAWN resamples, and curves their own number.
        studentized: whether to compute studentized intervals too.
        naming: order, labels and groups of names.
        title: the heading of the page.
        progress: called with what is done and the total.
    """
    if resampling.level != COVERAGE:
        raise InputError(
            f"level {resampling.level:g}: a report has {percent(COVERAGE)} intervals; leave the "
            f"level at {COVERAGE:g}, or call offrl.statistics.summarise"
        )
    if not len(table.frame):
        failed = [failure for failure in table.failures if not failure.unfinished]
        number = len(table.failures)
        if not failed:
            raise InputError(
                f"no evaluation to report yet: none of {number} runs has come to its first; `offrl "
                "status RUNS` shows how far they are"
            )
        of = f"all {number} runs" if len(failed) == number else f"{len(failed)} of {number} runs"
        raise InputError(
            f"no finished run to report: {of} failed, the first ({failed[0].algorithm} on "
            f"{failed[0].dataset}, seed {failed[0].seed}) by: {failed[0].cause}"
        )
    naming = naming or Naming()
    few = replace(resampling, reps=min(resampling.reps or MOST_DRAWN, MOST_DRAWN))
    notes: list[str] = []
    budget = None
    if "setting" in table.frame:
        try:
            budget = online_performance(table, resampling=few)
        except InputError as error:
            notes.append(f"no tuning budget: {error}")
        table = table.by_setting()
    final = table.final()
    summary = summarise(
        final,
        resampling=resampling,
        studentized=studentized,
        partial=True,
        progress=stage(progress, 0, 40),
    )
    notes = [*final.notes, *explain(final, summary), *notes]
    compared = _comparable(final)
    comparison = None
    if len(compared) > 1:
        try:
            comparison = compare(
                final, algorithms=compared, resampling=resampling, progress=stage(progress, 40, 80)
            )
            notes += comparison.notes
        except InputError as error:  # more pairs than a comparison takes
            notes.append(f"no pair is tested: {error}")
    ranked = None if comparison is None else ranks(final.only(compared), resampling=few)
    tasks = per_task(final)
    return Findings(
        title=title,
        naming=naming,
        table=table,
        final=final,
        resampling=resampling,
        summary=summary,
        per_task=tasks,
        robustness=robustness(final),
        groups=per_group(final, naming.groups),
        profile=profile(final, resampling=few),
        curves=_curves(table, replace(resampling, reps=None), stage(progress, 80, 100)),
        compared=tuple(compared),
        comparison=comparison,
        ranks=ranked,
        ranking=_ranking(summary, tasks, comparison, ranked),
        budget=budget,
        notes=tuple(notes),
    )


def _ranking(
    summary: pd.DataFrame,
    tasks: pd.DataFrame,
    comparison: Comparison | None,
    ranked: pd.DataFrame | None,
) -> pd.DataFrame:
    """A row per algorithm, the largest IQM first; those without one by their names."""
    main = summary[summary["ci_method"] == main_method(summary["ci_method"])]
    estimates = dict(iter(main.groupby("metric", sort=False)))
    frame = estimates["iqm"][["algorithm", "estimate", "ci_low", "ci_high", "n_tasks"]]
    frame = frame.rename(columns={"estimate": "iqm"}).reset_index(drop=True)
    for metric in METRICS[1:]:
        frame[metric] = estimates[metric]["estimate"].to_numpy()
    counts = tasks.groupby("algorithm", sort=False)[["n", "n_failed"]].sum()
    frame["runs"] = frame["algorithm"].map(counts.sum(axis=1))
    frame["failed"] = frame["algorithm"].map(counts["n_failed"])
    names = sorted(frame["algorithm"], key=natural)
    places = frame["algorithm"].map({name: place for place, name in enumerate(names)})
    frame = frame.assign(place=places).sort_values(
        ["iqm", "n_tasks", "place"], ascending=[False, False, True], na_position="last"
    )
    frame["letters"], frame["best"] = "", np.nan
    if comparison is not None and ranked is not None:
        pairs = comparison.pairs[comparison.pairs["verdict"].isin(TOLD)]
        apart = {frozenset(two) for two in zip(pairs["x"], pairs["y"], strict=True)}
        best = dict(zip(ranked["algorithm"], ranked["rank_1"], strict=True))
        shown = letters([name for name in frame["algorithm"] if name in best], apart)
        frame["letters"] = frame["algorithm"].map(shown).fillna("")
        frame["best"] = frame["algorithm"].map(best)
    return frame[list(RANKING)].reset_index(drop=True)


def _comparable(final: ScoreTable) -> list[str]:
    """The algorithms with two runs or more on every data set, in the first way to act."""
    ways = final.ways
    return [
        name
        for name, tasks in final.cells().items()
        if name not in ways
        and len(tasks) == len(final.datasets)
        and min(map(len, tasks.values())) > 1
    ]


def _curves(
    table: ScoreTable, resampling: Resampling, progress: Progress | None
) -> dict[str | None, pd.DataFrame]:
    """A learning curve for each data set with several steps, after one over all data sets."""
    frame = table.frame
    if "step" not in frame:
        return {}
    steps = frame.groupby("dataset")["step"].nunique()
    datasets: list[str | None] = [name for name in table.datasets if steps.get(name, 0) > 1]
    if len(table.datasets) > 1 and datasets:
        datasets.insert(0, None)
    curves = {}
    for done, dataset in enumerate(datasets, start=1):
        curves[dataset] = curve(table, dataset, resampling=resampling)
        if progress is not None:
            progress(done, len(datasets))
    return curves


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame for JSON, with None for what is missing or infinite."""
    return [
        {str(key): None if pd.isna(value) else json_value(value) for key, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]
