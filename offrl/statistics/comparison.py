"""Comparisons of algorithms, two at a time, from a score table.

Of every pair (x, y), with A > B read as "x scores more than y":

- P(X > Y), probability of improvement: the mean over data sets of the probability that a run of x
  scores more than a run of y, ties counting one half (Agarwal et al. 2021, equation 2);
- the difference of their IQMs;
- p of a stratified permutation test: runs change hands between x and y within each data set, and p
  is how often the IQMs then differ as much (Fisher 1935; Phipson and Smyth 2010 for the count). It
  is exact if x and y have equal distributions, but errs too often where only their IQMs are equal
  and their spreads or numbers of runs are not;
- p of a t test of the IQMs, which holds for unequal spreads: the difference over its standard error
  from winsorised variances (Yuen 1974), with Satterthwaite's degrees of freedom. The larger of both
  p is the one that counts;
- Welch's test of the means on each data set (Welch 1947).

Intervals are expanded percentile ones (see `bootstrap`) over the runs of both, as 2 T strata. The
variance of P(X > Y) is that of its placements, the share of y's runs below each run of x and the
other way round (DeLong, DeLong and Clarke-Pearson 1988). p is corrected by Holm's method (1979)
over all pairs, Welch's over all pairs and data sets. Correction aside, a pair's numbers depend on
its own scores alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, prod
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray
from scipy.special import gammaln

from offrl.errors import InputError, unknown
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import LEVEL, Array, Counts, Draws, Interval, Trimmed
from offrl.statistics.summary import canonical, check_engine, iqm, variances_of

PERMUTATIONS = 10_000
LISTED = 100_000  # permutations that are taken one by one, all at once, where there are no more
POWER = 0.8  # with which the numbers of seeds that a verdict names would tell
SEEDS = np.unique(np.geomspace(2, 100_000, 400).round().astype(int))
PAIRS = (
    *("x", "y", "probability", "probability_low", "probability_high"),
    *("difference", "difference_low", "difference_high", "p_permutation", "p_t", "p_holm"),
    *("verdict", "seeds"),
    *("n_x", "n_y", "n_tasks", "reps", "probability_error", "difference_error"),
)
TASKS = (*("x", "y", "dataset", "difference", "ci_low", "ci_high", "p", "p_holm", "n_x", "n_y"),)

Tasks = Mapping[str, Array]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs: `pairs`, a row each, and `tasks`, a row for each data set of each."""

    pairs: pd.DataFrame
    tasks: pd.DataFrame
    alpha: float
    margin: float | None
    permutations: int
    notes: tuple[str, ...]


