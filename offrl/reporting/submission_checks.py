"""Whether a submission can stand on a board: every fault as a line, and what seems odd as another.

Faults are contradictions between a bundle and its protocol, its data sets' cards or itself. What
may be true but rarely is (`warnings`) is for a person to look at.
"""

import dataclasses
import functools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

from offrl import registry
from offrl.data.card import Card, Environment, Reference, shipped_cards
from offrl.data.loader import loader_of
from offrl.errors import Damaged, InputError
from offrl.files import read_own
from offrl.learning import checkpoint
from offrl.learning.learner import find_algorithm
from offrl.reporting.submission import OFFRL, Submission, read_submission
from offrl.reporting.submission_runs import Run, copies, listed, odd
from offrl.results.bundle import SUBMISSION, WEIGHTS
from offrl.results.curves import LARGEST as LARGEST_CURVES
from offrl.results.curves import read_curves, up_to
from offrl.results.provenance import SIMULATORS
from offrl.results.rows import Identity, ScoreRow, Status
from offrl.results.unpacking import Bundle, opened
from offrl.running.jobs import config_hash, configure
from offrl.running.protocol import Protocol, find_protocol, shipped_protocols

MOST_TEXT = 2**25  # bytes of a submission, unpacked, weights apart
MOST_WEIGHTS = 20 * 2**20  # bytes of a checkpoint
CLOSE = 1e-9  # of scores and their recomputation, relative to the larger of 1 and the score
LARGEST_RETURN = 1e70  # of an episode, whose squares are numbers still


