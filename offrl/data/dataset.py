"""Data sets: whole episodes in memory-mapped arrays, one row per transition.

Loading is a line: `resolve` what is meant, `fetch` the bytes, `convert` them with the card's loader
into the `cache`, and open the cache, with which later loads begin. Every number that a score
depends on is checked on the way.
"""

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.data.altered import altered_folder, joined, of_all_runs, parted, write_altered
from offrl.data.cache import NotCached, cached_folder, lock, open_columns
from offrl.data.card import Card
from offrl.data.columns import NAMES, Columns, Totals, episodes
from offrl.data.convert import check_expected, convert
from offrl.data.deposit import deposit_episodes, deposit_table
from offrl.data.fetch import fetch_split
from offrl.data.resolve import resolve
from offrl.data.roles import Roles
from offrl.data.tables import frame_table
from offrl.data.transforms import Corrupt
from offrl.errors import InputError
from offrl.progress import Progress
from offrl.text import counted
from offrl.trust import Files

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
Attack = Callable[[Corrupt, Columns], Columns]


class Dataset:
    """Whole episodes in memory-mapped arrays: N rows, one per transition.

    Attributes:
        observations: float32 (N, observation dimensions).
        actions: float32 (N, action dimensions); discrete ones int64 (N,), from 0.
        rewards: float32 (N,).
        next_observations: float32 (N, observation dimensions).
        terminations: bool (N,); a termination stops bootstrapping.
        truncations: bool (N,); a truncation ends the episode, but never stops bootstrapping.
        card: what the data set is; `card.view` names the rows that were taken.
        notes: rows that were dropped or changed, and why.
        folder: where in the cache the columns lie.
        check: whether the columns' checksums were compared.
        source: totals of the source, before a view left rows out.
        checksum: the data checksum: SHA-256 over those of the columns' files. It is equal for equal
            data, whatever their card says, and is not `Columns.digest`.

    The arrays are read-only. A pickled Dataset is a path, so workers map the same memory.
    """

    def __init__(self, card: Card, split: str, folder: Path, *, check: bool = False) -> None:
        arrays, meta = open_columns(folder, check=check)
        self.observations: NDArray[np.float32] = arrays["observations"]
        self.actions: NDArray[np.float32] | NDArray[np.int64] = arrays["actions"]
        self.rewards: NDArray[np.float32] = arrays["rewards"]
        self.next_observations: NDArray[np.float32] = arrays["next_observations"]
        self.terminations: NDArray[np.bool_] = arrays["terminations"]
        self.truncations: NDArray[np.bool_] = arrays["truncations"]
        self.card = card
        self.split = split
        self.folder = folder
        self.check = check
        self.notes: list[str] = [*meta["notes"]]
        if card.reference is not None and card.reference.fault:
            self.notes.append(f"{card.reference.fault}, so no return can be scored")
        self.source = Totals(**meta["totals"])
        columns = "".join(meta["columns"][name]["sha256"] for name in NAMES)
        self.checksum = hashlib.sha256(columns.encode()).hexdigest()

    @classmethod
    def from_frame(
        cls,
        frame: "pd.DataFrame",
        output: str | Path,
        *,
        observation: Sequence[str],
        action: Sequence[str],
        reward: str,
        next_observation: Sequence[str] = (),
        episode: str | None = None,
        time: str | None = None,
        terminal: str | None = None,
        timeout: str | None = None,
        discrete: bool = False,
        impute: str | None = None,
        validation: float = 0,
    ) -> "Dataset":
        """Logged rows of pandas as a data set, written to a card `output` and a file beside it.

        The columns are those of `offrl.data.roles.Roles`; names may be patterns. `impute` is what
        a missing observation becomes, by `offrl.data.logged.table_columns`, and `validation` the
        share of the episodes that are the validation split. What was taken and
        changed stands in the card's notes. Raises InputError, with the row, for what is wrong, and
        where the card is there already.
        """
        roles = Roles(
            observation,
            action,
            reward,
            next_observation,
            episode,
            time,
            terminal,
            timeout,
            discrete,
        )
        return load_dataset(deposit_table(frame_table(frame), roles, output, impute, validation))

    @classmethod
    def from_episodes(
        cls,
        episodes: Iterable[Mapping[str, Any]],
        output: str | Path,
        *,
        discrete: int | Sequence[str] = (),
    ) -> "Dataset":
        """Episodes as a data set, written to a card `output` and a file of rows beside it.

        Each is a dict of `observations` (T + 1, ...) or (T, ...), `actions`, `rewards` and
        `terminated`, by `offrl.data.sequences.episode_columns`. `discrete` are the names of
        discrete actions, which are whole numbers from 0, or how many there are. Raises InputError
        for another form, and where the card is there already.
        """
        return load_dataset(deposit_episodes(episodes, output, discrete))

    def columns(self) -> Columns:
        """The arrays, as a loader gives them."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in NAMES}
        return Columns(**arrays)

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
            return _load(self.card.clean or self.card, "validation", None, self.check)
        return None

    @property
    def action_count(self) -> int | None:
        """How many discrete actions there are; None where actions are continuous."""
        return self.card.action_count

    @property
    def scored(self) -> bool:
        """Whether the card has reference returns from which scores follow."""
        return self.card.reference is not None and not self.card.reference.fault

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
        if reference.fault:
            raise InputError(
                f"{self.card.id}: {reference.fault}, so no return can be normalised; correct "
                f"[reference] in a card"
            )
        values = np.asarray(returns, dtype=np.float64)
        scores = 100 * (values - reference.min) / (reference.max - reference.min)
        return np.asarray(scores, dtype=np.float64)

    def __repr__(self) -> str:
        lengths = self.episode_lengths
        short, long = int(lengths.min()), int(lengths.max())
        of = f"of {short}" if short == long else f"of {short} to {long}"
        mean = float(self.episode_returns.mean())
        score = f" (score {self.normalized(mean):.1f})" if self.scored else ""
        split = "" if self.split == "train" else f" {self.split} split,"
        view = "" if self.card.view == "transitions" else f", {self.card.view} view"
        noted = ""
        if self.notes:
            noted = f", {len(self.notes)} {'note' if len(self.notes) == 1 else 'notes'}"
        actions = (
            f"actions {self.actions.shape[1]}"
            if self.action_count is None
            else (f"{self.action_count} discrete actions")
        )
        held = f"{counted(len(self), 'transition')} in {counted(len(lengths), 'episode')} {of}"
        return (
            f"<Dataset {self.card.id} v{self.card.version}:{split} {held}, observations "
            f"{self.observations.shape[1]}, {actions}, mean return {mean:.1f}{score}{view}{noted}>"
        )


def load_dataset(
    source: str | Path | Card,
    *,
    view: str | None = None,
    progress: Progress | None = None,
    trust: Files = (),
    check: bool = False,
    attack: Attack | None = None,
) -> Dataset:
    """The data set that `source` names, mapped from the cache; the first use fills the cache.

    Args:
        source: the id of a shipped card (`neorl2-dmsd`), `LOADER:NAME` for data that a loader
            fetches by name (`minari:D4RL/door/human-v2`), a Card, or a path: a card (.toml), or a
            file or folder that a loader reads. Behind an id or a path may stand transforms, such as
            `ID+corrupt[observations,rate=0.3,seed=0]`.
        view: which rows are taken, one of the loader's views; by default the card's.
        progress: called with done and total while files are downloaded or made.
        trust: cards, folders of data or `LOADER:NAME`, whose code may run: a loader or a maker that
            is a Python file, a simulator that neither offrl nor a plug-in has.
        check: compare the checksums of the cached columns, once per process (about a second per
            GB); a damaged column is converted again. Runs do so before they start.
        attack: makes adversarial rows, which needs a critic: `offrl.running.attacks.attacked`.

    Raises InputError, one line, for anything that is missing, damaged or not as the card says.
    """
    if isinstance(source, str) and parted(source)[1]:
        return _altered(source, view, progress, trust, check, attack)
    return _load(resolve(source, view, trust), "train", progress, check)


def _altered(
    name: str,
    view: str | None,
    progress: Progress | None,
    trust: Files,
    check: bool,
    attack: Attack | None,
) -> Dataset:
    """What transforms make of a data set, from the cache or made for it."""
    of, transforms = parted(name)

    def opened(source: str, check: bool) -> Dataset:
        return load_dataset(source, view=view, progress=progress, trust=trust, check=check)

    clean = opened(of, check=False)
    others = {other: opened(other, check=False) for t in transforms for other in t.others}
    name = joined(clean.card.id, transforms)
    card = clean.card.altered(of_all_runs(name))
    checksums = [clean.checksum, *(other.checksum for other in others.values())]
    folder = altered_folder(clean.card, name, checksums)
    with contextlib.suppress(NotCached):
        return Dataset(card, "train", folder, check=check)
    with lock(folder):
        with contextlib.suppress(NotCached):
            return Dataset(card, "train", folder, check=check)  # another process was faster
        log.info("%s: altering %s", name, of)
        if check:
            clean, others = opened(of, check), {other: opened(other, check) for other in others}
        columns = clean.columns()
        parts = {other: data.columns() for other, data in others.items()}
        for transform in transforms:
            if attack is not None and isinstance(transform, Corrupt) and transform.attacks:
                columns = attack(transform, columns)
            else:
                columns = transform.made(columns, parts)
        write_altered(folder, columns, clean.notes)
    return Dataset(card, "train", folder, check=check)


def _load(card: Card, split: str, progress: Progress | None, check: bool) -> Dataset:
    try:
        dataset = Dataset(card, split, cached_folder(card, split), check=check)
    except NotCached:
        paths = fetch_split(card, split, progress=progress)
        dataset = Dataset(card, split, convert(card, split, paths, check=check), check=check)
    check_expected(card, split, dataset.source)
    for note in dataset.notes:
        log.info("%s: %s", card.id, note)
    return dataset