def compare(
    table: ScoreTable,
    *,
    baseline: str | None = None,
    algorithms: Sequence[str] | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    reps: int | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    engine: str = "offrl",
    progress: Progress | None = None,
) -> Comparison:
    """Every pair of algorithms, or every algorithm against a baseline, compared.

    The verdict on x against y is

    - "equivalent" where a margin is given and the t interval of the difference of IQMs at level
      1 - 2 alpha / (number of pairs) lies within it (two one-sided tests, Schuirmann 1987);
    - "better" or "worse" where the corrected p is at most alpha, by the sign of the difference;
    - "cannot tell" otherwise. `seeds` is then how many seeds on each data set, more than now, would
      tell with probability 0.8, were the difference and the variances what they seem: a plan.

    `pairs` has the columns PAIRS: intervals are 95 %, `n_x` and `n_y` the smallest numbers of runs
    on a data set, the errors the larger Monte-Carlo standard error of an interval's two ends.
    `tasks` has TASKS: the difference of means with Welch's 95 % interval and p.

    Args:
        table: scores of two algorithms or more, with two runs or more of each on every data set;
            otherwise InputError, which names the cells.
        baseline: the algorithm to compare all others with.
        algorithms: compare these alone.
        margin: the largest difference of IQMs that counts as none, in points of the scale.
        alpha: error rate of the tests, over all pairs.
        reps: resamples of each pair; by default as many as a Monte-Carlo error of at most
            `bootstrap.SHARE` of the width of both intervals needs.
        permutations: random permutations; where there are no more in all (up to LISTED), each is
            taken once.
        seed: of resamples and permutations.
        engine: "rliable" has the library of that name compute P(X > Y) and its percentile interval,
            by default from 2,000 resamples (`reps` in the answer is that of the difference).
        progress: called with the number of pairs done and their number.
    """
    bootstrap.check(reps, seed)
    check_engine(engine)
    if not 0 < alpha < 0.5:
        raise InputError(f"alpha {alpha:g}: expected an error rate between 0 and 0.5, such as 0.05")
    if margin is not None and not (margin > 0 and np.isfinite(margin)):
        raise InputError(f"margin {margin:g}: expected points of the score, more than 0")
    if permutations < 100:
        raise InputError(f"permutations {permutations}: too few for a p; give 100 or more")
    cells = _cells(table, baseline, algorithms)
    names = [baseline, *(a for a in cells if a != baseline)] if baseline else list(cells)
    if baseline:
        labels = [(name, baseline) for name in names[1:]]
    else:
        labels = [(x, y) for k, x in enumerate(names) for y in names[k + 1 :]]
    theirs = None
    if engine == "rliable":  # first, as it refuses more
        from offrl.statistics import rliable as rliable_engine

        theirs = rliable_engine.probabilities(
            table, labels, reps=reps, seed=seed, progress=progress
        )
    pairs = [_Pair(cells[x], cells[y]) for x, y in labels]
    found = _intervals(pairs, reps, seed, progress)
    exact, t = _permutation(pairs, permutations, seed), np.array([pair.p for pair in pairs])
    corrected = holm(np.maximum(exact, t))
    rows = []
    for k, ((x, y), pair, (ends, used)) in enumerate(zip(labels, pairs, found, strict=True)):
        verdict, seeds = "cannot tell", None
        if margin is not None and pair.within(margin, alpha / len(pairs)):
            verdict = "equivalent"
        elif corrected[k] <= alpha:
            verdict = "better" if pair.difference > 0 else "worse"
        else:
            seeds = pair.seeds(alpha / len(pairs), margin, permutations)
        probability, difference = ends
        rows.append(
            (
                *(x, y, pair.probability, probability.low, probability.high),
                *(pair.difference, difference.low, difference.high),
                *(exact[k], t[k], corrected[k]),
                *(verdict, seeds, int(min(pair.n_x)), int(min(pair.n_y)), len(pair.n_x), used),
                *(probability.error, difference.error),
            )
        )
    frame = pd.DataFrame(rows, columns=list(PAIRS)).astype({"seeds": "Int64"})
    if theirs is not None:
        columns = ["probability", "probability_low", "probability_high"]
        frame[columns] = theirs[columns].to_numpy()
        frame["probability_error"] = np.nan
    tasks = welch(cells, labels)
    notes = _notes(pairs, frame, alpha, permutations)
    return Comparison(frame, tasks, alpha, margin, permutations, tuple(notes))


def words(pair: Mapping[Any, Any], margin: float | None = None) -> str:
    """The verdict of a row of `Comparison.pairs` in words, on x."""
    verdict = str(pair["verdict"])
    if verdict == "equivalent":
        return f"equivalent within {margin:g}"
    if verdict != "cannot tell":
        return verdict
    verdict += f" with {min(pair['n_x'], pair['n_y'])} seeds"
    return verdict if pd.isna(pair["seeds"]) else f"{verdict}; some {pair['seeds']:,} would"


def probability_of_improvement(x: Sequence[Array], y: Sequence[Array]) -> float:
    """P(X > Y): mean over tasks of the share of pairs of runs with x above y, ties one half.

    Args:
        x: one array of runs per task.
        y: the same tasks in the same order.
    """
    return float(np.mean([_above(a, b).mean() for a, b in zip(x, y, strict=True)]))


