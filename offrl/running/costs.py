"""What runs cost in time and memory, by what earlier runs of their kind measured.

A training process writes `RUNS/.costs/<hash>.json` after its first minute and at its end: one small
file for each kind of run, number of replicas, device and processor, replaced whole, so that many
processes on many machines write them without a lock. Nothing but estimates depends on them.
"""

import hashlib
import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from offrl.errors import InputError
from offrl.files import below, read_own, replacing, seal, unseal
from offrl.results.provenance import processor
from offrl.results.rows import Identity
from offrl.toml import validate

if TYPE_CHECKING:
    from offrl.running.jobs import Job

log = logging.getLogger(__name__)

FOLDER = ".costs"
MOST_FILES, MOST_BYTES = 10_000, 2**13
FIRST_NOTE = 60.0  # seconds of a group after which its costs are noted while it goes on
ENOUGH = 1_000  # updates; a measurement of fewer replaces none of more

Text = Annotated[str, Field(max_length=500)]
Seconds = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]


class Cost(BaseModel):
    """What runs of one kind took, R of which trained as one batch in one process."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    algorithm: Text  # a registered name, or the name of a file
    code: Text | None  # SHA-256 of that file
    sizes: Text  # hash of what the config says of sizes
    dataset: Text  # the id of its card
    replicas: Annotated[int, Field(ge=1, lt=2**31)]
    device: Text  # cpu or cuda
    processor: Text  # or GPU
    update: Seconds  # for one update of all replicas, sampling included
    updates: Annotated[int, Field(ge=1, lt=2**63)]  # that were measured
    episode: Seconds | None  # for an episode of one run's evaluation; None: others played them
    memory: Annotated[int, Field(ge=0, lt=2**63)]  # bytes, the most that the process has held

    @classmethod
    def of(
        cls,
        run: "Job | Identity",
        replicas: int,
        device: str,
        *,
        update: float,
        updates: int,
        episode: float | None,
    ) -> "Cost":
        """What this process measured for a run of R that train together on a device."""
        algorithm, code, sizes, dataset = _kind(run)
        return cls(
            algorithm=algorithm,
            code=code,
            sizes=sizes,
            dataset=dataset,
            replicas=replicas,
            device=device.partition(":")[0],
            processor=processor(device)[:500],
            update=update,
            updates=updates,
            episode=episode,
            memory=most_memory(),
        )

    @property
    def file(self) -> str:
        """The name of the file that holds it, the same for measurements of the same thing."""
        key = self.model_dump(exclude={"update", "updates", "episode", "memory"})
        return f"{_digest(key)}.json"


def most_memory() -> int:
    """The most bytes of memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def note(root: Path, cost: Cost) -> None:
    """Keeps a measurement below a folder of runs; one that cannot be written is left out."""
    try:
        path = below(root, FOLDER, cost.file)
        known = _read(path)
        if known is not None and cost.updates < min(known.updates, ENOUGH):
            return
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(seal(cost.model_dump())) + "\n", encoding="utf-8")
    except (InputError, OSError) as error:
        log.info("no costs are noted: %s", error)


class Meter:
    """What a group takes while it trains, noted after its first minute and at its end.

    Args:
        replicas: R.
        device: on which they train.
    """

    def __init__(self, replicas: int, device: str):
        self.replicas, self.device = replicas, device
        self._begun = time.monotonic()
        self._is_warm = self._is_noted = False
        self._updating = self._playing = 0.0
        self._updates = self._episodes = 0

    def add_updates(self, count: int, seconds: float) -> None:
        """Counts updates of all replicas; the first ones, which prepare more, do not count."""
        if self._is_warm:
            self._updates += count
            self._updating += seconds
        self._is_warm = True

    def add_episodes(self, count: int, seconds: float) -> None:
        """Counts episodes of all replicas that this process played."""
        self._episodes += count
        self._playing += seconds

    def note(self, runs: Sequence["Job"], root: Path | None, *, ended: bool = False) -> None:
        """Keeps what was measured so far for each kind among the runs, if it is time to do so."""
        is_due = not self._is_noted and time.monotonic() - self._begun > FIRST_NOTE
        if root is None or not self._updates or not (ended or is_due):
            return
        self._is_noted = True
        costs = [
            Cost.of(
                run,
                self.replicas,
                self.device,
                update=self._updating / self._updates,
                updates=self._updates,
                episode=self._playing / self._episodes if self._episodes else None,
            )
            for run in runs
        ]
        for cost in {cost.file: cost for cost in costs}.values():
            note(root, cost)


