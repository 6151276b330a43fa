"""What columns hold: actions and their bounds, repetition, constant columns, equal episodes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from offrl.data.dataset import Dataset
from offrl.data.findings import Finding, Verdict, first_rows, listed
from offrl.data.fingerprints import Prints, distinct, episode_prints, row_prints
from offrl.text import counted

FEW = 1000  # distinct actions of a continuous space that look discrete
SATURATED = 0.01  # share of entries exactly on a bound from which it is a warning
HELD = 0.01  # share of actions exactly as the one before from which it is a warning
PADDING = 3  # rows at an episode's end that repeat the one before
Limits = tuple[NDArray[np.float32], NDArray[np.float32]]  # of actions, by dimension


def content_findings(dataset: Dataset, limits: Limits | None) -> Iterator[Finding]:
    """Findings on columns; `limits` are those of the simulator's actions, if known."""
    # Reading refuses such rows.
    yield Finding("numbers", "ok", f"{counted(len(dataset), 'row')} without NaN or infinity")
    actions = row_prints(dataset.actions)
    if dataset.action_count is None:
        yield from _bounds(dataset, limits)
    yield _distinct(dataset, actions)
    yield _held(dataset, actions)
    yield _padding(dataset, actions)
    yield _equal_episodes(dataset)
    yield _constant(dataset)


def _bounds(dataset: Dataset, limits: Limits | None) -> Iterator[Finding]:
    """Whether actions keep to their bounds, and how many lie exactly on them."""
    outside = on = 0
    rows = []
    if limits is not None:
        low, high = limits
        for start in range(0, len(dataset), 2**16):
            actions = dataset.actions[start : start + 2**16]
            beyond = (actions < low) | (actions > high)
            outside += int(beyond.sum())
            on += int(((actions == low) | (actions == high)).sum())
            rows += (start + np.flatnonzero(beyond.any(1))[:6]).tolist()
        size = dataset.actions.size
        if outside:
            text = (
                f"{outside / size:.2%} of the entries lie outside the simulator's bounds (row "
                f"{listed(rows)}), where it clips what a policy does"
            )
            yield Finding("actions in bounds", "warning", text, first_rows(rows))
        else:
            yield Finding("actions in bounds", "ok", "every entry is in the simulator's bounds")
        text = f"{on / size:.2%} of the entries lie exactly on a bound"
        if on / size >= SATURATED:
            text += (
                ": they were clipped, or the policy was saturated; an algorithm that inverts a "
                "tanh has to draw them in"
            )
            yield Finding("actions on bounds", "warning", text)
        else:
            yield Finding("actions on bounds", "ok", text)
    else:
        low, high = dataset.actions.min(0), dataset.actions.max(0)
        text = (
            f"no bounds are known of the card's environment; entries lie in [{low.min():.4g}, "
            f"{high.max():.4g}]"
        )
        yield Finding("actions in bounds", "cannot be checked", text)