def holm(p: Array) -> Array:
    """Holm's step-down adjusted p (1979); NaN is not a test and stays NaN."""
    adjusted = np.full(len(p), np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def welch(
    cells: Mapping[str, Tasks], pairs: Sequence[tuple[str, str]], level: float = LEVEL
) -> pd.DataFrame:
    """Differences of means on each data set with Welch's interval and p; columns TASKS.

    p_holm is corrected over all rows. Where neither algorithm's runs differ among themselves there
    is no test: interval and p are NaN.
    """
    rows = [(x, y, task, cells[x][task], cells[y][task]) for x, y in pairs for task in cells[x]]
    runs = np.array([[len(a), len(b)] for *_, a, b in rows])
    means = np.array([[a.mean(), b.mean()] for *_, a, b in rows])
    shares = np.array([[a.var(ddof=1), b.var(ddof=1)] for *_, a, b in rows]) / runs
    # Runs that tie up to the order of summation.
    shares[shares <= (1e-13 * np.abs(means)) ** 2] = 0
    total = shares.sum(axis=1)
    difference = means[:, 0] - means[:, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        df = total**2 / (shares**2 / (runs - 1)).sum(axis=1)
        p = 2 * scipy.stats.t.sf(np.abs(difference) / np.sqrt(total), df)
        half = scipy.stats.t.isf((1 - level) / 2, df) * np.sqrt(total)
    p[total == 0] = half[total == 0] = np.nan
    labels = pd.DataFrame([row[:3] for row in rows], columns=list(TASKS[:3]))
    return labels.assign(
        difference=difference,
        ci_low=difference - half,
        ci_high=difference + half,
        p=p,
        p_holm=holm(p),
        n_x=runs[:, 0],
        n_y=runs[:, 1],
    )


class _Pair:
    """Two algorithms on the same data sets, in an order that no name decides.

    `x` and `y` are sorted runs per task, `turned` if they stand the other way round than asked for:
    resamples of the one come from a first stream and of the other from a second.
    """

    def __init__(self, x: Tasks, y: Tasks):
        tasks = [(np.sort(x[task]), np.sort(y[task])) for task in x]
        mine, other = (canonical([task[k] for task in tasks]) for k in (0, 1))
        keys = [
            (_key(side), sorted(tuple(map(tuple, task[::step])) for task in tasks))
            for side, step in ((mine, 1), (other, -1))
        ]
        self.turned = keys[0] > keys[1]
        if self.turned:
            tasks = [task[::-1] for task in tasks]
            mine, other = other, mine
        tasks.sort(key=lambda task: (len(task[0]), len(task[1]), *task[0], *task[1]))
        self.x, self.y = [a for a, _ in tasks], [b for _, b in tasks]
        runs = np.array([[len(a), len(b)] for a, b in tasks])
        self.runs = runs
        self.sides = mine, other  # as `Draws` takes them for the IQM of each alone
        self.n_x, self.n_y = runs.T[::-1] if self.turned else runs.T
        self.sign = -1 if self.turned else 1
        self.above = [_above(a, b) for a, b in tasks]
        point = probability_of_improvement(self.x, self.y)
        self.probability = 1 - point if self.turned else point
        self.grid = 1 / (2 * int(runs.prod(axis=1).min()) * len(tasks))
        self.difference = self.sign * (iqm(mine) - iqm(other))
        # Variances of the difference and of P(X > Y), of 2 T strata each.
        self.variances = np.concatenate([variances_of(side, np.inf)[0] for side in self.sides])
        self.strata = np.array([len(cell) for side in self.sides for cell in side])
        placed = [[above.mean(axis=1 - k).var(ddof=1) for above in self.above] for k in (0, 1)]
        self.placements = (np.array(placed) / runs.T / len(tasks) ** 2).ravel()

    @property
    def p(self) -> float:
        """Two-sided p of the t test of the IQMs; without any spread 1 for none, 0 for some."""
        error, df = self._error()
        if error == 0:
            return float(self.difference == 0)
        return float(2 * scipy.stats.t.sf(abs(self.difference) / error, df))

    def within(self, margin: float, alpha: float) -> bool:
        """Whether two one-sided t tests at level alpha put the difference within the margin."""
        error, df = self._error()
        reach = abs(self.difference) + scipy.stats.t.isf(alpha, df) * error
        return bool(error > 0 and reach < margin)

    def _error(self) -> tuple[float, float]:
        """Standard error of the difference, and its degrees of freedom."""
        df, _ = bootstrap.freedom(self.variances, self.strata)
        return float(np.sqrt(self.variances.sum())), float(df)

    def seeds(self, alpha: float, margin: float | None, permutations: int) -> int | None:
        """The fewest seeds, more than now, with which tests at level alpha would tell; or None."""
        share = self.variances * self.strata  # with a single seed
        if share.sum() == 0:
            return None
        t, seeds = scipy.stats.t, SEEDS[np.searchsorted(SEEDS, self.runs.max(), side="right") :]
        error = np.sqrt(share.sum() / seeds)
        df = (seeds - 1) * share.sum() ** 2 / (share**2).sum()
        different = t.sf(t.isf(alpha / 2, df) - abs(self.difference) / error, df)
        # The permutation test cannot tell with less than this p.
        ways = len(self.runs) * (gammaln(2 * seeds + 1) - 2 * gammaln(seeds + 1))
        least = np.maximum(np.exp(np.log(2) - ways), 1 / (permutations + 1))
        found = np.where(least <= alpha, different, 0)
        if margin is not None:
            limit = t.isf(alpha, df)
            low, high = (
                t.cdf((side - self.difference) / error - sign * limit, df)
                for side, sign in ((-margin, -1), (margin, 1))
            )
            found = np.maximum(found, high - low)
        enough = np.flatnonzero(found >= POWER)
        return int(seeds[enough[0]]) if len(enough) else None


def _intervals(
    pairs: Sequence[_Pair], reps: int | None, seed: int, progress: Progress | None
) -> list[tuple[tuple[Interval, Interval], int]]:
    """Intervals of P(X > Y) and of the difference of each pair, and the number of resamples."""
    done: set[int] = set()
    if progress is not None:
        progress(0, len(pairs))

    def sample(active: list[int], first: int, last: int) -> list[Array]:
        found = {i: np.zeros((2, last - first)) for i in active}
        for shape in dict.fromkeys(_shape(pairs[i].runs) for i in active):
            group = [i for i in active if _shape(pairs[i].runs) == shape]
            for i, row in zip(
                group, _probabilities([pairs[i] for i in group], first, last, seed), strict=True
            ):
                found[i][0] = row
        # An algorithm is resampled once for all its pairs.
        for k, purpose in enumerate(("first", "second")):
            sides = {_key(pairs[i].sides[k]): pairs[i].sides[k] for i in active}
            iqms = _iqms(sides, purpose, first, last, seed)
            for i in active:
                found[i][1] += (1, -1)[k] * iqms[_key(pairs[i].sides[k])]
        return [found[i] for i in active]

    def read(i: int, samples: Array) -> tuple[tuple[Interval, Interval], bool]:
        pair = pairs[i]
        probabilities, differences = np.sort(samples, axis=1)
        levels = [
            float(bootstrap.expanded_level(pair.placements, pair.runs.T.ravel(), LEVEL)),
            float(bootstrap.expanded_level(pair.variances, pair.strata, LEVEL)),
        ]
        point = 1 - pair.probability if pair.turned else pair.probability
        probability = bootstrap.read(probabilities, levels[0], point)
        difference = bootstrap.read(differences, levels[1], pair.sign * pair.difference)
        done.add(i)
        if progress is not None:
            progress(len(done), len(pairs))
        # P lies on a grid, so that an end may always fall on either of two points.
        settled = probability.precise or probability.error <= pair.grid * (1 + 1e-9)
        precise = settled and difference.precise
        if pair.turned:
            probability, difference = _turn(probability, 1), _turn(difference, 0)
        return (probability, difference), precise

    return bootstrap.converge(len(pairs), sample, read, reps)


def _probabilities(pairs: Sequence[_Pair], first: int, last: int, seed: int) -> Array:
    """P(X > Y) in resamples of pairs of one shape, shape (pairs, last - first).

    With how often each run is drawn, c and d, a task's P is c A d: a product of all pairs' A with
    the outer products of c and d, which all pairs share. Small whole numbers, so exact in float32.
    """
    runs = pairs[0].runs
    # Twice A is whole; sums stay below 2 n_x n_y.
    dtype = np.float32 if 2 * runs.prod(axis=1).max() < 2**24 else np.float64
    matrices = [
        np.stack([2 * pair.above[t].ravel() for pair in pairs]).astype(dtype)
        for t in range(len(runs))
    ]
    found = np.zeros((len(pairs), last - first))
    size = bootstrap.block_size(int(runs.sum(axis=0).max()))
    draws = [
        Draws(runs[:, k], seed, f"probability {name}", size)
        for k, name in enumerate(("first", "second"))
    ]
    ends = runs.cumsum(axis=0)
    for (place, mine), (_, other) in zip(*(d.blocks(first, last) for d in draws), strict=True):
        for (x_end, y_end), (n_x, n_y), matrix in zip(ends, runs, matrices, strict=True):
            c = mine[x_end - n_x : x_end].astype(dtype)
            d = other[y_end - n_y : y_end].astype(dtype)
            step = max(16, bootstrap.BLOCK // (n_x * n_y))
            for start in range(0, c.shape[1], step):
                part = slice(start, start + step)
                outer = (c[:, None, part] * d[None, :, part]).reshape(n_x * n_y, -1)
                wins = (matrix @ outer).astype(np.float64)
                found[:, place][:, part] += wins / (2 * n_x * n_y * len(runs))
    return found.round(12)


def _iqms(
    sides: Mapping[tuple[float, ...], Sequence[Array]],
    purpose: str,
    first: int,
    last: int,
    seed: int,
) -> dict[tuple[float, ...], Array]:
    """The IQM of each algorithm in resamples."""
    found = {key: np.empty(last - first) for key in sides}
    shapes = {key: tuple(len(cell) for cell in cells) for key, cells in sides.items()}
    for shape in dict.fromkeys(shapes.values()):
        trimmed = {
            key: Trimmed(np.concatenate(sides[key]), sum(shape))
            for key in sides
            if shapes[key] == shape
        }
        for place, counts in Draws(shape, seed, f"difference {purpose}").blocks(first, last):
            for key, at in trimmed.items():
                found[key][place] = at(counts)
    return found


def _permutation(pairs: Sequence[_Pair], permutations: int, seed: int) -> Array:
    """Two-sided p of each pair: how often labels drawn within tasks give IQMs as far apart."""
    p = np.empty(len(pairs))
    for shape in dict.fromkeys(_shape(pair.runs) for pair in pairs):
        group = [i for i, pair in enumerate(pairs) if _shape(pair.runs) == shape]
        runs = pairs[group[0]].runs
        every = _number(runs)
        listed = every <= min(permutations, LISTED)
        hits = np.zeros(len(group), dtype=int)
        pooled = [
            np.concatenate(
                [np.concatenate(both) for both in zip(pairs[i].x, pairs[i].y, strict=True)]
            )
            for i in group
        ]
        x_total, y_total = (int(n) for n in runs.sum(axis=0))
        trimmed = [(Trimmed(row, x_total), Trimmed(row, y_total)) for row in pooled]
        # Differences that agree up to the order of summation are equal.
        limits = [
            abs(pairs[i].difference) - 1e-12 * np.abs(row).max()
            for i, row in zip(group, pooled, strict=True)
        ]
        total = every if listed else permutations
        places = np.arange(1, x_total + y_total + 1)[:, None]
        places = places.astype(np.min_scalar_type(x_total + y_total))
        blocks = _every(runs) if listed else _labels(runs, permutations, seed)
        for labels in blocks:
            for k, (x, y) in enumerate(trimmed):
                ranks = x.ranks(labels)
                # What is not x's is y's.
                difference = x.mean(ranks) - y.mean(places - ranks)
                hits[k] += int((np.abs(difference) >= limits[k]).sum())
        # All permutations include the labels as they are; of a sample they are one more.
        p[group] = hits / total if listed else (hits + 1) / (total + 1)
    return p


def _number(runs: NDArray[np.int_]) -> int:
    """How many ways there are to hand out the runs of each task."""
    return prod(comb(int(n_x + n_y), int(n_x)) for n_x, n_y in runs)


def _labels(runs: NDArray[np.int_], permutations: int, seed: int) -> Iterator[Counts]:
    """Random labels, 1 for x and 0 for y, in blocks of shape (N, b)."""
    size = bootstrap.block_size(int(runs.sum()))
    for k, first in enumerate(range(0, permutations, size)):
        rng = bootstrap.stream(seed, "permutation", *runs.ravel().tolist(), k)
        parts = []
        for n_x, n_y in runs.tolist():
            keys = rng.random((size, n_x + n_y))
            last = np.partition(keys, n_x - 1, axis=1)[:, n_x - 1, None]
            parts.append((keys <= last).T)
        yield np.concatenate(parts)[:, : permutations - first].astype(np.uint8)


def _every(runs: NDArray[np.int_]) -> Iterator[Counts]:
    """All labels at once, shape (N, number)."""
    tasks = []
    for n_x, n_y in runs.tolist():
        chosen = np.array(list(combinations(range(n_x + n_y), n_x)))
        labels = np.zeros((len(chosen), n_x + n_y), dtype=np.uint8)
        np.put_along_axis(labels, chosen, 1, axis=1)
        tasks.append(labels)
    grid = np.indices([len(labels) for labels in tasks]).reshape(len(tasks), -1)
    yield np.concatenate([labels[at].T for labels, at in zip(tasks, grid, strict=True)])


def _cells(
    table: ScoreTable, baseline: str | None, algorithms: Sequence[str] | None
) -> dict[str, Tasks]:
    """Scores of the algorithms to compare; InputError where a comparison is impossible."""
    cells: dict[str, Tasks] = dict(table.cells())
    for name in [*([baseline] if baseline else []), *(algorithms or [])]:
        if name not in cells:
            raise unknown("algorithm", name, cells)
    if algorithms is not None:
        cells = {name: cells[name] for name in cells if name in {*algorithms, baseline}}
    if len(cells) < 2:
        raise InputError(
            f"{', '.join(cells) or 'no algorithm'}: a comparison needs two algorithms or more"
        )
    empty = [(a, d) for a in cells for d in table.datasets if d not in cells[a]]
    if empty:
        more = f" and {len(empty) - 1} more cells" if len(empty) > 1 else ""
        raise InputError(
            f"{empty[0][0]!r} has no finished run on {empty[0][1]!r}{more}; compare the algorithms "
            "that have, or leave the data set out for all"
        )
    table.only(cells).check_several_runs()
    return cells


def _notes(
    pairs: Sequence[_Pair],
    frame: pd.DataFrame,
    alpha: float,
    permutations: int,
) -> list[str]:
    """What a reader must know: pairs that no number can tell apart, intervals that are a point."""
    notes = []
    # Where all numbers of runs are equal, swapping the two algorithms changes no difference.
    ways = [
        (_number(pair.runs), bool((pair.runs[:, 0] == pair.runs[:, 1]).all())) for pair in pairs
    ]
    least = min(max((1 + even) / number, 1 / (permutations + 1)) for number, even in ways)
    if least * len(pairs) > alpha:
        notes.append(
            f"no pair can be told apart, whatever the scores: the smallest p that so few runs or "
            f"permutations can give is {least:.2g}, and {min(1, least * len(pairs)):.2g} corrected "
            f"for {len(pairs)} {'pairs' if len(pairs) > 1 else 'pair'}; run more seeds"
            + (", or compare with one baseline" if len(pairs) > 1 else "")
        )
    point = frame[(frame["probability_low"] == frame["probability_high"])]
    if len(point):
        shown = [f"{x} and {y}" for x, y in zip(point["x"], point["y"], strict=True)]
        if len(shown) > 5:
            shown[5:] = [f"{len(shown) - 5} more pairs"]
        notes.append(
            "The interval of P(X > Y) is a single point where every resample agrees, which is no "
            f"evidence of certainty: {', '.join(shown)}"
        )
    return notes


def _above(x: Array, y: Array) -> Array:
    """1 where a run of x scores more than a run of y, 1/2 where they tie, shape (n_x, n_y)."""
    found: Array = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    return found


def _turn(interval: Interval, whole: int) -> Interval:
    """The interval of `whole` minus the estimate."""
    return Interval(
        whole - interval.high, whole - interval.low, interval.high_error, interval.low_error
    )


def _shape(runs: NDArray[np.int_]) -> tuple[int, ...]:
    return tuple(runs.ravel().tolist())


def _key(cells: Sequence[Array]) -> tuple[float, ...]:
    """Sorted scores as one tuple, task after task, with the numbers of runs."""
    return tuple(value for cell in cells for value in (len(cell), *cell.tolist()))
