"""Data sets: whole episodes in memory-mapped arrays, one row per transition.

`load_dataset` finds the card, brings the files here, reads them once with the card's loader into
the cache, and maps the cache from then on. Every number a score depends on is checked on the way.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl import registry
from offrl.data.cache import (
    FORMAT,
    NotCached,
    cache_folder,
    digest,
    lock,
    open_columns,
    read_meta,
    verify,
    write_columns,
)
from offrl.data.card import Card, File, Source, find_card, read_card, shipped_cards
from offrl.data.fetch import Progress, check_file, fetch, fetch_file, from_minari
from offrl.errors import InputError, unknown
from offrl.version import __version__

log = logging.getLogger(__name__)

LOADERS = {".hdf5": "d4rl", ".h5": "d4rl", ".npz": "neorl2"}  # of a data file given by its path
NAMES = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminations",
    "truncations",
)


@dataclass(frozen=True)
class Totals:
    """What a source holds, before a view leaves rows out: what a card's `expected` is about."""

    transitions: int
    episodes: int
    mean_return: float


@dataclass
class Columns:
    """What a loader reads: one row per transition, whole episodes one after another.

    The flags are bool, the rest float32; observations, actions and next_observations have two axes.
    A row with either flag ends an episode, and the last row has one. A loader says in `notes` which
    rows it dropped or changed and why, and in `source` what there was before, where that differs.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    notes: list[str] = field(default_factory=list)
    source: Totals | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The six columns by name."""
        return {name: getattr(self, name) for name in NAMES}


def column(values: ArrayLike, where: Path, key: str, rows: int, axes: int) -> NDArray[np.float32]:
    """One column of a file as float32, checked.

    Args:
        values: as read.
        where: the file, for messages.
        key: the column's name in the file, for messages.
        rows: the length that all columns of the file have.
        axes: 2 for vectors per row, 1 for numbers per row; a column (rows, 1) counts as either.

    Raises InputError for another shape, for text, and for the first NaN or infinity.
    """
    given = np.asarray(values)
    if given.dtype.kind not in "fiub":
        raise InputError(f"{where}: {key}: expected numbers, found {given.dtype}")
    if rows == 0:
        raise InputError(f"{where}: {key}: no rows; expected at least one transition")
    if given.ndim == 0 or len(given) != rows:
        raise InputError(
            f"{where}: {key}: {len(given) if given.ndim else 'no'} rows, but the first column has "
            f"{rows}; all columns need the same length, so fetch or write the file again"
        )
    if axes == 1 and given.shape == (rows, 1):
        given = given[:, 0]
    elif axes == 2 and given.ndim == 1:
        given = given[:, None]
    if given.ndim != axes or 0 in given.shape:
        expected = "(rows,)" if axes == 1 else "(rows, dimensions)"
        raise InputError(f"{where}: {key}: shape {given.shape}, expected {expected}")
    with np.errstate(over="ignore"):  # float64 beyond float32 turns to infinity: caught below
        result = np.ascontiguousarray(given, dtype=np.float32)
    for start in range(0, rows, 65536):  # in blocks: a mask of the whole would cost a quarter of it
        block = result[start : start + 65536]
        if not np.isfinite(block).all():
            row = start + int(np.argwhere(~np.isfinite(block.reshape(len(block), -1)))[0, 0])
            bad = given[row][~np.isfinite(np.asarray(result[row]))] if axes == 2 else given[row]
            raise InputError(
                f"{where}: {key}: {np.ravel(bad)[0]} in row {row} (counted from 0); expected "
                f"finite float32 numbers, so repair or leave out that episode"
            )
    return result


def flags(values: ArrayLike, where: Path, key: str, rows: int) -> NDArray[np.bool_]:
    """One column of flags as bool. Raises InputError for a value other than 0 and 1."""
    numbers = column(values, where, key, rows, 1)
    odd = (numbers != 0) & (numbers != 1)
    if odd.any():
        row = int(np.argmax(odd))
        raise InputError(f"{where}: {key}: {numbers[row]} in row {row}; expected 0 or 1")
    return np.asarray(numbers != 0)