def _distinct(dataset: Dataset, actions: Prints) -> Finding:
    """Whether continuous actions look discrete, and which discrete ones never occur."""
    subject = "distinct actions"
    number, rows = distinct(actions), len(dataset)
    if number == 1 and rows > 1:
        return Finding(subject, "warning", "every action is the same: nothing is learnt of others")
    if dataset.action_count is not None:
        text = f"{number:,} of {dataset.action_count:,} occur"
        if number < dataset.action_count:
            never = np.setdiff1d(np.arange(dataset.action_count), dataset.actions)
            return Finding(subject, "warning", f"{text}; never: {listed(never)}")
        return Finding(subject, "ok", text)
    if number <= min(FEW, rows // 10):
        text = (
            f"only {number:,} in {rows:,} rows: the actions are choices among these, from a "
            f"discrete or a bang-bang controller; density models of continuous actions misfit them"
        )
        return Finding(subject, "warning", text)
    return Finding(subject, "ok", f"{number:,} in {rows:,} rows")


def _inside(dataset: Dataset) -> NDArray[np.bool_]:
    """Which of the rows but the last have their episode's next row after them."""
    return np.asarray(~(dataset.terminations | dataset.truncations)[:-1])


def _held(dataset: Dataset, actions: Prints) -> Finding:
    """How often an action is exactly the one before."""
    subject = "repeated actions"
    inside = _inside(dataset)
    if dataset.action_count is not None:
        return Finding(subject, "ok", "discrete actions may repeat")
    rows = 1 + np.flatnonzero(inside & (actions[1:] == actions[:-1]))
    share = len(rows) / max(1, int(inside.sum()))
    text = f"{share:.2%} are bit by bit those of the row before"
    if share >= HELD:
        text += (
            f" (row {listed(rows)}): a controller that holds or saturates its action, a "
            f"deterministic policy at rest, or padding"
        )
        return Finding(subject, "warning", text, first_rows(rows))
    return Finding(subject, "ok", text)


def _padding(dataset: Dataset, actions: Prints) -> Finding:
    """Whether episodes end in rows that repeat the one before."""
    subject = "padding"
    prints = row_prints(dataset.observations, dataset.rewards) ^ actions
    same = np.zeros(len(prints), np.bool_)
    same[1:] = _inside(dataset) & (prints[1:] == prints[:-1])
    ends = dataset.episode_starts + dataset.episode_lengths - 1
    row = np.arange(len(same))
    # The last row before each that differs from the one before it: the length of a run of repeats.
    run = row - np.maximum.accumulate(np.where(same, 0, row))
    padded = run[ends] >= PADDING
    if padded.any():
        text = (
            f"{counted(int(padded.sum()), 'episode')} (ends at row {listed(ends[padded])}) whose "
            f"last rows, {int(run[ends][padded].sum()):,} in all, repeat the one before bit by bit:"
            f" they were filled up to a length, and their rewards count"
        )
        # Among few states and choices, waiting looks the same.
        verdict: Verdict = "fault" if dataset.action_count is None else "warning"
        if verdict == "warning":
            text += ", or nothing happened in them"
        return Finding(subject, verdict, text, first_rows(ends[padded]))
    return Finding(subject, "ok", "no episode ends in rows that repeat each other")


def _equal_episodes(dataset: Dataset) -> Finding:
    """Whether two episodes are the same."""
    subject = "equal episodes"
    prints = episode_prints(dataset)
    _, first, group = np.unique(prints, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group] != np.arange(len(prints)))
    if len(again):
        pairs = ", ".join(f"{first[group][k]:,} = {k:,}" for k in again[:3].tolist())
        text = (
            f"{counted(len(again), 'episode')} of {len(prints):,} equal an earlier one, bit by bit "
            f"(episode {pairs}{', ...' if len(again) > 3 else ''}): they weigh twice, and a split "
            f"of them leaks"
        )
        # A policy among few choices may play the same episode twice.
        verdict: Verdict = "fault" if dataset.action_count is None else "warning"
        return Finding(subject, verdict, text, first_rows(dataset.episode_starts[again]))
    return Finding(subject, "ok", f"{counted(len(prints), 'episode')}, no two the same")


def shared_episodes(one: Dataset, other: Dataset) -> int:
    """How many episodes of one data set the other has too, bit by bit."""
    if one.observations.shape[1] != other.observations.shape[1]:
        return 0
    return int(np.isin(episode_prints(one), episode_prints(other)).sum())


def leak_finding(train: Dataset, validation: Dataset) -> Finding:
    """Whether the validation split has episodes of the training data."""
    shared = shared_episodes(validation, train)
    text = f"{shared:,} of {counted(len(validation.episode_lengths), 'episode')}" + (
        " are in the training data too, bit by bit" if shared else ": none is in the training data"
    )
    return Finding("held out", "fault" if shared else "ok", text, split="validation")


def _constant(dataset: Dataset) -> Finding:
    """Which columns hold one number."""
    subject = "constant columns"
    constant = []
    for name, values in (
        ("observation", dataset.observations),
        ("action", dataset.actions),
        ("reward", dataset.rewards),
    ):
        columns = values if values.ndim == 2 else values[:, None]
        same = np.flatnonzero(columns.min(0) == columns.max(0))
        where = f" {listed(same)}" if values.ndim == 2 else ""
        if len(same):
            constant.append(f"{name}{where} (always {columns[0, same[0]]:.6g})")
    if constant:
        return Finding(subject, "warning", "; ".join(constant))
    return Finding(subject, "ok", "none")
