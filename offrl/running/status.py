"""How the runs below a folder stand: by their records, who holds them, and what they cost."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from offrl.errors import Damaged, InputError
from offrl.results import leases
from offrl.results.rows import RunRecord, Status, main_scores, run_score
from offrl.results.settings import Config, settings_of, with_setting
from offrl.results.store import RUN_NAMES, RunFolder, State, StoredRun, run_folders
from offrl.running.costs import Costs


class Stand(StrEnum):
    """How far a run is, for those who watch it."""

    DONE = "done"
    RUNNING = "running"  # a process holds it
    FAILED = "failed"  # or damaged
    STALE = "stale"  # begun and not done, and no process holds it
    WAITING = "waiting"


@dataclass(frozen=True)
class RunStatus:
    """How one run stands."""

    path: Path
    protocol: str  # its id
    dataset: str  # its id
    algorithm: str  # the label, with the setting or the config's hash where there are several
    config_hash: str
    seed: int | None
    stand: Stand
    step: int
    steps: int | None
    score: float | None
    cause: str | None  # of a failure
    host: str | None  # of the process that holds it, else of the last one that did
    process: int | None  # that holds it
    seconds_to_go: float | None  # of one worker; None where it is not known, or nothing is left

    @property
    def title(self) -> str:
        """How messages name the run: data set, algorithm and seed."""
        return f"{self.dataset} {self.algorithm} seed {self.seed}"


@dataclass(frozen=True)
class GridStatus:
    """How all runs below a folder stand."""

    root: Path
    runs: list[RunStatus]

    def count(self, stand: Stand) -> int:
        """How many stand so."""
        return sum(run.stand is stand for run in self.runs)

    @property
    def workers(self) -> int:
        """Processes that hold runs."""
        return len({(r.host, r.process) for r in self.runs if r.stand is Stand.RUNNING})

    @property
    def left(self) -> list[RunStatus]:
        """The runs that are not done and have not failed."""
        ended = (Stand.DONE, Stand.FAILED)
        return [run for run in self.runs if run.stand not in ended]

    @property
    def work(self) -> float | None:
        """Seconds of one worker that are left, for runs of known cost; None where none is known."""
        known = [run.seconds_to_go for run in self.left if run.seconds_to_go is not None]
        return sum(known) if known else None

    @property
    def unknown(self) -> int:
        """Runs that are left whose cost is not known."""
        return sum(run.seconds_to_go is None for run in self.left)


def read_status(root: Path) -> GridStatus:
    """How the runs below a folder stand; reads alone. Raises InputError where there is none."""
    folders = run_folders(root)
    if not folders:
        what = "no run.json in this folder" if root.is_dir() else "no such folder"
        raise InputError(f"{root}: {what}; expected a folder that offrl run has filled")
    costs = Costs.read(root)
    # A process may end a run while this one reads: its holder is looked up before its record.
    return GridStatus(root, _with_distinct_names([_of(folder, costs) for folder in folders]))


def _of(folder: RunFolder, costs: Costs) -> tuple[RunStatus, Config | None]:
    """How a run stands, and its config where its record can be read."""
    held = _holder(folder)
    stored = folder.read()
    record = stored.record
    stand = _stand(stored, is_held=held is not None)
    step, left, last = _step(folder, stored), None, 1
    protocol, dataset, algorithm, seed = ["", "", "", *folder.path.absolute().parts][-4:]
    named = RUN_NAMES.fullmatch(f"{algorithm}/{seed}")
    label, config_hash = (named["label"], named["config"]) if named else (algorithm, "")
    number = int(named["seed"]) if named else None
    steps = None
    if record is not None:
        of = record.identity
        protocol, dataset = of.protocol.partition("@")[0], of.dataset.partition("@")[0]
        label, config_hash, number, steps, last = (
            of.label,
            of.config_hash,
            of.seed,
            of.steps,
            of.last,
        )
        if stand not in (Stand.DONE, Stand.FAILED):
            how = record.numerics[-1:]
            replicas, device = (how[0].replicas, how[0].device) if how else (1, "cpu")
            left = costs.seconds(of, replicas, device, min(step, of.steps))
    status = RunStatus(
        path=folder.path,
        protocol=protocol,
        dataset=dataset,
        algorithm=label,
        config_hash=config_hash,
        seed=number,
        stand=stand,
        step=step,
        steps=steps,
        score=run_score(main_scores(stored.rows), last),
        cause=stored.cause if stand is Stand.FAILED else None,
        host=held[0] if held else _last_host(record),
        process=held[1] if held else None,
        seconds_to_go=left,
    )
    return status, record.identity.config if record else None


def _with_distinct_names(found: Sequence[tuple[RunStatus, Config | None]]) -> list[RunStatus]:
    """The runs, each of a label with several configs on a data set named after its own too."""
    configs: dict[tuple[str, str], dict[str, Config | None]] = {}
    cells: dict[tuple[str, str], dict[str, set[str]]] = {}
    for run, config in found:
        of = (run.protocol, run.algorithm)
        known = configs.setdefault(of, {})
        known[run.config_hash] = known.get(run.config_hash) or config
        cells.setdefault(of, {}).setdefault(run.dataset, set()).add(run.config_hash)
    named = []
    for run, _ in found:
        of = (run.protocol, run.algorithm)
        texts = settings_of(configs[of], cells[of].values())
        several = len(cells[of][run.dataset]) > 1
        text = texts[run.config_hash] if texts is not None else run.config_hash if several else ""
        named.append(replace(run, algorithm=with_setting(run.algorithm, text)))
    return named


def _holder(folder: RunFolder) -> tuple[str | None, int | None] | None:
    """Host and process of who holds a run, as far as they are known; None where nobody does.

    Nor does a process of which there was no beat for so long that its runs are taken over.
    """
    try:
        held = folder.holder()
    except Damaged:
        return None  # reading the run says what is wrong
    if held is None or (held.beat is not None and held.beat >= leases.limit()):
        return None
    return (held.holder.host, held.holder.process) if held.holder else (None, None)


def _stand(stored: StoredRun, *, is_held: bool) -> Stand:
    match stored.state:
        case State.DONE:
            return Stand.DONE
        case State.FAILED | State.LACKING | State.DAMAGED:
            return Stand.RUNNING if is_held and stored.state is not State.FAILED else Stand.FAILED
    if is_held:
        return Stand.RUNNING
    waits = stored.record is None or stored.record.status is Status.WAITING
    return Stand.WAITING if waits else Stand.STALE


def _step(folder: RunFolder, stored: StoredRun) -> int:
    """The step that a run has reached, as far as it is saved."""
    step = stored.rows[-1].step if stored.rows else 0
    if stored.record is not None and stored.state is State.UNFINISHED:
        with contextlib.suppress(Damaged):
            step = max(step, folder.checkpoint_step(stored.record.identity.steps))
    return step


def _last_host(record: RunRecord | None) -> str | None:
    """The host of the last process that worked on a run, where its record has it."""
    host = record.sessions[-1].hardware.get("host") if record and record.sessions else None
    return host if isinstance(host, str) else None
