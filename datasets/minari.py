"""Reads Minari data sets: a local folder, or an id that Minari itself fetches.

An episode of T steps holds T + 1 observations, so every transition has its successor. Terminations
and truncations are kept apart. Observations are flattened by their declared space, as in the
simulator: the parts of dicts and tuples in the order of the card's `environment.observation_keys`,
else sorted and without texts.
"""

import contextlib
import io
import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data import (
    Card,
    Choices,
    Columns,
    Environment,
    Nested,
    Reference,
    Room,
    Wrapper,
    actions,
    check_size,
    check_table,
    choices_text,
    column,
    disk_usage,
    flags,
    flatten,
    layout_of,
    nested_arrays,
    open_nested,
    path_stamp,
    ragged_blocks,
    read_choices,
    refuse_links,
    size_of,
    texts_of,
)
from offrl.errors import InputError, unknown
from offrl.files import plain

SUFFIXES = ()  # a data set is a folder
WRITES = ("",)
VIEWS = ("transitions",)
VERSION = 1  # raised whenever the same file would be read otherwise
FLAT = ("rewards", "terminations", "truncations")  # numbers of an episode's steps
# Packages that register their environments when they are imported. No other is named, whatever
# metadata say, and one that offrl's cards do not name has to be trusted.
REGISTERING = ("gymnasium_robotics", "minigrid", "ale_py")
CHOICES = "offrl_actions"  # of the metadata: discrete actions and their names, as JSON
MOST_TEXT = 2**26  # bytes of metadata, which declare two bounds for each number of a space
Floats = NDArray[np.float32]


def card(source: str | Path) -> dict[str, Any]:
    """What a data set's metadata say for its card: id, environment and reference where given.

    A data set named by its Minari id is fetched first.
    """
    if isinstance(source, Path):
        return _metadata(source)
    keys = _metadata(fetch(source))
    named = "Named by its Minari id, without a card of its own."
    return keys | {
        "title": f"Minari {source}",
        "licence": "see the data set's page at https://minari.farama.org",
        "notes": " ".join(filter(None, [named, keys.get("notes")])),
    }


def lacking(path: Path) -> list[str]:
    """The file that a folder lacks where it holds no Minari data set."""
    return [] if (_data(path) / "metadata.json").is_file() else ["data/metadata.json"]


def fetch(name: str, folder: Path | None = None) -> Path:
    """The folder of a data set in Minari's local storage, downloaded by Minari where missing."""
    if folder is not None:
        raise InputError(
            f"minari:{name}: comes through Minari, which keeps its own folder; set "
            f"MINARI_DATASETS_PATH={folder} instead of --from"
        )
    if local := _locate(name):
        return local
    import minari
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Minari prints; libraries here do not
            minari.load_dataset(name, download=True)
    except Exception as error:  # its remotes raise errors of many libraries
        names = minari.list_local_datasets()
        near = str(unknown("Minari data set", name, names)) if names else ""
        raise InputError(
            f"minari:{name}: not in {get_dataset_path()} and Minari could not fetch it "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
            f"connect to the network or set MINARI_DATASETS_PATH to a folder that holds it"
            f"{'; locally: ' + near if near else ''}"
        ) from None
    local = _locate(name)
    if local is None:
        raise InputError(
            f"{get_dataset_path(name)}: holds a download that broke off; delete it and load "
            f"minari:{name} again"
        )
    return local


def stamp(name: str) -> list[Any] | None:
    """Sizes and times of a data set's files in Minari's local storage; None where it is not."""
    folder = _locate(name)
    return path_stamp(folder) if folder is not None else None


