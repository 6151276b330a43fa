"""The episodes that a submission's weights play in starts that nobody knew when it was made."""

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, FiniteFloat
from scipy import stats

from offrl.errors import InputError
from offrl.files import read_own, replacing
from offrl.progress import Progress
from offrl.reporting.submission_checks import MOST_TEXT, Checked, check_bundle
from offrl.reporting.submission_runs import Run
from offrl.results.unpacking import opened
from offrl.toml import Strict, validate

SUFFIX = ".replay.json"
LARGEST = 2**24  # bytes
MOST_ERRORS = 4.0  # standard errors between the means of both, of episodes as they spread


_COMMIT = r"^[0-9a-f]{7,64}$"


class Replayed(Strict):
    """The returns of one run's policy."""

    dataset: str
    seed: int
    returns: list[FiniteFloat] = Field(min_length=2)


class Replay(Strict):
    """What a replay played: the content of NAME.replay.json beside NAME.zip."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of the bundle
    commit: Annotated[str, Field(pattern=_COMMIT)]  # that merged it
    runs: list[Replayed] = Field(min_length=1)


@dataclass(frozen=True)
class Agreement:
    """The mean returns of one data set: claimed, replayed, and how many errors lie between."""

    dataset: str
    claimed: float
    replayed: float
    errors: float
    apart: tuple[int, ...] = ()  # seeds of which the means of a run are further apart than chance

    @property
    def holds(self) -> bool:
        """Whether the claim stands."""
        return self.errors <= MOST_ERRORS and not self.apart


def replay_seed(digest: str, commit: str) -> int:
    """The seed of a replay's episodes, by a bundle and the commit that merged it."""
    return int.from_bytes(hashlib.sha256(f"{digest} {commit}".encode()).digest()[:7], "big")


def check_commit(commit: str) -> None:
    """Raises InputError for what is no commit, before an episode is played."""
    if not re.fullmatch(_COMMIT, commit):
        raise InputError(f"--replay {commit!r:.80}: expected a commit, 7 to 64 hexadecimal digits")


def replay(
    path: Path, commit: str, *, episodes: int = 100, progress: Progress | None = None
) -> Replay:
    """What the policies of a submission play in the simulators of its data sets' cards.

    Args:
        path: of its bundle, with weights.
        commit: that merged it; no submission can know it.
        episodes: of each run.
        progress: called with the runs done and all.

    Raises InputError where the bundle has faults, no weights, or a policy that cannot be played.
    """
    from offrl.running.evaluate import evaluate
    from offrl.running.policies import load_policy

    check_commit(commit)
    with opened(path, MOST_TEXT) as bundle:
        checked = check_bundle(bundle, standing=True)
        if checked.faults:
            raise InputError(f"{path}: {checked.faults[0]}; offrl leaderboard check says the rest")
        if not checked.has_weights:
            raise InputError(f"{path}: has no weights, so that no episode can be played")
        played = []
        seed = replay_seed(bundle.digest, commit)
        for done, run in enumerate(checked.runs, start=1):
            try:
                outcome = evaluate(load_policy(run.folder), episodes=episodes, seed=seed)
            except InputError as error:
                message = (
                    str(error).replace(f"{bundle.folder}/", "").replace(str(bundle.folder), "")
                )
                raise InputError(f"{path}: {run.title}: {message}") from None
            of = run.identity
            returns = outcome.returns.tolist()
            played.append(Replayed(dataset=of.dataset, seed=of.seed, returns=returns))
            if progress is not None:
                progress(done, len(checked.runs))
    values = {"digest": bundle.digest, "commit": commit, "runs": played}
    return validate(Replay, values, f"{path}: --replay")


def replay_path(bundle: Path) -> Path:
    """Where the replay of a bundle lies."""
    return bundle.with_name(f"{bundle.stem}{SUFFIX}")


def write_replay(replayed: Replay, path: Path) -> None:
    """Writes a replay, as `read_replay` reads it."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(replayed.model_dump(), indent=1) + "\n", encoding="utf-8")


def read_replay(path: Path) -> Replay | None:
    """The replay in a file; None where there is none."""
    try:
        values = json.loads(read_own(path, LARGEST))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected the JSON of a replay, but {error!s:.200}") from None
    return validate(Replay, values if isinstance(values, dict) else {}, str(path))


def agreements(checked: Checked, replayed: Replay, where: str) -> list[Agreement]:
    """What a replay says of each data set. Raises InputError where it is of other runs."""
    if not checked.has_weights:
        raise InputError(f"{where}: its bundle has no weights, so nothing can be replayed")
    if replayed.digest != checked.digest:
        raise InputError(f"{where}: is of another bundle ({replayed.digest:.12}); replay this one")
    claimed = {(run.identity.dataset, run.identity.seed): run for run in checked.runs if run.rows}
    found = {(run.dataset, run.seed): run.returns for run in replayed.runs}
    if claimed.keys() != found.keys():
        raise InputError(f"{where}: expected the returns of each run of the bundle; replay it anew")
    return _agreements(claimed, found)


def _agreements(
    claimed: Mapping[tuple[str, int], Run], found: Mapping[tuple[str, int], Sequence[float]]
) -> list[Agreement]:
    sums: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    apart: dict[str, list[int]] = defaultdict(list)
    most = float(stats.norm.isf(stats.norm.sf(MOST_ERRORS) / max(len(claimed), 1)))
    for key, run in claimed.items():
        returns = run.rows[-1].returns
        y, variance = _mean(found[key])  # not of the claims, which may be as noisy as wanted
        square = variance * (1 / len(returns) + 1 / len(found[key]))
        x = math.fsum(returns) / len(returns)
        sums[key[0]].append((x, y, square))
        if abs(x - y) > most * math.sqrt(square):
            apart[key[0]].append(key[1])
    agreed = []
    for dataset, parts in sorted(sums.items()):
        n = len(parts)
        x, y = (math.fsum(part[k] for part in parts) / n for k in (0, 1))
        error = math.sqrt(math.fsum(part[2] for part in parts)) / n
        gap = abs(x - y)
        errors = gap / error if error else (0.0 if gap == 0 else math.inf)
        agreed.append(Agreement(dataset, x, y, errors, tuple(sorted(apart[dataset]))))
    return agreed


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean of returns and their variance."""
    n = len(values)
    mean = math.fsum(values) / n
    return mean, math.fsum((value - mean) ** 2 for value in values) / max(n - 1, 1)