def episodes(
    terminations: NDArray[np.bool_], truncations: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row and the length of each episode; the last row has to end one."""
    ends = np.flatnonzero(terminations | truncations)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return starts, ends + 1 - starts


def totals(
    rewards: NDArray[np.float32],
    terminations: NDArray[np.bool_],
    truncations: NDArray[np.bool_],
) -> Totals:
    """Transitions, episodes and mean return of rows of which the last ends an episode."""
    count = len(episodes(terminations, truncations)[0])
    return Totals(len(rewards), count, float(np.sum(rewards, dtype=np.float64)) / count)


class Dataset:
    """Whole episodes in memory-mapped arrays: N rows, one per transition.

    Attributes:
        observations: float32 (N, observation dimensions).
        actions: float32 (N, action dimensions).
        rewards: float32 (N,).
        next_observations: float32 (N, observation dimensions).
        terminations: bool (N,); a termination stops bootstrapping.
        truncations: bool (N,); a truncation ends the episode, but never stops bootstrapping.
        card: what the data set is; `card.view` names the rows that were taken.
        notes: rows that were dropped or changed, and why.
        folder: where in the cache the columns lie.
        source: totals of the source, before a view left rows out.
        checksum: SHA-256 over the columns' own, which tells data apart whatever their card says.

    The arrays are read-only. A pickled Dataset is a path, so workers map the same memory.
    """

    def __init__(self, card: Card, split: str, folder: Path) -> None:
        arrays, meta = open_columns(folder)
        self.observations: NDArray[np.float32] = arrays["observations"]
        self.actions: NDArray[np.float32] = arrays["actions"]
        self.rewards: NDArray[np.float32] = arrays["rewards"]
        self.next_observations: NDArray[np.float32] = arrays["next_observations"]
        self.terminations: NDArray[np.bool_] = arrays["terminations"]
        self.truncations: NDArray[np.bool_] = arrays["truncations"]
        self.card = card
        self.split = split
        self.folder = folder
        self.notes: list[str] = meta["notes"]
        self.source = Totals(**meta["totals"])
        columns = "".join(meta["columns"][name]["sha256"] for name in NAMES)
        self.checksum = hashlib.sha256(columns.encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.card, self.split, self.folder)

    def __len__(self) -> int:
        return len(self.rewards)

    @functools.cached_property
    def _episodes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return episodes(self.terminations, self.truncations)

    @property
    def episode_starts(self) -> NDArray[np.int64]:
        """The first row of each episode, int64 (episodes,)."""
        return self._episodes[0]

    @property
    def episode_lengths(self) -> NDArray[np.int64]:
        """The number of transitions of each episode, int64 (episodes,)."""
        return self._episodes[1]

    @functools.cached_property
    def episode_returns(self) -> NDArray[np.float64]:
        """The undiscounted sum of each episode's rewards, float64 (episodes,)."""
        sums = np.add.reduceat(self.rewards.astype(np.float64), self.episode_starts)
        return np.asarray(sums, dtype=np.float64)

    @functools.cached_property
    def validation(self) -> "Dataset | None":
        """The published validation split, loaded on first use, or None where there is none."""
        if self.split == "train" and self.card.source.validation:
            return _load(self.card, "validation", None)
        return None

    def normalized(self, returns: ArrayLike) -> NDArray[np.float64]:
        """Scores on 0-100: 100 (return - min) / (max - min) with the card's reference returns.

        Raises InputError where the card has none. Only returns can be normalised: scale a standard
        deviation by 100 / (max - min) instead.
        """
        reference = self.card.reference
        if reference is None:
            raise InputError(
                f"{self.card.id}: its card has no reference returns, so no return can be "
                f"normalised; give min, max and their source under [reference]"
            )
        values = np.asarray(returns, dtype=np.float64)
        scores = 100 * (values - reference.min) / (reference.max - reference.min)
        return np.asarray(scores, dtype=np.float64)

    def __repr__(self) -> str:
        lengths = self.episode_lengths
        short, long = int(lengths.min()), int(lengths.max())
        of = f"of {short}" if short == long else f"of {short} to {long}"
        mean = float(self.episode_returns.mean())
        score = f" (score {self.normalized(mean):.1f})" if self.card.reference else ""
        split = "" if self.split == "train" else f" {self.split} split,"
        view = "" if self.card.view == "transitions" else f", {self.card.view} view"
        noted = f", {len(self.notes)} note{'s' * (len(self.notes) > 1)}" if self.notes else ""
        return (
            f"<Dataset {self.card.id} v{self.card.version}:{split} {len(self):,} transitions in "
            f"{len(lengths):,} episodes {of}, observations {self.observations.shape[1]}, actions "
            f"{self.actions.shape[1]}, mean return {mean:.1f}{score}{view}{noted}>"
        )


def load_dataset(
    source: str | Path | Card, *, view: str | None = None, progress: Progress | None = None
) -> Dataset:
    """The data set that `source` names, mapped from the cache; the first use fills the cache.

    Args:
        source: the id of a shipped card (`neorl2-dmsd`), `minari:ID` for any Minari data set, a
            Card, or a path: a card (.toml), a D4RL file (.hdf5, .h5), a NeoRL-2 file (.npz) or
            the folder of a Minari data set.
        view: `transitions` for every row or `qlearning` for the rows of d4rl.qlearning_dataset
            (D4RL files only); by default the card's.
        progress: called with done and total while files are downloaded or made.

    Raises InputError, one line, for anything that is missing, damaged or not as the card says.
    """
    return _load(resolve(source, view), "train", progress)


def resolve(source: str | Path | Card, view: str | None = None) -> Card:
    """The card that `source` names (see `load_dataset`), with its view replaced by `view`."""
    card = source if isinstance(source, Card) else _card(source)
    if view is not None and view != card.view:
        known = ("transitions", "qlearning")
        if view not in known:
            raise unknown("view", view, known)
        card = card.model_copy(update={"view": view})
    if card.view != "transitions" and card.source.loader != "d4rl":
        raise InputError(
            f"{card.id}: view {card.view!r} is for D4RL files; leave it out, or use 'transitions'"
        )
    return card


def _card(source: str | Path) -> Card:
    if isinstance(source, str):
        if source.startswith("minari:"):
            return _minari_card(source.removeprefix("minari:"))
        cards = shipped_cards()
        if source in cards:
            return cards[source]
    path = Path(source).expanduser()
    looks_like_path = isinstance(source, Path) or "/" in source or "\\" in source
    if not path.exists():
        if looks_like_path or path.suffix in {*LOADERS, ".toml"}:
            raise InputError(f"{path}: no such file or folder; give a path that exists, or an id")
        return find_card(str(source))  # raises, and suggests the nearest id
    path = path.absolute()
    if path.suffix == ".toml":
        return read_card(path)
    if path.is_dir():
        data = path if (path / "metadata.json").is_file() else path / "data"
        if not (data / "metadata.json").is_file():
            raise InputError(
                f"{path}: holds no data/metadata.json; expected the folder of a Minari data set"
            )
        about = registry.load("datasets", "minari", "loader").describe(data)
        name = about.pop("id", None) or path.name
        return _path_card(path, name, "minari", **about)
    if path.suffix not in LOADERS:
        raise InputError(
            f"{path}: cannot tell its format from {path.suffix or 'a name without a suffix'!r}; "
            f"expected .toml (a card), .hdf5 or .h5 (D4RL), .npz (NeoRL-2) or a Minari folder"
        )
    return _path_card(path, path.stem, LOADERS[path.suffix])


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "data"


def _path_card(path: Path, name: str, loader: str, **about: Any) -> Card:
    """The card of data given by their path: all we know of them is what they hold."""
    return Card(
        id=_slug(name),
        version=1,
        title=str(path),
        source=Source(loader=loader, files=[File(name=str(path))]),
        licence="unknown",
        citation="",
        notes="Given by its path, without a card: no checks and no reference returns.",
        **about,
    )


def _minari_card(minari_id: str) -> Card:
    loader = registry.load("datasets", "minari", "loader")
    card = Card(
        id=_slug(f"minari-{minari_id}"),
        version=1,
        title=f"Minari {minari_id}",
        source=Source(loader="minari", minari_id=minari_id),
        licence="see the data set's page at https://minari.farama.org",
        citation="",
        notes="Named by its Minari id, without a card of ours.",
    )
    if kept := _kept(card, "train"):
        return Card.model_validate(read_meta(kept)["card"])
    about = loader.describe(loader.fetch(minari_id))
    about.pop("id", None)
    return card.model_copy(update=about)


def _files(card: Card, split: str) -> list[File]:
    return card.source.validation if split == "validation" else card.source.files


def _stamp(path: Path) -> list[Any]:
    """Path, sizes and modification times of a local file or folder: they change when it does."""
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [str(path), *((p.stat().st_size, p.stat().st_mtime_ns) for p in inside)]


def _identity(card: Card, file: File) -> Any:
    """What tells a file from another version of itself without reading it."""
    if checksum := file.sha256 or file.md5:
        return checksum.lower()
    path = Path(file.name)
    if path.is_absolute():
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; {card.id} reads its data from there")
        return _stamp(path)
    return [file.name, *file.urls]


def cached_folder(card: Card, split: str = "train") -> Path:
    """The folder of the cache that holds this data set, or will."""
    key: list[Any] = [FORMAT, card.source.loader, card.view, split]
    key += [_identity(card, file) for file in _files(card, split)]
    key += [card.source.maker, card.source.minari_id]
    if from_minari(card):
        local = _local_minari(card)
        key.append(_stamp(local) if local is not None else None)
    if card.environment is not None:  # both decide how a loader reads
        key += [card.environment.observation_keys, card.environment.max_episode_steps]
    text = json.dumps(key, sort_keys=True)
    short = hashlib.sha256(text.encode()).hexdigest()[:10]
    middle = "" if split == "train" else f"-{split}"
    return cache_folder() / "datasets" / f"{card.id}-v{card.version}{middle}-{short}"


def _load(card: Card, split: str, progress: Progress | None) -> Dataset:
    dataset = None
    with contextlib.suppress(NotCached):
        dataset = Dataset(card, split, _kept(card, split) or cached_folder(card, split))
    if dataset is None:
        dataset = Dataset(card, split, _convert(card, split, progress))
    check_expected(card, split, dataset.source)
    for note in dataset.notes:
        log.info("%s: %s", card.id, note)
    return dataset


def _local_minari(card: Card) -> Path | None:
    loader = registry.load("datasets", card.source.loader, "loader")
    folder: Path | None = loader.locate(card.source.minari_id)
    return folder


def _kept(card: Card, split: str) -> Path | None:
    """A conversion of a Minari data set that Minari itself no longer holds here, or None."""
    if not from_minari(card) or _local_minari(card) is not None:
        return None
    folders = (cache_folder() / "datasets").glob(f"{card.id}-v{card.version}-*")
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True):
        with contextlib.suppress(NotCached, KeyError, InputError):
            told = Card.model_validate(read_meta(folder)["card"])
            if told.source == card.source and told.view == card.view and split == "train":
                return folder
    return None