class Costs:
    """Estimates by what was measured; `Costs.read(root)` has all that a folder of runs holds."""

    def __init__(self, known: Sequence[Cost] = ()):
        self._known: dict[tuple[str, str | None, str], list[Cost]] = {}
        for cost in known:
            self._known.setdefault((cost.algorithm, cost.code, cost.sizes), []).append(cost)

    @classmethod
    def read(cls, root: Path) -> "Costs":
        """The measurements below a folder of runs; files that are damaged or planted are left out.

        They are counted in one logged line.
        """
        try:
            folder = below(root, FOLDER)
            names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".json")]
        except (InputError, OSError):
            return cls()
        names = sorted(name for name in names if not name.startswith("."))[:MOST_FILES]
        read = {name: _read(folder / name) for name in names}
        if bad := [name for name, cost in read.items() if cost is None or cost.file != name]:
            log.warning(
                "%s: %d files are no costs that offrl wrote (the first: %s) and are left out; "
                "delete them",
                folder,
                len(bad),
                bad[0],
            )
        return cls([cost for name, cost in read.items() if cost is not None and name not in bad])

    def seconds(
        self, run: "Job | Identity", replicas: int = 1, device: str = "cpu", since: int = 0
    ) -> float | None:
        """Seconds of a worker for one run of R that train together, its share of their time.

        So the time of a group is the sum over its runs. None where no run of the kind was measured
        on such a device. Where none has this R, a CPU's time for an update is taken to grow with R
        and a GPU's not to.

        Args:
            run: what is estimated.
            replicas: R.
            device: on which they train.
            since: gradient steps that are made already.
        """
        cost = self._nearest(run, replicas, device)
        if cost is None:
            return None
        of = replicas if cost.device != "cpu" else cost.replicas
        training = (run.steps - since) * cost.update / of
        if cost.episode is None:
            return training
        values = _evaluation(run)
        every, episodes = values.get("every") or run.steps or 1, values.get("episodes") or 1
        evaluations = -(-run.steps // every) - since // every
        played = evaluations * episodes
        if evaluations:
            played += values.get("final_episodes", episodes) - episodes
        return training + played * cost.episode

    def memory(self, run: "Job | Identity", replicas: int = 1, device: str = "cpu") -> int | None:
        """The most bytes that a process held which trained such runs; None where none did."""
        cost = self._nearest(run, replicas, device)
        return None if cost is None else cost.memory

    def _nearest(self, run: "Job | Identity", replicas: int, device: str) -> Cost | None:
        """The measurement that is most like a run.

        One on the same data set comes first, then one on this processor, then the nearest R.
        """
        algorithm, code, sizes, dataset = _kind(run)
        here, place = processor(device)[:500], device.partition(":")[0]

        def distance(cost: Cost) -> tuple[bool, bool, float, int]:
            apart = abs(math.log(cost.replicas / replicas))
            return cost.dataset != dataset, cost.processor != here, apart, -cost.updates

        known = self._known.get((algorithm, code, sizes), [])
        return min((c for c in known if c.device == place), key=distance, default=None)


def _kind(run: "Job | Identity") -> tuple[str, str | None, str, str]:
    """Algorithm, its code, a hash of its sizes, and the data set's id."""
    algorithm = Path(run.algorithm).name if run.code else run.algorithm
    if isinstance(run, Identity):
        dataset = run.dataset.partition("@")[0]
    else:
        dataset = run.dataset_id or run.dataset
    sizes = _digest(_without_floats(run.config))
    return algorithm[:500], run.code, sizes, dataset[:500]


def _evaluation(run: "Job | Identity") -> dict[str, int]:
    return run.evaluation if isinstance(run, Identity) else run.evaluation.record()


def _without_floats(value: Any) -> Any:
    """A config without its real numbers, which decide no sizes: rates, weights and the like."""
    match value:
        case float():
            return None
        case dict():
            return {key: _without_floats(inner) for key, inner in value.items()}
        case list():
            return [_without_floats(inner) for inner in value]
    return value


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> Cost | None:
    """The measurement in a file; None where there is none."""
    try:
        values = json.loads(read_own(path, MOST_BYTES))
        return validate(Cost, unseal(values), str(path)) if isinstance(values, dict) else None
    except (OSError, ValueError, RecursionError):
        return None
