"""What a data set holds: compared with its card and the cache, and summarised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.cache import digest, read_meta, verify
from offrl.data.card import Card
from offrl.data.columns import Totals
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.fetch import check_file
from offrl.data.resolve import resolve
from offrl.data.transforms import has_action
from offrl.errors import InputError
from offrl.trust import Files


@dataclass(frozen=True)
class Check:
    """What `check` read again: it is as the card and the cache expect."""

    id: str
    version: int
    totals: dict[str, Totals]  # by split: of the source
    columns: dict[str, dict[str, str]]  # by split: each column's SHA-256
    files: dict[str, str]  # each source file that is still here: path and SHA-256
    compared: list[str]  # what of the card and of the cache it was compared with
    unknown: list[str]  # what the card expects nothing of
    notes: list[str]
    data_sha256: str = ""  # the data checksum: of the training split, as runs on it have it
    made_sha256: str | None = None  # the digest of the columns, where the card may have one


def check(source: str | Path | Card, *, view: str | None = None, trust: Files = ()) -> Check:
    """What a data set holds, after every byte of the cache and of its files was read again.

    Raises InputError where a checksum, a count or the mean return is not what the card or the cache
    expects.
    """
    card = resolve(source, view, trust)
    train = load_dataset(card)
    splits = {"train": train}
    if train.validation is not None:
        splits["validation"] = train.validation
    files = {}
    compared = ["the cache's checksums"]
    for split, dataset in splits.items():
        entries = read_meta(dataset.folder)["files"]
        for file, entry in zip(card.source.of_split(split), entries, strict=False):
            path = Path(entry["path"])
            if entry["sha256"] is None or not path.is_file():  # a folder, or gone
                continue
            check_file(path, file, given=not file.urls)
            files[str(path)] = digest(path)
            if files[str(path)] != entry["sha256"]:
                raise InputError(
                    f"{path}: SHA-256 {files[str(path)]}, but {entry['sha256']} when it was first "
                    f"read; fetch it again, or delete {dataset.folder} to read it anew"
                )
            if file.md5 or file.sha256:
                of = "published" if file.urls else "card's"
                compared.append(f"the {of} checksum of {file.name}")
    compared += [key for key, value in card.expected if value is not None]
    return Check(
        id=card.id,
        version=card.version,
        totals={split: dataset.source for split, dataset in splits.items()},
        columns={split: verify(dataset.folder) for split, dataset in splits.items()},
        files=files,
        compared=compared,
        unknown=card.unknown,
        notes=[note for dataset in splits.values() for note in dataset.notes],
        data_sha256=train.checksum,
        made_sha256=train.columns().digest() if card.expected.made else None,
    )


Bounds = float | tuple[Sequence[float], Sequence[float]]  # a for [-a, a]; low and high by dimension


def share_outside(actions: NDArray[Any], bound: Bounds = 1.0) -> float:
    """The share of action entries outside their bounds."""
    low, high = bound if isinstance(bound, tuple) else (-bound, bound)
    return float(np.mean((actions < low) | (actions > high)))


def action_shares(dataset: Dataset) -> dict[str, float]:
    """The share of rows with each discrete action, by its name or number; empty for continuous."""
    choices = dataset.card.actions
    if choices is None:
        return {}
    names = choices.names or [str(number) for number in range(choices.count)]
    known = dataset.actions[has_action(dataset.actions)]
    counts = np.bincount(known, minlength=choices.count)
    return dict(zip(names, (counts / len(dataset)).tolist(), strict=True))


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Stats:
    """A summary of a data set. Returns are undiscounted; quantiles are those of `QUANTILES`.

    What is about the bounds of actions is None where they are discrete, as `action_size` is.
    """

    id: str
    version: int
    view: str
    transitions: int
    episodes: int
    observation_size: int
    action_size: int | None
    terminations: int
    truncations: int
    length_min: int
    length_mean: float
    length_max: int
    return_mean: float
    return_std: float  # over episodes, ddof 1; NaN for a single episode
    return_quantiles: list[float]
    score_mean: float | None  # on 0-100; None without usable reference returns
    action_min: float | None
    action_max: float | None
    action_bound: Bounds | None  # of the simulator where it is known, else 1
    actions_outside: float | None  # share of entries outside it
    notes: list[str]
    action_count: int | None = None  # of discrete actions
    action_shares: dict[str, float] = field(default_factory=dict)  # of rows, by discrete action
    positive_sided_variance: float = math.nan  # of returns, by `offrl.data.coverage`, as the rest
    trajectory_quality: float | None = None  # TQ; None without usable reference returns
    distinct_pairs: int | None = None  # of binned observations and actions, where compared
    saco: float | None = None  # None without a reference set


def stats(dataset: Dataset, bound: Bounds = 1.0) -> Stats:
    """The summary of a data set that `offrl data stats` prints.

    `bound` is that of the simulator's actions, beyond which actions are counted.
    """
    returns = dataset.episode_returns
    lengths = dataset.episode_lengths
    mean = float(returns.mean())
    actions = dataset.actions
    discrete = dataset.action_count is not None
    return Stats(
        id=dataset.card.id,
        version=dataset.card.version,
        view=dataset.card.view,
        transitions=len(dataset),
        episodes=len(lengths),
        observation_size=dataset.observations.shape[1],
        action_size=None if discrete else actions.shape[1],
        terminations=int(dataset.terminations.sum()),
        truncations=int(dataset.truncations.sum()),
        length_min=int(lengths.min()),
        length_mean=float(lengths.mean()),
        length_max=int(lengths.max()),
        return_mean=mean,
        return_std=float(returns.std(ddof=1)) if len(returns) > 1 else math.nan,
        return_quantiles=[float(q) for q in np.quantile(returns, QUANTILES)],
        score_mean=float(dataset.normalized(mean)) if dataset.scored else None,
        action_min=None if discrete else float(np.nanmin(actions)),
        action_max=None if discrete else float(np.nanmax(actions)),
        action_bound=None if discrete else bound,
        actions_outside=None if discrete else share_outside(dataset.actions, bound),
        notes=dataset.notes,
        action_count=dataset.action_count,
        action_shares=action_shares(dataset),
    )
