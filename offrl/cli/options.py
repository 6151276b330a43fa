"""Options of runs, and what those with several parts mean: `--set`, `--grid`, `--seed`, ..."""

import re
import tomllib
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from offrl.errors import InputError
from offrl.toml import parse_toml

MOST_SEEDS = 50_000

# What replaces a protocol's own values everywhere.
Steps = Annotated[
    int | None,
    typer.Option(metavar="N", help="Gradient steps of every run, whatever the protocol says."),
]
Seeds = Annotated[
    list[str] | None,
    typer.Option(
        "--seed",
        metavar="N",
        help="Instead of the protocol's: one, several as 0,1,2, or all of 0..4. Repeatable.",
    ),
]
Every = Annotated[
    int | None,
    typer.Option(metavar="N", help="Gradient steps between evaluations, of every run."),
]
Episodes = Annotated[
    int | None, typer.Option(metavar="N", help="Episodes of every evaluation, the last one too.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A config value of every algorithm that has KEY; LABEL.KEY=VALUE, of one. Repeatable.",
    ),
]

# Where runs are carried out.
LauncherName = Annotated[
    str,
    typer.Option("--launcher", metavar="local|ray|slurm", help="Where the runs are carried out."),
]
AllowedVersions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Let machines of a cluster differ in this: a package, python, commit. Repeatable.",
    ),
]
ChunkHours = Annotated[
    float, typer.Option(metavar="HOURS", help="About how long a task of a cluster works.")
]
Partition = Annotated[str | None, typer.Option(metavar="NAME", help="Of Slurm.")]
Parallelism = Annotated[
    int, typer.Option(metavar="N", help="Tasks of a Slurm array that work at once, at most.")
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="KEY=VALUE",
        help="An option of sbatch or submitit, such as account=NAME. Repeatable.",
    ),
]


def replica_count(text: str) -> int | None:
    """What `--replicas` says: a number, or None for auto."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--replicas {text:.80}: expected auto or a whole number") from None


def slurm_options(texts: Iterable[str]) -> dict[str, str]:
    """The options KEY=VALUE of Slurm."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z_-]*", key) or key in options:
            raise InputError(
                f"--slurm {text:.80}: expected KEY=VALUE, each key once, for example account=name"
            )
        options[key] = value
    return options


def config_value(setting: str) -> tuple[str, Any]:
    """The key and the value of KEY=VALUE, read as TOML; a bare word is a string."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting:.80}: expected KEY=VALUE, for example --set beta=10")
    try:
        return key, _value(text)
    except ValueError as error:
        raise InputError(f"--set {setting:.80}: not a value: {error}") from None


def grid_values(settings: Iterable[str]) -> dict[str, list[Any]]:
    """The values of each KEY=VALUE,VALUE,...: TOML, such as `hidden=[64,64],[128,128]`.

    Bare words are strings. Raises InputError for a key that is given twice.
    """
    grid: dict[str, list[Any]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key or not text.strip():
            raise InputError(
                f"--grid {setting:.80}: expected KEY=VALUE,VALUE,..., for example "
                "--grid beta=1,3,10"
            )
        if key in grid:
            raise InputError(f"--grid {key:.80} is given twice; give its values in one --grid")
        try:
            values = _value(f"[{text}]")
            if not isinstance(values, list):  # with a bare word among them
                values = [_value(part.strip()) for part in text.split(",")]
        except ValueError as error:
            raise InputError(f"--grid {setting:.80}: not values: {error}") from None
        grid[key] = values
    return grid


def config_values(settings: Iterable[str]) -> dict[str, Any]:
    """The values of each `--set KEY=VALUE`. Raises InputError for a key that is given twice."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, value = config_value(setting)
        if key in values:
            raise InputError(
                f"--set {key:.80} is given twice; give one value, or several as --grid"
            )
        values[key] = value
    return values


def seed_numbers(texts: Iterable[str]) -> list[int]:
    """The seeds of each `--seed`: a number, several as 0,1,2 or all of 0..4."""
    seeds: list[int] = []
    for text in texts:
        for part in text.split(","):
            match = re.fullmatch(r"\s*(-?[0-9]{1,20})\s*(?:\.\.\s*([0-9]{1,20})\s*)?", part)
            if match is None or (match[2] and int(match[2]) < int(match[1])):
                raise InputError(
                    f"--seed {text:.80}: expected a whole number, several as 0,1,2, or from one to "
                    "another as 0..4"
                )
            first, last = int(match[1]), int(match[2] or match[1])
            if len(seeds) + last - first >= MOST_SEEDS:
                raise InputError(f"--seed {text:.80}: expected at most {MOST_SEEDS:,} seeds")
            seeds += range(first, last + 1)
    return seeds


def _value(text: str) -> Any:
    """A value of TOML; a bare word is a string."""
    try:
        tables = parse_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:  # a bare word; the config's own check says what it expects
        return text
    return tables["value"] if len(tables) == 1 else text
