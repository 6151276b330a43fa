"""A data set looked at from all sides: files, card, columns, and its steps in the simulator."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offrl.data.card import Card, Expected
from offrl.data.convert import Unexpected, differences
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.describe import Check, check
from offrl.data.doctor import examine
from offrl.data.findings import Finding, first_rows, listed
from offrl.data.jumps import Jumps
from offrl.data.resolve import resolve
from offrl.errors import InputError
from offrl.evaluation.environments import Actions, Unfit, actions_of, known_actions
from offrl.evaluation.observed import Remade, pay, remake
from offrl.evaluation.replay import Replay, check_steps
from offrl.progress import Progress, stage
from offrl.text import counted
from offrl.trust import Files

ODD = 0.01  # share of steps or rewards that disagree: above, a warning
MANY = 0.1  # above, a fault

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Checkup:
    """All that was found on a data set.

    Attributes:
        dataset: the data set.
        read: checksums, totals and what the card does not know.
        findings: verdicts.
        jumps: the scores of its steps.
        replays: of files that hold states of their simulator.
        notes: on files whose states were not replayed.
    """

    dataset: Dataset
    read: Check
    findings: list[Finding]
    jumps: Jumps
    replays: list[Replay]
    notes: list[str]

    def of_verdict(self, verdict: str) -> list[Finding]:
        """The findings with a verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]

    @property
    def summary(self) -> str:
        """How many faults and warnings there are, in words."""
        unchecked = len(self.of_verdict("cannot be checked"))
        parts = [
            counted(len(self.of_verdict("fault")), "fault"),
            counted(len(self.of_verdict("warning")), "warning"),
            *([f"{unchecked:,} that cannot be checked"] if unchecked else []),
        ]
        return ", ".join(parts)


def checkup(
    source: str | Path | Card, *, trust: Files = (), progress: Progress | None = None
) -> Checkup:
    """Everything that can be found out about a data set, a verdict on each subject.

    Args:
        source: as `load_dataset` takes it.
        trust: as `load_dataset` takes it.
        progress: called with what is done and the total.

    Raises InputError where it cannot be read at all, or where a file or the cache has another
    checksum than it should.
    """
    card = resolve(source, None, trust)
    readable = card
    try:
        read = check(card)
    except Unexpected:  # of counts and the mean return, which are a finding
        readable = card.model_copy(update={"expected": Expected()})
        read = check(readable)
        counts = [key for key, value in card.expected if value is not None]
        read = replace(read, unknown=card.unknown, compared=[*read.compared, *counts])
    dataset = load_dataset(readable)
    environment = card.environment
    known = known_actions(environment)
    if known is not None and not _fit(known, dataset):
        known = None
    limits = None
    if known is not None and known.count is None:
        limits = np.array(known.low, np.float32), np.array(known.high, np.float32)
    limit = environment.max_episode_steps if environment else None
    findings, scores = examine(dataset, limit, limits, stage(progress, 0, 70))
    replays, notes = check_steps(card, read.files)
    findings = [
        *_against_card(card, read),
        *findings,
        *(finding for made in replays for finding in _of_file(made)),
        *_in_simulator(dataset, scores.suspects, replays, stage(progress, 70, 100)),
    ]
    return Checkup(dataset, read, findings, scores, replays, notes)


def _fit(known: Actions, dataset: Dataset) -> bool:
    """Whether a simulator takes the data's kind of actions."""
    if known.count is not None or dataset.action_count is not None:
        return known.count == dataset.action_count
    return len(known.low) == int(dataset.actions.shape[1])


def _against_card(card: Card, read: Check) -> Iterator[Finding]:
    """Findings on files, counts and the mean return."""
    checksums = [text for text in read.compared if "checksum" in text]
    yield Finding("files", "ok", f"every byte is as {', '.join(checksums)} have it")
    differing = [
        text for split, totals in read.totals.items() for text in differences(card, split, totals)
    ]
    if differing:
        text = f"{card.id}: {'; '.join(differing)}: the data are not those of card version "
        yield Finding("card", "fault", f"{text}{card.version}, or their ends are marked otherwise")
    elif known := [key.replace("_", " ") for key, value in card.expected if value is not None]:
        yield Finding("card", "ok", f"{', '.join(known)} are what it expects")
    if card.unknown:
        text = f"the card does not know {', '.join(card.unknown)}"
        yield Finding("what the card lacks", "cannot be checked", text)


def _graded(
    subject: str, apart: int, of: int, good: str, bad: str, rows: Sequence[int] = ()
) -> Finding:
    """A finding on things of which some disagree with the simulator."""
    share = apart / max(1, of)
    if share <= ODD:
        text = good if not apart else f"{good}, but for {apart:,} of {of:,}"
        return Finding(subject, "ok", text, first_rows(rows))
    where = f" (row {listed(rows)})" if len(rows) else ""
    text = f"{apart:,} of {of:,}{where} {bad}"
    return Finding(subject, "fault" if share > MANY else "warning", text, first_rows(rows))


