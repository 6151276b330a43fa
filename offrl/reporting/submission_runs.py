"""The runs of a submission, and what of them may be true but rarely is."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from offrl.data.card import shipped_cards
from offrl.reporting.similar_returns import COPIED, common_form, correlated
from offrl.results.rows import Identity, RunRecord, ScoreRow, Status, main_scores, run_score
from offrl.running.protocol import Protocol

HIGH = 150.0  # a score above this is looked at
FASTEST = 50_000  # gradient steps a second
MOST_SEEDS = 200  # of a data set, whose returns are compared


@dataclass(frozen=True)
class Run:
    """A run of a submission, its rows in the way to act that stands for it."""

    folder: Path
    record: RunRecord
    rows: tuple[ScoreRow, ...]

    @property
    def identity(self) -> Identity:
        """What decides the run's scores."""
        return self.record.identity

    @property
    def title(self) -> str:
        """How lines name the run."""
        return f"{self.identity.dataset.partition('@')[0]}, seed {self.identity.seed}"

    @property
    def score(self) -> float | None:
        """The run's score by its protocol's rule; None for a failed run."""
        if self.record.status is not Status.DONE:
            return None
        return run_score(main_scores(self.rows), self.identity.last)


def cells(runs: Sequence[Run]) -> Mapping[str, dict[int, float]]:
    """The scores of runs by data set and seed; failed ones have none."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for run in runs:
        if (score := run.score) is not None:
            found[run.identity.dataset][run.identity.seed] = score
    return found


def copies(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Faults: runs with the same returns. Warnings: runs with returns that correlate."""
    faults: list[str] = []
    warnings: list[str] = []
    datasets: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.rows:
            datasets[run.identity.dataset].append(run)
    for of in datasets.values():
        forms = [(run, common_form(run.rows[-1].returns)) for run in of[:MOST_SEEDS]]
        for (run, form), (other, its) in itertools.combinations(forms, 2):
            pair = f"{run.title} and {other.identity.seed}"
            x, y = run.rows[-1].returns, other.rows[-1].returns
            if form is not None and form == its:
                faults.append(f"{pair}: have the same returns, which two seeds have not")
            elif (r := correlated(x, y)) is not None:
                line = f"{pair}: their returns correlate ({r:.3f}), episode by episode"
                (faults if abs(r) > COPIED else warnings).append(line)
    return faults, warnings


def odd(runs: Sequence[Run], protocol: Protocol | None) -> Iterator[str]:
    """What may be true, and is looked at. The protocol is None at an earlier version."""
    if protocol is not None:
        ran_on = {run.identity.dataset.partition("@")[0] for run in runs}
        if lacking := {*protocol.datasets} - ran_on:
            yield f"partial: lacks {listed(sorted(lacking))}, so that it is shown and not ranked"
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        if run.record.status is Status.FAILED:
            cause = f"{run.record.cause!s:.100}"
            yield f"{run.title}: failed ({cause}), so that the entry is shown and not ranked"
        if (score := run.score) is None:
            continue
        if score > HIGH:
            yield f"{run.title}: a score of {score:.1f} is far above the reference's 100"
        scores[run.identity.dataset].append((score, _error(run.rows[-1])))
        rate = run.identity.steps / max(run.rows[-1].wall_time, 1e-9)
        if rate > FASTEST:
            yield f"{run.title}: {rate:,.0f} steps a second, evaluations included"
        if any(str(s.commit).endswith("-dirty") for s in run.record.sessions):
            yield f"{run.title}: ran from a checkout with changes that no commit has"
        if len({json.dumps(row.simulator, sort_keys=True) for row in run.rows}) > 1:
            yield f"{run.title}: its simulator changed its version on the way"
    yield from _constant(runs)
    for dataset, cells in scores.items():
        if (line := _too_even(dataset, cells)) is not None:
            yield line


def _constant(runs: Sequence[Run]) -> Iterator[str]:
    """A warning for each data set on which all episodes of all seeds have one return."""
    returns: dict[str, set[float]] = defaultdict(set)
    for run in runs:
        returns[run.identity.dataset].update(run.rows[-1].returns if run.rows else ())
    for dataset, values in returns.items():
        if len(values) == 1:
            yield f"{dataset}: every episode of every seed has the return {values.pop():g}"


def _error(row: ScoreRow) -> float:
    """The standard error of a row's score by the spread of its episodes."""
    n = len(row.returns)
    if n < 2 or row.score is None or row.mean_return is None:
        return 0.0
    mean = row.mean_return
    variance = math.fsum((value - mean) ** 2 for value in row.returns) / (n - 1)
    return math.sqrt(variance / n)


def _too_even(dataset: str, cells: Sequence[tuple[float, float]]) -> str | None:
    """A warning where seeds differ less than their episodes alone make them differ."""
    card = shipped_cards().get(dataset.partition("@")[0])
    if len(cells) < 3 or card is None or card.reference is None:
        return None
    scale = 100 / (card.reference.max - card.reference.min)
    noise = math.fsum((error * scale) ** 2 for _, error in cells) / len(cells)
    mean = math.fsum(score for score, _ in cells) / len(cells)
    spread = math.fsum((score - mean) ** 2 for score, _ in cells)
    if noise == 0 or stats.chi2.cdf(spread / noise, len(cells) - 1) > 1e-4:
        return None
    sd = math.sqrt(spread / (len(cells) - 1))
    return (
        f"{dataset}: the scores of its seeds have the deviation {sd:.2g}; that of their episodes "
        f"alone makes {math.sqrt(noise):.2g}"
    )


def listed(values: Sequence[object]) -> str:
    """The first values, separated by commas."""
    shown = [str(value) for value in values[:12]]
    return ", ".join([*shown, *(["..."] if len(values) > 12 else [])])