def read(path: Path, card: Card) -> Columns:
    """The columns of a Minari folder. Raises InputError where it or an episode of it is odd."""
    import minari

    folder = _data(path)
    room = _check_metadata(folder)
    dataset = minari.MinariDataset(folder)
    with np.errstate(over="ignore"):  # float64 beyond float32 turns to infinity, found at the end
        if dataset.storage.FORMAT == "hdf5" and _is_plain(dataset):
            with open_nested(folder / "main_data.hdf5") as file:
                columns = _read(dataset, _episodes(dataset, file), path, card, room)
        else:
            for main in sorted(folder.glob("*.hdf5")):
                refuse_links(main)
            _check_content(dataset, folder)
            columns = _read(dataset, dataset.iterate_episodes(), path, card, room)
    if card.reference is None:
        metadata = _json(folder / "metadata.json")
        columns.notes += filter(None, [_reference(metadata, {})])
    return columns


def write(path: Path, columns: Columns, card: Card) -> None:
    """Writes rows as a data set of Minari's, without a simulator: its spaces are those of the data.

    Raises InputError where a row's next observation is not the observation of the next row of its
    episode: Minari keeps one observation a step.
    """
    import minari
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    ends = columns.terminations | columns.truncations
    last = np.flatnonzero(ends) + 1
    for first, end in zip([0, *last[:-1]], last, strict=True):
        seen, after = columns.observations[first + 1 : end], columns.next_observations
        if not np.array_equal(seen, after[first : end - 1]):
            row = first + int(np.argmax((seen != after[first : end - 1]).any(axis=1)))
            raise InputError(
                f"{card.id}: the next observation of row {row} is not the observation of row "
                f"{row + 1}; Minari keeps one observation a step, so choose another format"
            )
    high = np.float32(np.inf)
    acting: Any = spaces.Box(-high, high, columns.actions.shape[1:], np.float32)
    if card.action_count is not None:
        acting = spaces.Discrete(card.action_count)
    storage = MinariStorage.new(
        path,
        spaces.Box(-high, high, columns.observations.shape[1:], np.float32),
        acting,
    )
    about = {
        "dataset_id": f"offrl/{card.id}-v{card.version}",
        "minari_version": minari.__version__,
        "description": card.title,
        "algorithm_name": f"offrl data export of {card.id}@{card.version}",
    }
    if card.reference is not None:
        about["ref_min_score"], about["ref_max_score"] = card.reference.min, card.reference.max
    if card.actions is not None:
        about[CHOICES] = choices_text(card.actions)
    storage.update_metadata(about)
    storage.update_episodes(
        EpisodeBuffer(
            observations=np.append(
                columns.observations[first:end], columns.next_observations[end - 1 : end], axis=0
            ),
            actions=columns.actions[first:end],
            rewards=columns.rewards[first:end],
            terminations=columns.terminations[first:end],
            truncations=columns.truncations[first:end],
        )
        for first, end in zip([0, *last[:-1]], last, strict=True)
    )


def _locate(name: str) -> Path | None:
    """The folder of a data set in Minari's local storage, or None where it is not whole there.

    Raises InputError for a name that would leave that storage.
    """
    from minari.storage.datasets_root_dir import get_dataset_path

    for part in name.split("/"):
        plain(part, f"minari:{name}")
    folder = get_dataset_path(name)
    data = folder / "data"
    whole = (data / "metadata.json").is_file() and len(list(data.iterdir())) > 1
    return folder if whole else None


def _data(folder: Path) -> Path:
    return folder if (folder / "metadata.json").is_file() else folder / "data"


def _metadata(folder: Path) -> dict[str, Any]:
    path = _data(folder) / "metadata.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: holds no data/metadata.json; expected the folder of a Minari data set"
        )
    part = "JSON"
    try:
        metadata = _json(path)
        keys: dict[str, Any] = {}
        if named := metadata.get("dataset_id"):
            keys["id"] = str(named)
        part = "action_space"
        if count := _discrete(metadata.get(part)):
            keys["actions"] = _choices(metadata.get(CHOICES), count)
        part = "eval_env_spec" if metadata.get("eval_env_spec") else "env_spec"
        text = metadata.get(part)
        notes = [_environment(json.loads(text) if text else {}, keys), _reference(metadata, keys)]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise InputError(
            f"{path}: expected Minari's metadata, but its {part} cannot be read "
            f"({type(error).__name__}: {error}); fetch the data set again, or correct it"
        ) from None
    if said := " ".join(filter(None, notes)):
        keys["notes"] = said
    return keys


