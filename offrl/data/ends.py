"""Where episodes end, and by what: boundaries, terminations, truncations, the step limit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.dataset import Dataset
from offrl.data.findings import Finding, first_rows, listed
from offrl.data.jumps import HIGH, Jumps
from offrl.text import counted

NEAR = 1e-6  # observations nearer than this are one, as in the published splits of D4RL's files
BLOCK = 2**20  # numbers of a block of rows

Array = NDArray[Any]


def end_findings(dataset: Dataset, limit: int | None, jumps: Jumps) -> Iterator[Finding]:
    """Findings on the ends of episodes; `limit` is the step limit of the simulator, if known."""
    yield _successors(dataset)
    yield _boundaries(dataset, limit, jumps)
    yield from _beyond(dataset, jumps)
    yield _terminals(dataset, limit)
    yield _both(dataset)
    yield _time_limit(dataset, limit)
    yield _last_episode(dataset)


def _every_row(dataset: Dataset) -> bool:
    """Whether the card's view keeps the rows and successors of the source."""
    return dataset.card.view == "transitions"


def _apart(before: Array, after: Array) -> NDArray[np.bool_]:
    """Which rows of two columns differ by more than NEAR of their size."""
    apart = np.zeros(len(before), np.bool_)
    block = max(1, BLOCK // max(1, before.shape[1]))
    for start in range(0, len(before), block):
        part = slice(start, start + block)
        room = NEAR * np.maximum(1, np.abs(before[part]))
        apart[part] = (np.abs(before[part] - after[part]) > room).any(1)
    return apart


def _successors(dataset: Dataset) -> Finding:
    """Whether a row's successor is the next row, inside episodes."""
    subject = "successors"
    inside = ~(dataset.terminations | dataset.truncations)[:-1]
    apart = _apart(dataset.next_observations[:-1], dataset.observations[1:])
    rows = np.flatnonzero(apart & inside)
    if len(rows):
        return Finding(
            subject,
            "fault",
            f"{counted(len(rows), 'row')} inside episodes (row {listed(rows)}) whose successor is "
            f"not the next row's observation: an episode ends there without a mark, or rows are "
            f"missing or out of order",
            first_rows(rows),
        )
    return Finding(subject, "ok", "inside episodes each row's successor is the next row")


def _boundaries(dataset: Dataset, limit: int | None, jumps: Jumps) -> Finding:
    """Whether episodes run into one without a mark."""
    subject = "boundaries"
    if not jumps.columns:
        text = "no column of the observations moves often, or rows are too few to predict how"
        return Finding(subject, "cannot be checked", text)
    seen = jumps.seen
    share = "there is no marked boundary to say how many would be seen so"
    if len(jumps.resets):
        share = f"{seen:.0%} of the {counted(len(jumps.resets), 'marked end')} would be seen so"
    rows = jumps.suspects
    if len(rows):
        longer = _longer(dataset, limit)[rows]
        rows = rows[longer] if longer.any() else rows
        text = (
            f"{counted(len(rows), 'step')} inside episodes (row {listed(rows)}) to where episodes "
            f"begin, up to {jumps.steps[rows].max():.3g} times as far from the prediction as 99 % "
            f"of the steps"
        )
        if longer.any():
            text += f", in episodes longer than the limit of {limit:,} steps: episodes run into "
            text += f"one there without a mark; {share}"
            return Finding(subject, "fault", text, first_rows(rows))
        text += (
            f": episodes run into one there without a mark, or the process itself starts over, "
            f"which observations alone do not show; {share}"
        )
        return Finding(subject, "warning", text, first_rows(rows))
    rows = np.flatnonzero(~(dataset.terminations | dataset.truncations) & (jumps.steps > HIGH))
    if len(rows):
        return Finding(
            subject,
            "warning",
            f"{counted(len(rows), 'step')} inside episodes (row {listed(rows)}) up to "
            f"{jumps.steps[rows].max():.3g} times as far from their prediction as 99 % of the "
            f"steps: a wall, a contact or another rare event, or rows that are missing; {share}",
            first_rows(rows),
        )
    if len(jumps.resets) and seen < 0.05:
        text = "no observation jumps inside an episode, but nor does one where episodes are marked"
        return Finding(subject, "cannot be checked", text)
    return Finding(subject, "ok", f"no observation jumps inside an episode; {share}")


def _longer(dataset: Dataset, limit: int | None) -> NDArray[np.bool_]:
    """Which rows are of episodes longer than the step limit."""
    longer = dataset.episode_lengths > (np.inf if limit is None else limit)
    return np.repeat(longer, dataset.episode_lengths)


def _beyond(dataset: Dataset, jumps: Jumps) -> Iterator[Finding]:
    """Whether a successor belongs to the next episode, and whether an episode goes on after it."""
    subject = "successors at ends"
    ends = dataset.episode_starts[1:] - 1
    if not len(ends):
        return
    same = ~_apart(dataset.next_observations[ends], dataset.observations[ends + 1])
    terminal = dataset.terminations[ends]
    if not _every_row(dataset) and (same & terminal).any():
        text = (
            f"after {counted((same & terminal).sum(), 'termination')} the successor is the next "
            f"episode's first observation, as the view {dataset.card.view} has it; no algorithm "
            f"uses it"
        )
        yield Finding(subject, "ok", text)
        same &= ~terminal
    far = jumps.resets > HIGH
    rows = ends[same & far & ~terminal]
    if len(rows):
        yield Finding(
            subject,
            "fault",
            f"after {counted(len(rows), 'truncation')} (row {listed(rows)}) the successor is the "
            f"next episode's first observation: values would be bootstrapped from another episode",
            first_rows(rows),
        )
    rows = ends[same & far & terminal]
    if len(rows):
        yield Finding(
            subject,
            "warning",
            f"after {counted(len(rows), 'termination')} (row {listed(rows)}) the successor is the "
            f"next episode's first observation, which only an algorithm that ignores terminations "
            f"would use",
            first_rows(rows),
        )
    rows = ends[same & ~far]
    if len(rows):
        yield Finding(
            subject,
            "warning",
            f"{counted(len(rows), 'episode')} (ends at row {listed(rows)}) of which the next one "
            f"goes on: the process did not end there, or a mark is wrong",
            first_rows(rows),
        )
    if not same.any() and _every_row(dataset):
        yield Finding(subject, "ok", "no episode goes on in the next one")


def _dropped(dataset: Dataset) -> bool:
    """Whether reading left out the last row of episodes that were cut off."""
    ends = dataset.truncations & ~dataset.terminations
    return dataset.source.transitions - len(dataset) >= max(1, int(ends.sum()) - 1)


def _terminals(dataset: Dataset, limit: int | None) -> Finding:
    """Whether time limits were written as terminations."""
    subject = "terminations"
    ends = dataset.episode_starts + dataset.episode_lengths - 1
    lengths, terminal = dataset.episode_lengths, dataset.terminations[ends]
    number, episodes = int(terminal.sum()), len(ends)
    told = f"{number:,} of {counted(episodes, 'episode')}"
    if limit is None:
        if number == episodes > 1 and lengths.min() == lengths.max():
            text = (
                f"each of {counted(episodes, 'episode')} terminates after {lengths[0]:,} steps: a "
                f"time limit may have been written as terminations, which stop bootstrapping"
            )
            return Finding(subject, "warning", text, first_rows(ends))
        return Finding(subject, "ok", f"{told} terminate")
    others = int((~terminal & np.isin(lengths, (limit, limit - 1))).sum())
    # Some readers leave out an episode's last row.
    last = lengths == limit if others else np.isin(lengths, (limit, limit - 1))
    rows = ends[terminal & last]
    if not len(rows):
        return Finding(subject, "ok", f"{told} terminate, none of them at the step limit")
    text = (
        f"{told} terminate, {len(rows):,} of them (row {listed(rows)}) at the step limit of "
        f"{limit:,}, where {others:,} {'is' if others == 1 else 'are'} truncated: timeouts written "
        f"as terminations stop bootstrapping"
    )
    if len(rows) == 1 or others:
        text += ", if they are that"
        return Finding(subject, "warning", text, first_rows(rows))
    return Finding(subject, "fault", text, first_rows(rows))


def _both(dataset: Dataset) -> Finding:
    """Whether a row is both."""
    subject = "terminations and truncations"
    rows = np.flatnonzero(dataset.terminations & dataset.truncations)
    number = int(dataset.truncations.sum())
    if not len(rows):
        return Finding(subject, "ok", "no row has both")
    text = (
        f"{len(rows):,} of {counted(number, 'truncated row')} (row {listed(rows)}) "
        f"{'terminates' if len(rows) == 1 else 'terminate'} too, and a termination stops "
        f"bootstrapping"
    )
    every = len(rows) == number > 1
    return Finding(
        subject,
        "fault" if every else "warning",
        f"{text}: truncations were counted as terminations" if every else text,
        first_rows(rows),
    )


def _time_limit(dataset: Dataset, limit: int | None) -> Finding:
    """Whether episodes end at the simulator's step limit, and none beyond it."""
    subject = "step limit"
    lengths, starts = dataset.episode_lengths, dataset.episode_starts
    ends = starts + lengths - 1
    if limit is None:
        span = f"{lengths.min():,} to {lengths.max():,}"
        text = f"the card has no environment; episodes have {span} steps"
        return Finding(subject, "cannot be checked", text)
    longer = np.flatnonzero(lengths > limit)
    if len(longer):
        text = (
            f"{counted(len(longer), 'episode')} (from row {listed(starts[longer])}), the longest "
            f"of {lengths.max():,} steps, longer than the limit of {limit:,} steps"
        )
        several = lengths.max() >= 2 * limit
        if several:
            text += ": ends of episodes are not marked, or the card has another environment"
        return Finding(subject, "fault" if several else "warning", text, first_rows(starts[longer]))
    cut = ~dataset.terminations[ends]
    cut[-1] &= bool(lengths[-1] >= limit - 1)  # the file's end cuts an episode anywhere
    early = np.flatnonzero(cut & (lengths < limit - 1))
    short, whole = int((cut & (lengths == limit - 1)).sum()), int((cut & (lengths == limit)).sum())
    if short > whole and _dropped(dataset):
        whole, short = short, 0
        of = f"the limit of {limit:,} steps, whose last row reading leaves out"
    else:
        of = f"the limit of {limit:,} steps"
    if short > 1 and not whole:
        text = (
            f"{counted(short, 'episode')} of {limit - 1:,} steps, one less than the limit: their "
            f"last transitions were dropped, so returns lack a reward"
        )
        return Finding(subject, "warning", text, first_rows(ends[cut & (lengths == limit - 1)]))
    if len(early) and whole:
        text = (
            f"{counted(len(early), 'episode')} (ends at row {listed(ends[early])}) truncated "
            f"before {of}, at which {whole:,} are: falls marked as timeouts, or cut by hand"
        )
        return Finding(subject, "warning", text, first_rows(ends[early]))
    if len(early):
        text = f"no episode reaches {of}: the data end episodes by another rule"
        return Finding(subject, "ok", text)
    return Finding(subject, "ok", f"{counted(whole, 'episode')} end at {of}, none later")


def _last_episode(dataset: Dataset) -> Finding:
    """Whether the source breaks off in an episode."""
    subject = "last row"
    lengths = dataset.episode_lengths
    ends = dataset.episode_starts + lengths - 1
    if dataset.source.episodes < len(ends):
        text = f"it ends no episode: the source breaks off after {lengths[-1]:,} steps of one"
        return Finding(subject, "warning", text, (len(dataset) - 1,))
    cut = np.flatnonzero(~dataset.terminations[ends])
    if len(cut) < 2 or cut[-1] != len(ends) - 1:
        return Finding(subject, "ok", "it ends an episode")
    usual = int(np.median(lengths[cut[:-1]]))
    if lengths[-1] < usual == lengths[cut[:-1]].max():
        text = (
            f"it ends an episode of {lengths[-1]:,} steps, where others are cut off after "
            f"{usual:,}: the source breaks off in it"
        )
        return Finding(subject, "warning", text, (len(dataset) - 1,))
    return Finding(subject, "ok", "it ends an episode")
