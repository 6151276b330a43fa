"""Draws the pictures of docs/statistics.md from published scores of single runs.

    python docs/statistics/figures.py d3rlpy_benchmarks_final_best.csv

The table has the columns source, algorithm, dataset, seed, step, normalized_score: the final scores
of takuseno/d3rlpy-benchmarks (commit 1771c9b), ten seeds each, on D4RL's version 0.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from offrl import plots, statistics
from offrl.results.table import ScoreTable
from offrl.statistics.comparison import compare

ALGORITHMS = ("BCQ", "BEAR", "CQL", "IQL", "PLAS+P", "TD3+BC")
KINDS = ("medium", "medium-expert", "medium-replay", "random")
TASKS = [f"{body}-{kind}-v0" for body in ("halfcheetah", "hopper", "walker2d") for kind in KINDS]


def table(path: Path, seeds: int) -> ScoreTable:
    """The scores of the first `seeds` seeds, on 0-100."""
    frame = pd.read_csv(path).rename(columns={"normalized_score": "score"})
    final = frame[frame["step"] == "final"].drop(columns="step")
    final = final[final["algorithm"].isin(ALGORITHMS) & final["dataset"].isin(TASKS)]
    rank = final.groupby(["algorithm", "dataset"])["seed"].rank()
    columns = ["algorithm", "dataset", "seed", "score"]
    return ScoreTable.from_frame(final.loc[rank <= seeds, columns], str(path))


def main() -> None:
    """Draws the two pictures and prints the numbers that the page quotes."""
    path, folder = Path(sys.argv[1]), Path(__file__).parent
    with plots.style("seeds"):
        figure = Figure(figsize=(11, 3.1), layout="constrained")
        for seeds, ax in zip((3, 5, 10), figure.subplots(1, 3, sharex=True), strict=True):
            plots.interval_plot(statistics.summarise(table(path, seeds)), ax=ax)
            ax.set_title(f"{seeds} seeds", loc="left")
        figure.savefig(folder / "seeds.png", dpi=110)
    with plots.style("ranks"):
        figure = Figure(figsize=(11, 2.6), layout="constrained")
        for seeds, ax in zip((3, 10), figure.subplots(1, 2), strict=True):
            scores = table(path, seeds)
            comparison = compare(scores)
            print(f"{seeds} seeds", comparison.pairs.to_string(), *comparison.notes, sep="\n")
            plots.critical_difference_plot(statistics.ranks(scores), comparison.pairs, ax=ax)
            ax.set_title(f"{seeds} seeds", loc="left", y=1.2)
        figure.savefig(folder / "ranks.png", dpi=110)


if __name__ == "__main__":
    main()