def _json(path: Path) -> Any:
    """The values of a file of JSON. Raises ValueError where it is none, or too large."""
    if path.stat().st_size > MOST_TEXT:
        raise ValueError(f"it has more than {MOST_TEXT:,} bytes")
    return json.loads(path.read_text(encoding="utf-8"))


def _environment(spec: dict[str, Any], keys: dict[str, Any]) -> str:
    """Puts the environment of a spec into a card's keys; a note where it cannot be played.

    It is the one that Minari's `recover_environment(eval_env=True)` makes, with its wrappers.
    """
    if not spec.get("id"):
        return ""
    limit = spec.get("max_episode_steps")
    wrappers = []
    for given in spec.get("additional_wrappers") or []:
        if given["kwargs"] is None:
            raise InputError(
                f"its environment was wrapped in {given['name']}, whose settings Gymnasium could "
                f"not save; give a card whose environment.id makes the wrapped environment"
            )
        limit = limit or given["kwargs"].get("max_episode_steps")  # of a TimeLimit
        wrappers.append(Wrapper(entry_point=given["entry_point"], kwargs=given["kwargs"]))
    if not limit:
        return (
            f"Its environment {spec['id']} has no step limit, so no policy can be scored in it: "
            f"give a card with environment.max_episode_steps."
        )
    entry_point = spec.get("entry_point")
    package = str(entry_point).partition(":")[0].partition(".")[0]
    keys["environment"] = Environment(
        id=f"{package}:{spec['id']}" if package in REGISTERING else spec["id"],
        max_episode_steps=int(limit),
        kwargs=spec.get("kwargs") or {},
        wrappers=wrappers,
        entry_point=entry_point if isinstance(entry_point, str) else None,
    )
    return ""


def _reference(metadata: dict[str, Any], keys: dict[str, Any]) -> str:
    """Puts the reference returns of a data set into a card's keys; a note where they are odd."""
    given: list[Any] = [metadata.get("ref_min_score"), metadata.get("ref_max_score")]
    if given == [None, None]:
        return ""
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"Its ref_min_score and ref_max_score are unusable: {given[0]!r} and {given[1]!r}."
    keys["reference"] = Reference(
        min=low, max=high, source="ref_min_score, ref_max_score of its metadata"
    )
    return ""


def _check_metadata(folder: Path) -> Room:
    """Room for the columns. Raises InputError where metadata promise much, or would run code.

    Without declared spaces Minari makes the environment that the metadata name, to ask it.
    """
    metadata = _json(folder / "metadata.json")
    numbers = {}
    for key in ("observation_space", "action_space"):
        if not metadata.get(key):
            raise InputError(
                f"{folder}: its metadata declare no {key}; write it with a newer Minari"
            )
        numbers[key] = _numbers(json.loads(metadata[key]), folder)
    rows, episodes = int(metadata["total_steps"]), int(metadata["total_episodes"])
    widths = 2 * numbers["observation_space"] + numbers["action_space"]  # with successors
    return Room(folder, [(max(1, rows), widths), (2 * episodes,)], disk_usage(folder))


def _numbers(space: Any, folder: Path) -> int:
    """How many numbers an element of a serialised space has; Minari allocates bounds for them."""
    below = space.get("subspaces") or ()
    if isinstance(below, dict):
        below = below.values()
    if np.dtype(space.get("dtype")).kind not in "fiub":  # a text may be of any length
        raise InputError(
            f"{folder}: a space of its metadata is of {space['dtype']!r:.40}; expected numbers"
        )
    parts = sum(_numbers(part, folder) for part in below)
    return parts + math.prod(space.get("shape") or (1,))