def _of_file(made: Replay) -> Iterator[Finding]:
    """Findings on steps from states that a file holds."""
    name, errors = Path(made.file).name, made.velocities
    near = made.rounding[1] if made.rounding else None
    # Data of the simulator are off by their rounding; a typical velocity is some units.
    good = errors.median <= max(1e-4, 10 * near.median if near else 0)
    text = (
        f"{made.steps:,} steps of {name} made again in {made.environment}: velocities off by "
        f"{errors.median:.1g} in the median, {errors.quantile_99:.1g} in 99 %"
    )
    if not good:
        text += ": another simulator, or another version of it, made the data"
    yield Finding("states of the file", "ok" if good else "fault", text)
    if made.endings_apart is None:
        return
    if not good:
        text = "the simulator takes other steps from the file's states"
        yield Finding("rewards of the file", "cannot be checked", text)
        return
    if made.rewards is None or made.rewards_apart is None:
        text = f"those of {made.environment} depend on the steps before a state, too"
        yield Finding("rewards of the file", "cannot be checked", text)
    else:
        yield _graded(
            "rewards of the file",
            made.rewards_apart,
            made.steps,
            f"the simulator's from {made.steps:,} of its states",
            f"rewards differ from the simulator's, by up to {made.rewards.maximum:.3g}",
        )
    yield _graded(
        "terminations of the file",
        made.endings_apart,
        made.steps,
        f"the simulator's from {made.steps:,} of its states",
        "steps end the process in the file or in the simulator alone",
    )


def _in_simulator(
    dataset: Dataset, suspects: Rows, replays: Sequence[Replay], progress: Progress | None
) -> Iterator[Finding]:
    """Findings on steps from observations, and on rewards that follow from these."""
    environment = dataset.card.environment
    if environment is None:
        text = "the card has no environment, so nothing is computed again"
        yield Finding("simulator", "cannot be checked", text)
        return
    try:
        actions_of(dataset, environment)
    except Unfit as reason:
        yield Finding("environment", "fault", str(reason))
        return
    except InputError:
        pass  # what follows makes it too, and says why it cannot
    try:
        paid = pay(dataset)
        if paid is not None:
            yield _graded(
                "rewards",
                len(paid.apart),
                len(paid.rows),
                f"{counted(len(paid.rows), 'reward')} computed again from observations agree",
                f"rewards disagree with what observations show, by up to {paid.largest:.3g}",
                paid.apart.tolist(),
            )
    except InputError as reason:
        yield Finding("rewards", "cannot be checked", str(reason))
        return
    try:
        made = remake(dataset, progress, suspects)
        yield from _of_observations(made, suspects, environment.id.rpartition(":")[2])
    except InputError as reason:
        if not replays:
            text = f"steps in {environment.id.rpartition(':')[2]}: {reason}"
            yield Finding("simulator", "cannot be checked", text)


def _of_suspects(made: Remade, suspects: Rows, name: str) -> Iterator[Finding]:
    """Findings on steps that may be ones over boundaries without a mark."""
    subject = "jumps of steps"
    tried = np.intersect1d(made.rows, suspects)
    if not len(tried):
        return
    rows = np.intersect1d(tried, np.union1d(made.states_apart, made.missing))
    if not len(rows):
        text = f"{counted(len(tried), 'step')} to where episodes begin are {name}'s too"
        yield Finding(subject, "ok", text)
        return
    text = (
        f"{counted(len(rows), 'step')} of {len(tried):,} inside episodes to where episodes begin "
        f"(row {listed(rows)}) that {name} does not take: episodes run into one there without a "
        f"mark"
    )
    yield Finding(subject, "fault", text, first_rows(rows))


def _of_observations(made: Remade, suspects: Rows, name: str) -> Iterator[Finding]:
    """Findings on steps that were made again from observations."""
    number = len(made.rows)
    compared = np.setdiff1d(made.compared, suspects)
    apart = np.setdiff1d(made.states_apart, suspects)
    if not len(compared):
        text = f"each of {number:,} made again in {name} ends the process here or there"
        yield Finding("steps", "cannot be checked", text)
    else:
        steps = _graded(
            "steps",
            len(apart),
            len(compared),
            f"{len(compared):,} made again in {name} agree (99 % to {made.states.quantile_99:.1g})",
            f"steps made again in {name} lead elsewhere, by {made.states.median:.1g} in the "
            f"median: another simulator or version of it made the data, or rows are wrong",
            apart.tolist(),
        )
        yield steps
        if steps.verdict == "fault":
            text = "the simulator takes other steps from the observations"
            yield Finding("rewards of steps", "cannot be checked", text)
            return
    yield from _of_suspects(made, suspects, name)
    if made.rewards is None:
        text = f"those of {name} depend on more than observation and action"
        yield Finding("rewards of steps", "cannot be checked", text)
    else:
        yield _graded(
            "rewards of steps",
            len(made.rewards_apart),
            number,
            f"{number:,} computed again agree",
            f"rewards disagree with the simulator's, by up to {made.rewards.maximum:.3g}",
            made.rewards_apart.tolist(),
        )
    for apart, text in (
        (made.missing, f"rows at which {name} terminates and the data do not"),
        (made.extra, f"rows at which the data terminate and {name} goes on"),
    ):
        if len(apart):
            yield _graded(
                "terminations of steps",
                len(apart),
                number,
                "the simulator's",
                text,
                apart.tolist(),
            )
    if not len(made.missing) and not len(made.extra):
        yield Finding("terminations of steps", "ok", f"the simulator's in {number:,} steps")