def _loader(card: Card) -> ModuleType:
    try:
        loader = registry.load("datasets", card.source.loader, "loader")
    except InputError as error:
        raise InputError(f"card {card.id}: {error}") from None
    if not hasattr(loader, "read"):
        raise InputError(
            f"card {card.id}: source.loader: {card.source.loader!r} reads no files; expected a "
            "loader such as minari, d4rl or neorl2"
        )
    return loader


def _convert(card: Card, split: str, progress: Progress | None) -> Path:
    """The folder of the cache to which the source was read, once, whoever came first."""
    if card.source.files or split == "validation":
        paths = [fetch_file(card, file, None, progress) for file in _files(card, split)]
    else:
        paths = fetch(card, None, progress)
    loader = _loader(card)
    folder = cached_folder(card, split)
    with lock(folder):
        try:
            open_columns(folder)
            return folder  # another process was faster
        except NotCached as reason:
            if folder.exists():
                log.warning("%s; the data set is converted again", reason)
        log.info("%s: reading %s", card.id, ", ".join(map(str, paths)))
        read = _joined([loader.read(path, card) for path in paths])
        before = read.source or totals(read.rewards, read.terminations, read.truncations)
        check_expected(card, split, before)
        files = [{"path": str(path), "sha256": digest(path)} for path in paths if path.is_file()]
        unchecked = [
            f"{file.name} has no published checksum; its SHA-256 here is {told['sha256']}"
            for file, told in zip(_files(card, split), files, strict=False)
            if file.urls and not (file.md5 or file.sha256)
        ]
        meta = {
            "offrl": __version__,
            "card": card.model_dump(mode="json"),
            "split": split,
            "files": files,
            "totals": dataclasses.asdict(before),
            "notes": [*unchecked, *read.notes],
        }
        write_columns(folder, read.arrays(), meta)
    return folder