class _Frames:
    """Checks of encoded images before any is decoded: a few bytes may be a picture of any size."""

    def __init__(self, dataset: Any, path: Path) -> None:
        self.path = path
        self.spaces = {
            "observations": dataset.observation_space,
            "actions": dataset.action_space,
        }

    def space_of(self, names: Sequence[str]) -> Any:
        """The declared space of an array, by its path below an episode; None where it has none."""
        space = self.spaces.get(names[0]) if names else None
        for name in names[1:]:
            space = _parts(space, "_index_").get(name)
        return space

    def check(self, frames: Iterable[Any], space: Any) -> None:
        """Raises InputError for a frame that is no image of the size that its space declares."""
        from PIL import Image

        for frame in frames:
            with Image.open(io.BytesIO(frame), formats=("JPEG", "PNG")) as image:
                size = (image.height, image.width)
            if size != space.shape[:2]:
                raise InputError(
                    f"{self.path}: an image is {size[0]} x {size[1]}, but the declared space has "
                    f"shape {space.shape}; the data are damaged or hostile, so fetch them again"
                )

    def check_block(self, block: Any) -> None:
        """The same for a block of rows of a table."""
        for name, space in self.spaces.items():
            if name in block.schema.names:
                self._check_column(block.column(name), space)

    def _check_column(self, values: Any, space: Any) -> None:
        if _is_picture(space) and str(values.type) == "binary":
            self.check(values.to_pylist(), space)
        parts = _parts(space, "")
        for name in {field.name for field in values.type} & {*parts} if parts else ():
            self._check_column(values.field(name), parts[name])


def _parts(space: Any, prefix: str) -> dict[str, Any]:
    """The spaces inside of a space by name; those of a tuple by `prefix` and number."""
    inside = getattr(space, "spaces", {})
    if isinstance(inside, tuple):
        return {f"{prefix}{number}": part for number, part in enumerate(inside)}
    return dict(inside)


def _is_picture(space: Any) -> bool:
    """Whether Minari may have encoded what is of this space as images."""
    return space is not None and space.dtype == np.uint8 and len(space.shape or ()) in (2, 3)


