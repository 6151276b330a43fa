"""Reads Minari data sets: a local folder, or an id that Minari itself fetches.

An episode of T steps holds T + 1 observations, so every transition has its successor. Terminations
and truncations are kept apart. Dict observations are flattened: the leaves in the order of the
card's `environment.observation_keys`, else sorted by name.
"""

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data import (
    Card,
    Columns,
    Environment,
    Reference,
    column,
    flags,
    path_stamp,
    refuse_links,
)
from offrl.errors import InputError, unknown
from offrl.files import plain

SUFFIXES = ()  # a data set is a folder
VIEWS = ("transitions",)
Floats = NDArray[np.float32]


def card(source: str | Path) -> dict[str, Any]:
    """What a data set's metadata say for its card: id, environment and reference where given.

    A data set named by its Minari id is fetched first.
    """
    if isinstance(source, Path):
        return _metadata(source)
    return _metadata(fetch(source)) | {
        "title": f"Minari {source}",
        "licence": "see the data set's page at https://minari.farama.org",
        "notes": "Named by its Minari id, without a card of its own.",
    }


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

    try:
        for file in sorted(_data(path).glob("*.hdf5")):
            refuse_links(file)
        dataset = minari.MinariDataset(_data(path))
        total = int(dataset.total_steps)
        episodes = dataset.iterate_episodes()
        return _read(episodes, total, path, card)
    except InputError:
        raise
    except Exception as error:  # its storages raise AssertionError, KeyError, OSError, ...
        raise InputError(
            f"{path}: Minari cannot read it ({type(error).__name__}: {error}); fetch it again, or "
            f"collect it again"
        ) from error


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
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        text = metadata.get("eval_env_spec") or metadata.get("env_spec")
        spec = json.loads(text) if text else {}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected Minari's metadata, but {error}") from None
    keys: dict[str, Any] = {}
    if metadata.get("dataset_id"):
        keys["id"] = metadata["dataset_id"]
    if spec.get("id") and spec.get("max_episode_steps"):
        keys["environment"] = Environment(
            id=spec["id"],
            max_episode_steps=int(spec["max_episode_steps"]),
            kwargs=spec.get("kwargs") or {},
        )
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is not None and high is not None:
        keys["reference"] = Reference(
            min=float(low), max=float(high), source="ref_min_score, ref_max_score of its metadata"
        )
    return keys


def _read(episodes: Any, total: int, path: Path, card: Card) -> Columns:
    declared = card.environment.observation_keys if card.environment else []
    columns: dict[str, list[NDArray[Any]]] = {
        key: []
        for key in ("observations", "actions", "rewards", "next", "terminations", "truncations")
    }
    unfinished = dropped = own = 0
    order: list[str] = []
    for episode in episodes:
        steps = len(episode.rewards)
        where = f"{path}: episode {episode.id}"
        if steps == 0:
            raise InputError(f"{where}: has no steps; collect or fetch the data set again")
        observations, order = _flat(episode.observations, declared, where)
        actions = np.asarray(episode.actions)
        if actions.dtype.kind != "f":
            raise InputError(
                f"{where}: actions are {actions.dtype}; offrl reads continuous actions only"
            )
        terminations = np.array(episode.terminations, dtype=np.bool_)
        truncations = np.array(episode.truncations, dtype=np.bool_)
        lengths = {len(actions), len(terminations), len(truncations)}
        if lengths != {steps} or len(observations) not in (steps, steps + 1):
            raise InputError(
                f"{where}: {steps} rewards, but {len(observations)} observations, {len(actions)} "
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
        columns["observations"].append(observations[:keep])
        columns["next"].append(observations[1 : keep + 1])
        columns["actions"].append(actions[:keep].reshape(keep, -1))
        columns["rewards"].append(np.asarray(episode.rewards)[:keep])
        columns["terminations"].append(terminations[:keep])
        columns["truncations"].append(truncations[:keep])
    notes = []
    if order and not declared:
        notes.append(f"dict observations flattened in the order {', '.join(order)}")
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
    rows = sum(map(len, columns["rewards"]))
    if rows == 0:
        raise InputError(f"{path}: holds no transitions; collect or fetch the data set again")
    if rows + dropped != total:
        raise InputError(
            f"{path}: {rows + dropped} steps in its episodes, but {total} by its metadata; fetch "
            f"it again, or collect it again"
        )

    def joined(key: str, axes: int) -> Floats:
        parts = columns.pop(key)  # freed as soon as it is copied
        try:
            values = np.concatenate(parts)
        except ValueError as error:
            raise InputError(f"{path}: {key}: episodes differ in shape ({error})") from None
        return column(values, path, key, rows, axes)

    return Columns(
        observations=joined("observations", 2),
        actions=joined("actions", 2),
        rewards=joined("rewards", 1),
        next_observations=joined("next", 2),
        terminations=flags(np.concatenate(columns.pop("terminations")), path, "terminations", rows),
        truncations=flags(np.concatenate(columns.pop("truncations")), path, "truncations", rows),
        notes=notes,
    )


def _leaves(observations: Any, name: str = "") -> dict[str, NDArray[Any]]:
    """The arrays of a nested dict by path: `desired_goal/kettle`."""
    if not isinstance(observations, Mapping):
        return {name: np.asarray(observations)}
    leaves: dict[str, NDArray[Any]] = {}
    for key in sorted(observations):
        leaves.update(_leaves(observations[key], f"{name}/{key}" if name else key))
    return leaves


def _flat(observations: Any, declared: list[str], where: str) -> tuple[Floats, list[str]]:
    """Observations as float32 (T + 1, dimensions), and the names of a dict's leaves in order."""
    leaves = _leaves(observations)
    order = list(leaves)
    if declared and isinstance(observations, Mapping):
        order = []
        for key in declared:
            below = [name for name in leaves if name == key or name.startswith(f"{key}/")]
            if not below:
                raise InputError(
                    f"{where}: observations lack {key!r}; found {', '.join(leaves)}; correct "
                    f"environment.observation_keys of the card"
                )
            order += below
    parts = [leaves[name] for name in order]
    if any(part.dtype.kind not in "fiub" for part in parts):
        kinds = ", ".join(f"{name} {leaves[name].dtype}" for name in order)
        raise InputError(f"{where}: observations are {kinds}; offrl reads numbers only")
    with np.errstate(over="ignore"):  # beyond float32 turns to infinity: caught when all is read
        flat = [part.reshape(len(part), -1).astype(np.float32) for part in parts]
    joined = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    return joined, order if isinstance(observations, Mapping) else []
