"""`offrl data check` and `offrl data stats`: what is wrong with data, and what they hold."""

import dataclasses
import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offrl.cli.console import (
    AsJson,
    Columns,
    DataId,
    DataIds,
    Trusted,
    print_json,
    print_line,
    print_message,
    progress_bar,
    show_rows,
)

if TYPE_CHECKING:
    from offrl.data.dataset import Dataset
    from offrl.data.describe import Stats
    from offrl.evaluation.checkup import Checkup
    from offrl.evaluation.replay import Errors

PageFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Write a page with figures here."),
]
TQ = (
    "Trajectory quality (TQ) is the mean return between the card's references, 0 for the lower and "
    "1 for the upper one (Schweighofer et al. 2022)."
)
PSV = "Positive-sided variance is the mean of max(G - mean G, 0)² of returns G (Hong et al. 2023)."
SACO = (
    "State-action coverage (SACo) is the number of distinct pairs of observation and action as a "
    "share of the reference's, each column in 99 bins between the reference's extremes "
    "(Schweighofer et al. 2022). Of many columns nearly every pair is distinct: then it is size."
)
NO_SACO = (
    "Distinct pairs of observation and action are counted with each column in 99 bins between the "
    "extremes of all sets here. State-action coverage (SACo, Schweighofer et al. 2022) is their "
    "share of those in an online policy's replay: --reference ID. Of many columns nearly all "
    "are distinct."
)


def check_data(
    name: DataId, output: PageFolder = None, trust: Trusted = None, as_json: AsJson = False
) -> None:
    """Read every byte again and look for faults; exit code 1 where there is one.

    Checksums, counts and the mean return are compared with the card; ends of episodes, actions and
    repetitions are looked at; up to 1,000 steps are made again in the simulator of the card, where
    it can be set to states that a file holds or to observations.

    Example: offrl data check neorl2-dmsd -o checked
    """
    from offrl.evaluation.checkup import checkup

    with progress_bar(name) as progress:
        found = checkup(name, trust=trust or (), progress=progress)
    page = None
    if output is not None:
        from offrl.reporting.datasets import report_checkup

        page = report_checkup(found, output, command=_command())
    read = found.read
    if as_json:
        print_json(
            {
                **dataclasses.asdict(read),
                "notes": [*read.notes, *found.notes],
                "replays": [dataclasses.asdict(replay) for replay in found.replays],
                "findings": [dataclasses.asdict(finding) for finding in found.findings],
            }
        )
    else:
        _show_checkup(found)
        if page is not None:
            print_line(page)
    if found.of_verdict("fault"):
        raise typer.Exit(1)


def _show_checkup(found: "Checkup") -> None:
    from offrl.text import counted

    read = found.read
    for split, totals in read.totals.items():
        print_line(
            f"{read.id} v{read.version} {split}: {totals.transitions:,} transitions, "
            f"{counted(totals.episodes, 'episode')}, mean return {totals.mean_return:.6g}"
        )
    print_line(f"data checksum, as in runs: {read.data_sha256}")
    if read.made_sha256:
        print_line(f"digest of the columns, as on the card: {read.made_sha256}")
    print_line(f"compared with: {', '.join(read.compared)}")
    if read.unknown:
        print_line(f"the card does not know: {', '.join(read.unknown)}")
    for replay in found.replays:
        print_line(
            f"{replay.steps:,} steps of {Path(replay.file).name} made again in "
            f"{replay.environment} ({replay.note}):"
        )
        rounding = replay.rounding or (None, None)
        for name, errors, rounded in (
            ("positions", replay.positions, rounding[0]),
            ("velocities", replay.velocities, rounding[1]),
            ("rewards", replay.rewards, None),
        ):
            expected = f" (by the file's rounding alone: {_errors(rounded)})" if rounded else ""
            if errors is not None:
                print_line(f"  {name} off by {_errors(errors)}{expected}")
    for finding in found.findings:
        split = "" if finding.split == "train" else f"{finding.split}: "
        print_line(f"{finding.verdict}: {split}{finding.subject}: {finding.text}")
    for note in (*read.notes, *found.notes):
        print_line(f"note: {note}")
    print_line(found.summary)


def _errors(errors: "Errors") -> str:
    return f"median {errors.median:.1g}, 99 % {errors.quantile_99:.1g}, most {errors.maximum:.1g}"


def _command() -> str:
    return shlex.join(["offrl", *sys.argv[1:]])