def _joined(parts: list[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    widths = {(p.observations.shape[1], p.actions.shape[1]) for p in parts}
    if len(widths) != 1:
        raise InputError(f"the files of a data set differ in (observation, action) size: {widths}")
    before = [p.source or totals(p.rewards, p.terminations, p.truncations) for p in parts]
    count = sum(t.episodes for t in before)
    return Columns(
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in NAMES},
        notes=[note for p in parts for note in p.notes],
        source=Totals(
            transitions=sum(t.transitions for t in before),
            episodes=count,
            mean_return=sum(t.mean_return * t.episodes for t in before) / count,
        ),
    )


def check_expected(card: Card, split: str, found: Totals) -> None:
    """Raises InputError where the source holds something else than its card expects.

    Mean returns are compared to 1e-5 of their size, or 0.001: cards give three decimals, and
    published means were summed in float32.
    """
    expected = card.expected
    counts = [
        ("transitions", found.transitions, expected.transitions),
        ("episodes", found.episodes, expected.episodes),
    ]
    if split == "validation":
        counts = [
            ("validation transitions", found.transitions, expected.validation_transitions),
            ("validation episodes", found.episodes, expected.validation_episodes),
        ]
    for what, seen, wanted in counts:
        if wanted is not None and seen != wanted:
            raise InputError(
                f"{card.id}: {seen:,} {what}, expected {wanted:,}; the data are not those of card "
                f"version {card.version}: fetch them again, or correct the card"
            )
    mean = expected.mean_return
    if (
        split == "train"
        and mean is not None
        and not math.isclose(found.mean_return, mean, rel_tol=1e-5, abs_tol=1e-3)
    ):
        raise InputError(
            f"{card.id}: mean return {found.mean_return:.6g}, expected {mean:.6g}; the data are "
            f"not those of card version {card.version}: fetch them again, or correct the card"
        )


@dataclass(frozen=True)
class Check:
    """What `check` read again and found as it should be."""

    id: str
    version: int
    totals: dict[str, Totals]  # by split: of the source
    columns: dict[str, dict[str, str]]  # by split: each column's SHA-256
    files: dict[str, str]  # each source file that is still here: path and SHA-256
    compared: list[str]  # what a card or the cache gave to compare with
    notes: list[str]


def check(source: str | Path | Card, *, view: str | None = None) -> Check:
    """What a data set holds, every byte of the cache and of its files read again and compared.

    Raises InputError where a checksum, a count or the mean return is not what the card or the cache
    expects.
    """
    card = resolve(source, view)
    train = load_dataset(card)
    splits = {"train": train}
    if train.validation is not None:
        splits["validation"] = train.validation
    files = {}
    compared = ["the cache's checksums"]
    for split, dataset in splits.items():
        told = read_meta(dataset.folder)["files"]
        for file, entry in zip(_files(card, split), told, strict=False):
            path = Path(entry["path"])
            if not path.is_file():
                continue
            check_file(path, file)
            files[str(path)] = digest(path)
            if files[str(path)] != entry["sha256"]:
                raise InputError(
                    f"{path}: SHA-256 {files[str(path)]}, but {entry['sha256']} when it was first "
                    f"read; fetch it again, or delete {dataset.folder} to read it anew"
                )
            if file.md5 or file.sha256:
                compared.append(f"the published checksum of {file.name}")
    compared += [key for key, value in card.expected if value is not None]
    return Check(
        id=card.id,
        version=card.version,
        totals={split: dataset.source for split, dataset in splits.items()},
        columns={split: verify(dataset.folder) for split, dataset in splits.items()},
        files=files,
        compared=compared,
        notes=[note for dataset in splits.values() for note in dataset.notes],
    )


def share_outside(actions: NDArray[np.float32], bound: float = 1.0) -> float:
    """The share of action entries outside [-bound, bound]; every shipped card's bound is 1."""
    return float(np.mean(np.abs(actions) > bound))


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Stats:
    """What a data set looks like. Returns are undiscounted; quantiles are those of `QUANTILES`."""

    id: str
    version: int
    view: str
    transitions: int
    episodes: int
    observation_size: int
    action_size: int
    terminations: int
    truncations: int
    length_min: int
    length_mean: float
    length_max: int
    return_mean: float
    return_std: float  # over episodes, ddof 1; NaN for a single episode
    return_quantiles: list[float]
    score_mean: float | None  # on 0-100; None where the card has no reference returns
    action_min: float
    action_max: float
    actions_outside: float  # share of entries outside [-1, 1]
    notes: list[str]


def stats(dataset: Dataset) -> Stats:
    """The summary of a data set that `offrl data stats` prints."""
    returns = dataset.episode_returns
    lengths = dataset.episode_lengths
    mean = float(returns.mean())
    actions = dataset.actions
    return Stats(
        id=dataset.card.id,
        version=dataset.card.version,
        view=dataset.card.view,
        transitions=len(dataset),
        episodes=len(lengths),
        observation_size=dataset.observations.shape[1],
        action_size=actions.shape[1],
        terminations=int(dataset.terminations.sum()),
        truncations=int(dataset.truncations.sum()),
        length_min=int(lengths.min()),
        length_mean=float(lengths.mean()),
        length_max=int(lengths.max()),
        return_mean=mean,
        return_std=float(returns.std(ddof=1)) if len(returns) > 1 else math.nan,
        return_quantiles=[float(q) for q in np.quantile(returns, QUANTILES)],
        score_mean=float(dataset.normalized(mean)) if dataset.card.reference else None,
        action_min=float(actions.min()),
        action_max=float(actions.max()),
        actions_outside=share_outside(actions),
        notes=dataset.notes,
    )