def _check_content(dataset: Any, folder: Path) -> None:
    """Raises InputError where what a folder holds would take more memory than there is."""
    from PIL import Image

    frames = _Frames(dataset, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        main = folder / "main_data.hdf5"
        if dataset.storage.FORMAT == "hdf5":
            _check_arrays(main, frames)
        else:
            _check_tables(dataset, folder, frames)


def _check_arrays(main: Path, frames: _Frames) -> None:
    import h5py

    stored, kept = disk_usage(main), 0
    infos: Counter[str] = Counter()
    with h5py.File(main, "r") as file:
        for name, item in nested_arrays(main, file):
            episode, *rest = name.strip("/").split("/")
            if rest[:1] == ["infos"]:  # read with their episode, and dropped
                infos[episode] += size_of([item])
            else:
                kept += size_of([item])
            space = frames.space_of(rest)
            encoded = _is_picture(space) and item.shape[1:] != space.shape
            if item.dtype.hasobject and item.shape:
                for block in ragged_blocks(main, item):
                    if encoded:
                        frames.check(block, space)
            elif encoded and item.ndim == 2:
                check_size(main, [item], stored)
                frames.check(item, space)
        for size in (kept, *infos.values()):
            check_size(main, [(size // 4,)], stored)


def _check_tables(dataset: Any, folder: Path, frames: _Frames) -> None:
    from pyarrow import dataset as tables

    size, stored = 0, disk_usage(folder)
    for number in range(dataset.total_episodes):  # as Minari looks for them
        inside = tables.dataset(
            str(folder / str(number)),
            format=dataset.storage.FORMAT,
            ignore_prefixes=["_", ".", "metadata.json"],
        )
        for file in inside.files:
            size += check_table(Path(file), stored, size, frames.check_block)


@dataclass
class _Episode:
    """An episode as Minari gives it, without what offrl drops."""

    id: int
    observations: Any
    actions: NDArray[Any]
    rewards: NDArray[Any]
    terminations: NDArray[Any]
    truncations: NDArray[Any]


def _is_plain(dataset: Any) -> bool:
    """Whether all that is stored of a data set is numbers, neither images nor texts."""
    return all(map(_is_plain_space, (dataset.observation_space, dataset.action_space)))


def _is_plain_space(space: Any) -> bool:
    from gymnasium import spaces

    if parts := _parts(space, ""):
        return all(map(_is_plain_space, parts.values()))
    numbers = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    return isinstance(space, numbers) and not _is_picture(space)


def _episodes(dataset: Any, file: Nested) -> Iterator[_Episode]:
    """The episodes of a plain data set in HDF5, as Minari would give them, as float32."""
    space = dataset.observation_space
    for number in range(dataset.total_episodes):
        group = file.group(f"episode_{number}")
        yield _Episode(
            number,
            _stored(file, group, "observations", space),
            file.read(group, "actions"),
            *(file.read(group, key, np.float32) for key in FLAT),
        )


def _stored(file: Nested, group: Any, name: str, space: Any) -> Any:
    """The array of a space, or the arrays of its parts as a dict or a tuple."""
    parts = _parts(space, "_index_")
    if not parts:
        return file.read(group, name, np.float32)
    inside = file.group(name, group)
    found = {key: _stored(file, inside, key, part) for key, part in parts.items()}
    return tuple(found.values()) if isinstance(space.spaces, tuple) else found


def _read(dataset: Any, episodes: Iterable[Any], path: Path, card: Card, room: Room) -> Columns:
    import gymnasium

    declared = card.environment.observation_keys if card.environment else []
    total = int(dataset.total_steps)
    layout = layout_of(dataset.observation_space, declared, str(path))
    first = _first_action(dataset.action_space, path, card)
    width = sum(math.prod(shape) for shape in layout.values())
    acting = math.prod(dataset.action_space.shape or (1,))
    kind = np.float32 if card.actions is None else np.int64
    made: dict[str, NDArray[Any]] = {
        "observations": room.empty((total, width), np.float32),
        "actions": room.empty((total, acting), kind),
        "rewards": room.empty((total,), np.float32),
        "next": room.empty((total, width), np.float32),
        "terminations": np.empty(total, np.float32),
        "truncations": np.empty(total, np.float32),
    }
    unfinished = dropped = own = seen = rows = 0
    for episode in episodes:
        steps = len(episode.rewards)
        where = f"{path}: episode {episode.id}"
        if steps == 0:
            raise InputError(f"{where}: has no steps; collect or fetch the data set again")
        seen += steps
        if seen > total:
            raise InputError(
                f"{where}: {seen} steps up to here, but {total} by the metadata; fetch the data "
                f"set again, or collect it again"
            )
        observations = flatten(episode.observations, declared, where, layout)
        taken = np.asarray(episode.actions)
        if taken.dtype.kind not in ("f" if card.actions is None else "iu"):
            raise InputError(
                f"{where}: actions are {taken.dtype}, but the declared space is "
                f"{_short(dataset.action_space)}; collect or fetch the data set again"
            )
        terminations = np.array(episode.terminations)
        truncations = np.array(episode.truncations)  # judged with all others, below
        lengths = {len(taken), len(terminations), len(truncations)}
        if lengths != {steps} or len(observations) not in (steps, steps + 1):
            raise InputError(
                f"{where}: {steps} rewards, but {len(observations)} observations, {len(taken)} "
                f"actions, {len(terminations)} terminations, {len(truncations)} truncations; "
                f"expected one observation more than steps"
            )
        if not (terminations[-1] or truncations[-1]):
            truncations[-1] = True
            unfinished += 1
        keep = steps
        if len(observations) == steps:  # the final observation is missing
            if terminations[-1]:
                observations = np.concatenate([observations, observations[-1:]])
                own += 1
            else:
                keep -= 1
                dropped += 1
                if keep == 0:
                    continue
                truncations[keep - 1] = True
        part = {
            "observations": observations[:keep],
            "actions": taken[:keep].reshape(keep, -1) - first,
            "rewards": np.asarray(episode.rewards)[:keep],
            "next": observations[1 : keep + 1],
            "terminations": terminations[:keep],
            "truncations": truncations[:keep],
        }
        for key, values in part.items():
            if values.shape[1:] != made[key].shape[1:]:
                shapes = values.shape[1:], made[key].shape[1:]
                raise InputError(
                    f"{where}: {key}: shape {shapes[0]} a step, expected {shapes[1]}; collect or "
                    "fetch the data set again"
                )
            made[key][rows : rows + keep] = values
        rows += keep
    notes = []
    if "" not in layout and not declared:
        parts = "tuple" if isinstance(dataset.observation_space, gymnasium.spaces.Tuple) else "dict"
        notes.append(f"{parts} observations flattened in the order {', '.join(layout)}")
        if left_out := texts_of(dataset.observation_space):
            notes.append(f"texts are left out, and no policy sees them: {', '.join(left_out)}")
    if unfinished:
        notes.append(f"{unfinished} episodes end with neither flag: marked as truncated")
    if dropped:
        notes.append(
            f"{dropped} episodes lack their final observation: left out the last transition of "
            f"each, and marked the one before as truncated"
        )
    if own:
        notes.append(
            f"{own} terminated episodes lack their final observation: gave the terminal rows their "
            f"own observation as successor"
        )
    if rows == 0:
        raise InputError(f"{path}: holds no transitions; collect or fetch the data set again")
    if rows + dropped != total:
        raise InputError(
            f"{path}: {rows + dropped} steps in its episodes, but {total} by its metadata; fetch "
            f"it again, or collect it again"
        )

    def found(key: str) -> NDArray[Any]:
        return made.pop(key)[:rows]

    return Columns(
        observations=column(found("observations"), path, "observations", rows, 2),
        actions=actions(found("actions"), path, "actions", rows, card.action_count),
        rewards=column(found("rewards"), path, "rewards", rows, 1),
        next_observations=column(found("next"), path, "next", rows, 2),
        terminations=flags(found("terminations"), path, "terminations", rows),
        truncations=flags(found("truncations"), path, "truncations", rows),
        notes=notes,
    )


def _discrete(text: Any) -> int | None:
    """How many discrete actions a serialised space has; None for a space of another kind."""
    space = json.loads(text) if text else {}
    return int(space["n"]) if space.get("type") == "Discrete" else None


def _choices(text: Any, count: int) -> Choices:
    """So many discrete actions, with the names that `write` kept, where it did."""
    if not isinstance(text, str):
        return Choices(count=count)
    choices = read_choices(text, CHOICES)
    if choices.count != count:
        raise InputError(
            f"{CHOICES}: names {choices.count:,} actions, but the action_space has {count:,}; "
            "correct it, or delete it"
        )
    return choices


def _first_action(space: Any, path: Path, card: Card) -> int:
    """The number from which discrete actions count, 0 for continuous ones.

    Raises InputError where the declared space is not of the card's actions.
    """
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete) and card.action_count == space.n:
        return int(space.start)
    if isinstance(space, gymnasium.spaces.Box) and card.actions is None:
        return 0
    if isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.Box):
        named = card.action_count or "no"
        raise InputError(
            f"{path}: its actions are {_short(space)}, but its card has {named} discrete actions; "
            f"correct actions.count of the card"
        )
    raise InputError(
        f"{path}: its actions are {_short(space)}; offrl reads actions of one Box, or of one "
        f"Discrete, not several parts"
    )


def _short(space: Any) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