def stats_data(
    names: DataIds,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The replay of an online policy, whose distinct pairs are SACo 1."
        ),
    ] = None,
    output: PageFolder = None,
    trust: Trusted = None,
    as_json: AsJson = False,
) -> None:
    """Describe data sets: counts, lengths, returns, actions, quality and coverage.

    Example: offrl data stats pointmaze-quickstart -o stats
    """
    from offrl.data.coverage import coverage
    from offrl.data.dataset import load_dataset
    from offrl.errors import InputError
    from offrl.progress import stage

    with progress_bar(", ".join(names)) as progress:
        of = names if reference is None else [*names, reference]
        datasets = [load_dataset(name, progress=progress, trust=trust or ()) for name in of]
        compared = None if reference is None else datasets.pop()
        covered, remarks = None, [TQ, PSV, SACO if reference else NO_SACO]
        try:
            covered = coverage(datasets, compared, stage(progress, 0, 70))
        except InputError as reason:
            remarks.append(str(reason))
        described, limits = zip(*map(_described, datasets), strict=True)
        if covered is not None:
            described = tuple(
                dataclasses.replace(
                    one, distinct_pairs=covered.pairs[k], saco=covered.saco and covered.saco[k]
                )
                for k, one in enumerate(described)
            )
        labels = [f"{one.id} v{one.version}" for one in described]
        labels = [
            f"{label} ({k + 1})" if labels.count(label) > 1 else label
            for k, label in enumerate(labels)
        ]
        rows = _side_by_side(described, limits)
        page = None
        if output is not None:
            from offrl.reporting.datasets import report_stats

            page = report_stats(
                datasets,
                rows,
                covered,
                output,
                labels=labels,
                remarks=remarks,
                command=_command(),
                progress=stage(progress, 70, 100),
            )
    values = [dataclasses.asdict(one) for one in described]
    columns: Columns = {
        "what": "what",
        **{
            label if len(labels) > 1 else "value": lambda row, k=k: row["values"][k]  # type: ignore[misc]
            for k, label in enumerate(labels)
        },
    }
    title = labels[0] if len(labels) == 1 else None
    show_rows(rows, columns, as_json, title=title, whole=values[0] if len(values) == 1 else values)
    if as_json:
        return
    for i, j in itertools.combinations(range(len(labels)), 2):
        if covered is not None and covered.shared[i][j]:
            print_line(
                f"{covered.shared[i][j]:,} episodes of {labels[i]} and {covered.shared[j][i]:,} of "
                f"{labels[j]} are the same, bit by bit"
            )
    if covered is None:
        print_message(f"note: {remarks[-1]}")
    if page is not None:
        print_line(page)


def _described(data: "Dataset") -> tuple["Stats", str]:
    """The summary of a data set, and its action bounds in words."""
    from offrl.data.coverage import positive_sided_variance, trajectory_quality
    from offrl.data.describe import stats
    from offrl.evaluation.environments import known_actions

    known = known_actions(data.card.environment)
    if known is not None and len(known.low) != data.actions[0].size:
        known = None  # the card names another simulator: a run says so
    described = dataclasses.replace(
        stats(data, known.bounds if known else 1.0),
        positive_sided_variance=positive_sided_variance(data.episode_returns),
        trajectory_quality=trajectory_quality(data),
    )
    bound = described.action_bound
    limits = f"[-{bound:g}, {bound:g}]" if isinstance(bound, float) else "the simulator's bounds"
    limits += "" if known else " (the simulator's bound is not known here)"
    return described, limits


def _side_by_side(described: Sequence["Stats"], limits: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the table: what, and a text for each data set."""
    every = [dataclasses.asdict(one) for one in described]
    rows = []
    for key in every[0]:
        if key in ("id", "version", "action_bound"):
            continue
        texts = [_stat_text(key, values[key], of) for values, of in zip(every, limits, strict=True)]
        if any(texts):
            what = {"saco": "state-action coverage (SACo)"}.get(key, key.replace("_", " "))
            rows.append({"what": what, "values": [text or "–" for text in texts]})
    return rows


def _stat_text(key: str, value: Any, limits: str) -> str:
    from offrl.data.describe import QUANTILES

    if value is None and key not in ("score_mean", "trajectory_quality"):
        return ""  # of the other kind of actions, or not computed
    if value is None:
        return "the card has no references"
    if key == "action_shares":
        return ", ".join(f"{name}: {share:.2%}" for name, share in value.items())
    if key == "return_quantiles":
        return ", ".join(f"{q:.0%}: {v:.5g}" for q, v in zip(QUANTILES, value, strict=True))
    if key == "actions_outside":
        return f"{value:.2%} of entries lie outside {limits}" if value else f"none of {limits}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "\n".join(value) if isinstance(value, list) else str(value)
