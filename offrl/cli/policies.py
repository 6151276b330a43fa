"""`offrl evaluate` and `offrl export`: what is done with the policy of a run."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from offrl.cli.console import (
    AsJson,
    Row,
    Trusted,
    print_line,
    print_message,
    progress_bar,
    show_rows,
)
from offrl.errors import InputError

Way = Annotated[
    str, typer.Option(metavar="NAME", help="The way to act, where the algorithm has several.")
]
Algorithm = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The .py file that the run trained, where it is yours."),
]


QUARTILES = ("first_quartile", "median", "third_quartile")


def evaluate(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs, each with a run.json.")
    ],
    episodes: Annotated[int, typer.Option(metavar="N", help="Episodes per run.")] = 100,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Of the episodes' starts; by default the protocol's."
        ),
    ] = None,
    way: Way = "",
    algorithm: Algorithm = None,
    video: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the first episode into a .mp4 or .gif file."),
    ] = None,
    trust: Trusted = None,
    as_json: AsJson = False,
) -> None:
    """Play further episodes with the policy of a run's last checkpoint.

    Example: offrl evaluate runs/quickstart/pointmaze-quickstart/bc-*/seed-0 --episodes 1000
    """
    import torch

    if video is not None and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo is imported

    from offrl.reporting.words import TERMINAL, Words
    from offrl.running.evaluate import check_video, record_video, simulator_notes
    from offrl.running.evaluate import evaluate as play
    from offrl.running.policies import load_policy

    if video is not None:
        if len(run) > 1:
            raise InputError(f"--video {video}: draws one run, but {len(run)} are given; give one")
        check_video(video)
    torch.set_num_threads(1)  # as in the workers of runs
    policies = [load_policy(folder, way=way, algorithm=algorithm) for folder in run]
    total = 0.0
    if video is not None:  # first, as it may not be possible
        with progress_bar(str(video)) as progress:
            total = record_video(
                policies[0], video, seed=seed, progress=progress, trust=trust or ()
            )
    words = Words(TERMINAL, decimals=2)
    rows: list[dict[str, Any]] = []
    for policy in policies:
        with progress_bar(policy.title) as progress:
            outcome = play(
                policy, episodes=episodes, seed=seed, progress=progress, trust=trust or ()
            )
        of = policy.record.identity
        labels = {
            "run": str(policy.run),
            "dataset": of.dataset,
            "algorithm": of.label,
            "seed": of.seed,
            "way": policy.way,
            "step": policy.step,
            "steps": of.steps,
        }
        rows.append({**labels, "title": policy.title, **outcome.summary()})

    def with_error(row: Row, value: str, error: str) -> str:
        if row[value] is None:
            return "none"
        return words.spread(row[value], float("nan") if row[error] is None else row[error])

    show_rows(
        rows,
        {
            "run": "title",
            "step": lambda row: f"{row['step']:,} of {row['steps']:,}",
            "episodes": lambda row: f"{row['episodes']:,}",
            "mean return": lambda row: with_error(row, "mean_return", "standard_error"),
            "score": lambda row: with_error(row, "score", "score_standard_error"),
            "quartiles": lambda row: "\n".join(words.score(row[key]) for key in QUARTILES),
            "lengths": lambda row: (
                f"{words.score(row['mean_length'])} ({row['shortest']:,} to {row['longest']:,})"
            ),
        },
        as_json,
        title="Returns, undiscounted; ± is one standard error",
    )
    for note in (note for policy in policies for note in simulator_notes(policy)):
        print_message(f"note: {note}")
    if video is not None and not as_json:
        print_line(f"the first episode, of return {words.score(total)}, is in {video}")


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of one run, with its run.json.")
    ],
    output: Annotated[Path, typer.Argument(metavar="FILE", help="A .onnx file to write.")],
    way: Way = "",
    algorithm: Algorithm = None,
) -> None:
    """Write the policy of a run's last checkpoint as ONNX, from observations to actions.

    Example: offrl export runs/quickstart/pointmaze-quickstart/bc-*/seed-0 policy.onnx
    """
    from offrl.running.export import export_onnx
    from offrl.running.policies import load_policy

    policy = load_policy(run, way=way, algorithm=algorithm)
    export_onnx(policy, output)
    print_line(f"the policy of {policy.title} at step {policy.step:,} is in {output}")