@dataclass(frozen=True)
class Checked:
    """A submission after its check; without faults it can stand on a board.

    Attributes:
        path: of the bundle.
        digest: of its content; empty where the bundle cannot be read.
        submission: None where there is none that can be read.
        runs: by path.
        faults: a line each.
        warnings: a line each.
        has_weights: whether there is a checkpoint of every run.
    """

    path: Path
    digest: str
    submission: Submission | None
    runs: tuple[Run, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    has_weights: bool = False


def check_submission(path: Path, *, standing: bool = False) -> Checked:
    """The submission in a bundle, with all that is wrong or odd about it.

    `standing` is for those that were merged: their protocol or data sets may be at later versions
    by now. What the earlier ones said is not known any more, so that nothing is compared with it.
    Neither are versions of packages with those that offrl takes by now.
    """
    try:
        with opened(path, MOST_TEXT) as bundle:
            return check_bundle(bundle, standing=standing)
    except InputError as error:
        message = str(error).removeprefix(f"{path}: ")
        return Checked(path, "", None, (), (message,), ())


def check_bundle(bundle: Bundle, *, standing: bool = False) -> Checked:
    """The same of a bundle that is unpacked."""
    runs = tuple(
        Run(run.path, run.record, tuple(r for r in run.rows if r.policy == run.rows[-1].policy))
        for run in bundle.runs
        if run.record is not None
    )
    faults: list[str] = []
    submission = _submission(bundle, faults)
    faults += _one_entry(runs)
    protocol = _current_protocol(runs[0].identity.protocol, standing, faults)
    if protocol is not None:
        faults += _against_protocol(runs, protocol, standing)
    for run in runs:
        faults += _against_card(run, standing)
        faults += _against_itself(run)
        faults += _weights(run)
        if submission is not None and submission.code == OFFRL and run.identity.code is not None:
            own = "the algorithm is a file of your own, so give the address of its code"
            faults.append(f"{SUBMISSION}: code: {own}, found {OFFRL!r}")
    faults += _equal_weights(bundle)
    if any(name.endswith(WEIGHTS) for name in bundle.files) and not bundle.has_weights:
        faults.append("checkpoint: some runs have weights and some have none; pack all or none")
    huge = any(abs(r) > LARGEST_RETURN for run in runs for row in run.rows for r in row.returns)
    copied, alike = ([], []) if huge else copies(runs)
    warnings = [] if huge else [*odd(runs, protocol), *alike]
    return Checked(
        bundle.path,
        bundle.digest,
        submission,
        runs,
        tuple(dict.fromkeys([*faults, *copied])),
        tuple(dict.fromkeys(warnings)),
        bundle.has_weights,
    )


def _submission(bundle: Bundle, faults: list[str]) -> Submission | None:
    """The bundle's submission; what is wrong with it is added to `faults`."""
    path = bundle.folder / SUBMISSION
    if SUBMISSION not in bundle.files:
        faults.append(f"{SUBMISSION}: there is none; make the bundle by offrl leaderboard submit")
        return None
    try:
        return read_submission(path.read_text("utf-8", errors="replace"), SUBMISSION)
    except InputError as error:
        faults += str(error).splitlines()
        return None


def _one_entry(runs: Sequence[Run]) -> Iterator[str]:
    """Faults of a bundle with more than one algorithm, protocol, or config on a data set."""
    for what, values in (
        ("protocol", {run.identity.protocol for run in runs}),
        ("algorithm", {run.identity.label for run in runs}),
    ):
        if len(values) > 1:
            yield (
                f"{what}: expected one in a submission, found {len(values)}: "
                f"{', '.join(sorted(values))[:200]}; make one of each"
            )
    configs: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        configs[run.identity.dataset].add(run.identity.config_hash)
    for dataset, hashes in configs.items():
        if len(hashes) > 1:
            yield f"{dataset}: {len(hashes)} configs; expected one on each data set"
    data = {(run.identity.dataset, run.identity.data_sha256) for run in runs}
    for dataset, count in Counter(name for name, _ in data).items():
        if count > 1:
            yield f"{dataset}: its runs trained on data with {count} checksums; expected one"


def version_number(text: str) -> int | None:
    """The version that stands behind an @; None for what is no version."""
    return int(text) if re.fullmatch("[1-9][0-9]{0,8}", text, re.ASCII) else None


def _current_protocol(of: str, standing: bool, faults: list[str]) -> Protocol | None:
    """The protocol ID@VERSION, None at an earlier version; what is wrong is added to `faults`."""
    name, _, version = of.partition("@")
    if name not in shipped_protocols():
        none = "is none that ships with offrl; run one that does, unchanged"
        faults.append(f"protocol: {name!r:.80} {none}")
        return None
    protocol = find_protocol(name)
    if version == str(protocol.version):
        return protocol
    number = version_number(version)
    if not standing or number is None or number > protocol.version:
        faults.append(
            f"protocol: {name} is at version {protocol.version}, and these runs are of version "
            f"{version:.20}, whose board is frozen; run it again"
        )
    return None


def _against_protocol(runs: Sequence[Run], protocol: Protocol, standing: bool) -> Iterator[str]:
    """Faults of runs that are not those of the protocol, as it ships."""
    name = protocol.id
    seeds: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        seeds[run.identity.dataset.partition("@")[0]].append(run.identity.seed)
        yield from _algorithm(run.identity, protocol)
        yield from _budget(run, protocol, standing)
    for dataset in sorted(seeds):
        if dataset not in protocol.datasets:
            yield f"{dataset}: is no data set of {name}"
            continue
        lacking = sorted({*protocol.seeds} - {*seeds[dataset]})
        extra = sorted({*seeds[dataset]} - {*protocol.seeds})
        if lacking:
            of, them = ("seed", "it") if len(lacking) == 1 else ("seeds", "them")
            yield f"{dataset}: lacks the {of} {listed(lacking)} of {name}; run {them}"
        if extra:
            of, them = ("seed", "it") if len(extra) == 1 else ("seeds", "them")
            yield f"{dataset}: has the {of} {listed(extra)}, which {name} has not; leave {them} out"


def _shipped() -> set[str]:
    """The names of the algorithms that ship with offrl."""
    return {path.stem for path in registry.resources("algorithms", ".py")}


def _algorithm(of: Identity, protocol: Protocol) -> Iterator[str]:
    """A fault of a run whose label, algorithm and code are not those of one algorithm."""
    entry = protocol.algorithms.get(of.label)
    found = f"{of.algorithm:.80}{', a file of its own' if of.code else ''}"
    if entry is not None or of.label in _shipped():
        expected = (entry and entry.algorithm) or of.label
        if (of.algorithm, of.code) != (expected, None):
            where = f"{of.label} of {protocol.id}" if entry else of.label
            yield f"algorithm: {where} is {expected}, which ships with offrl; found {found}"
    elif of.code is None:
        yield (
            f"algorithm: {of.label:.80} does not ship with offrl, and its runs lack the SHA-256 of "
            "its file; run it again by its path"
        )
    elif of.label != of.algorithm.removesuffix(".py"):
        yield f"algorithm: {of.label:.80} is no name of its file; found {found}"


def _budget(run: Run, protocol: Protocol, standing: bool) -> Iterator[str]:
    """Faults of one run's steps, evaluations and settings.

    Those of an algorithm that ships are all known, until its defaults change.
    """
    of = run.identity
    dataset = of.dataset.partition("@")[0]
    entry = protocol.algorithms.get(of.label)
    overrides = None if entry is None else entry.on_dataset(dataset, protocol.datasets)
    steps, evaluation = protocol.steps, protocol.evaluation
    if overrides is not None:
        steps = overrides.steps or steps
        budget = overrides.model_dump(include={"every", "episodes"}, exclude_none=True)
        evaluation = evaluation.model_copy(update=budget)
    settings = {} if overrides is None else overrides.config
    name = (entry and entry.algorithm) or of.label
    whole = not standing and (of.algorithm, of.code) == (name, None) and name in _shipped()
    if whole:
        settings = dataclasses.asdict(configure(name, settings, protocol.id))
    expected_config = json.loads(json.dumps(settings))
    for key in sorted(expected_config | (of.config if whole else {})):
        expected, found = expected_config.get(key), of.config.get(key)
        if expected != found:
            yield (
                f"{run.title}: config.{key:.80}: expected {expected!r:.80} of {protocol.id}, found "
                f"{found!r:.80}"
            )
    for what, due, recorded in (
        ("steps", steps, of.steps),
        ("evaluation", evaluation.record(), of.evaluation),
    ):
        if due != recorded:
            yield f"{run.title}: {what}: expected {due} of {protocol.id}, found {recorded!s:.100}"
    for row in run.rows:
        count = evaluation.episodes_at(row.step, steps)
        if len(row.returns) != count:
            yield (
                f"{run.title}: step {row.step:,}: expected {count} returns, found "
                f"{len(row.returns)}"
            )


def _against_card(run: Run, standing: bool) -> Iterator[str]:
    """Faults of a run whose data, simulator or references are not those of the card."""
    of = run.identity
    name, _, version = of.dataset.partition("@")
    number, card = version_number(version), shipped_cards().get(name)
    if standing and number is not None and (card is None or number < card.version):
        yield from _of_earlier_card(run)
        return
    if card is None:
        yield f"{name:.80}: is no data set that ships with offrl"
        return
    if version != str(card.version):
        yield f"{name}: is at version {card.version}, and its runs are of version {version:.20}"
        return
    environment = card.environment.model_dump(exclude={"entry_point"}) if card.environment else None
    reference = card.reference.model_dump() if card.reference else None
    for what, expected, found in (
        ("simulator", environment, of.environment),
        ("reference returns", reference, of.reference),
    ):
        if expected != found:
            yield f"{name}: {what}: expected {expected!s:.200} of its card, found {found!s:.200}"
    if (views := _views(of, card)) is not None and of.view not in views:
        wanted = " or ".join(views)
        yield f"{name}: view: expected {wanted} for {of.label:.80}, found {of.view!r:.80}"
    if card.environment is None or card.reference is None:
        yield f"{name}: has no simulator, so that there is nothing to rank"
        return
    noted = {*SIMULATORS, *(p for row in run.rows for p in row.simulator)}
    taken = {} if standing else _required(*sorted(noted))
    for row in run.rows:
        yield from _versions(run, row, {**taken, **card.valid_with})
        yield from _row(run, row, card.environment, card.reference)


def _of_earlier_card(run: Run) -> Iterator[str]:
    """Faults of a run by the simulator and the references that it recorded itself."""
    try:
        environment = Environment.model_validate(run.identity.environment)
        reference = Reference.model_validate(run.identity.reference)
    except ValidationError:
        yield f"{run.title}: expected the simulator and the reference returns of its data set"
        return
    if reference.fault:
        yield f"{run.title}: {reference.fault}"
        return
    for row in run.rows:
        yield from _row(run, row, environment, reference)


def _views(of: Identity, card: Card) -> tuple[str, ...] | None:
    """The views of a data set that an algorithm may train on; None where it is none of offrl's.

    That of an algorithm that ships is known; of any other it is one of the loader's.
    """
    if of.code is not None:
        return tuple(loader_of(card).VIEWS)
    if of.algorithm not in _shipped():
        return None
    return (find_algorithm(of.algorithm).view or card.view,)


def _versions(run: Run, row: ScoreRow, wanted: Mapping[str, str]) -> Iterator[str]:
    """Faults of a row that was played with other versions of packages than wanted."""
    for package, versions in wanted.items():
        found = row.simulator.get(package)
        if found is None or not _is_in(found, versions):
            yield (
                f"{run.title}: step {row.step:,}: {package} {found or 'of no known version'}; "
                f"scores on {run.identity.dataset.partition('@')[0]} are valid with {package} "
                f"{versions}"
            )


def _row(run: Run, row: ScoreRow, environment: Environment, reference: Reference) -> Iterator[str]:
    """Faults of a row: its simulator, its lengths, and a score that its returns do not give."""
    where = f"{run.title}: step {row.step:,}"
    if row.environment != environment.id:
        yield f"{where}: played in {row.environment!r:.80}; expected {environment.id}"
    limit = environment.max_episode_steps
    if len(row.lengths) != len(row.returns) or any(not 1 <= n <= limit for n in row.lengths):
        yield f"{where}: expected a length from 1 to {limit} of each episode"
    if not row.returns or row.mean_return is None or row.score is None:
        yield f"{where}: has no returns"
        return
    if max(map(abs, row.returns)) > LARGEST_RETURN:
        yield f"{where}: has returns beyond {LARGEST_RETURN:g}, which no simulator pays"
        return
    mean = math.fsum(row.returns) / len(row.returns)
    if not _is_close(mean, row.mean_return):
        stated = f"{row.mean_return:.12g} as stated"
        yield f"{where}: its returns have the mean {mean:.12g}, not {stated}"
    low, high = reference.min, reference.max
    score = 100 * (mean - low) / (high - low)
    if not _is_close(score, row.score):
        yield f"{where}: its returns give the score {score:.12g}, not {row.score:.12g} as stated"


@functools.cache
def _required(*packages: str) -> dict[str, str]:
    """The versions of packages that offrl takes, such as a simulator's before it moves otherwise.

    None where offrl is not installed.
    """
    try:
        needed = map(Requirement, requires("offrl") or ())
    except PackageNotFoundError:
        return {}
    return {r.name: str(r.specifier) for r in needed if r.name in packages and r.specifier}


def _against_itself(run: Run) -> Iterator[str]:
    """Faults of a run that contradicts itself, or lacks what a board shows."""
    of = run.identity
    made = config_hash(of.algorithm, of.config, of.code)
    if made != of.config_hash:
        yield f"{run.title}: config: its hash is {made}, but {of.config_hash} is stated"
    if run.record.status is not Status.DONE:
        if run.record.status is not Status.FAILED:
            yield f"{run.title}: is {run.record.status}; carry it on until it is done"
        return
    path = run.folder / "metrics.csv"
    try:
        data, lines = read_own(path, LARGEST_CURVES), read_curves(path)
    except OSError:
        data, lines = b"", []
    kept = {step for step, _ in lines}
    if not lines or lines[-1][0] != of.steps:
        yield f"{run.title}: metrics.csv: expected losses up to step {of.steps:,}; run it again"
    elif missing := sorted({row.step for row in run.rows} - kept):
        yield f"{run.title}: metrics.csv: expected losses at step {listed(missing)}; run it again"
    elif up_to(data, of.steps) != data:
        yield f"{run.title}: metrics.csv: has lines that offrl does not write; run it again"
    times = [row.wall_time for row in run.rows]
    if any(not 0 < time < math.inf for time in times) or times != sorted(times):
        yield f"{run.title}: wall_time: expected times that rise from row to row"
    if not run.record.sessions:
        yield f"{run.title}: has no session, so that its versions are not known"


def _weights(run: Run) -> Iterator[str]:
    path = run.folder / WEIGHTS
    if not path.exists():
        return
    if path.stat().st_size > MOST_WEIGHTS:
        yield f"{run.title}: {WEIGHTS}: expected at most {MOST_WEIGHTS:,} bytes"
        return
    try:
        checkpoint.load(path)
    except Damaged as error:
        yield f"{run.title}: {str(error).replace(str(path), WEIGHTS)}"


def _equal_weights(bundle: Bundle) -> Iterator[str]:
    """Faults of runs with one checkpoint, which two seeds do not come to."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, checksum in sorted(bundle.files.items()):
        if name.endswith(WEIGHTS):
            owners[checksum].append(name.removesuffix(f"/{WEIGHTS}"))
    for names in owners.values():
        if len(names) > 1:
            yield f"checkpoint: {listed(names)} have the same; each run has its own"


def _is_close(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * max(1.0, abs(a))


def _is_in(version: str, wanted: str) -> bool:
    try:
        return SpecifierSet(wanted).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
