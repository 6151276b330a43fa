"""Logged data of one's own: a table with one row per step, in any order, as checked columns.

Rows are put in the order of their episodes and times; `sequences` says what follows the last one.
Every change is a note.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.choices import MOST_CHOICES, Choices, doubts
from offrl.data.columns import Columns
from offrl.data.foreign import check_size, reading
from offrl.data.roles import SHOWN, Roles
from offrl.data.sequences import Bools, Floats, Ordered, Rows
from offrl.data.tables import ADVICE, EXACT, Cells, Levels, Table, moments_of, numbers_of
from offrl.errors import InputError, unknown
from offrl.text import counted, one_line, visible

IMPUTES = ("forward", "mean", "zero")


@dataclass
class Logged(Columns):
    """Columns, and what their discrete actions are called."""

    choices: Choices | None = None


def table_columns(table: Table, roles: Roles, impute: str | None = None) -> Logged:
    """The columns of a logged table; its notes say which columns were taken and what was changed.

    Args:
        table: of rows in any order.
        roles: which columns mean what.
        impute: what an observation that is missing becomes: the last one of its episode, by
            "forward", or its column's mean where there is none before it; "mean"; or "zero". None:
            a missing value is an error.

    Raises InputError, with the row, for missing values that may not be imputed, for values that are
    no finite numbers, for two rows of an episode with one time, and for terminal rows that are not
    the last of their episode.
    """
    if impute is not None and impute not in IMPUTES:
        raise unknown("rule to impute", impute, IMPUTES)
    roles = roles.of(table)
    with reading(table.where, "a table", ADVICE):
        raw, levels = _read(table, roles)
        episodes = levels[roles.episode].values if roles.episode else []
    where, notes = table.where, _said(roles)
    choices = None
    if roles.discrete:
        chosen = [levels[name] for name in roles.action]
        raw.actions, choices = _chosen(raw.actions, chosen, where, notes)
    order, ends = _ordered(raw, episodes, roles, where, notes)
    if not np.array_equal(order, np.arange(len(order))):
        for name, values in vars(raw).items():
            if values is not None:
                setattr(raw, name, values[order])
    terminals = _terminals(raw, episodes, ends, order, roles, where)
    ends |= terminals
    if raw.timeouts is not None:
        timeouts = _flags(raw.timeouts, str(roles.timeout), order, where)
        if both := int((terminals & timeouts).sum()):
            notes.append(
                f"{counted(both, 'row')} with {roles.terminal} and {roles.timeout} both set count "
                f"as terminal: where {roles.terminal} also means a timeout, set it to 0 there"
            )
        ends |= timeouts
    _fill(raw.observations, ends, roles.observation, impute, where, order, notes)
    if choices is None:
        _check_present(raw.actions, roles.action, where, order)
    _check_present(raw.rewards[:, None], [roles.reward], where, order)
    if raw.successors is not None:
        _check_present(raw.successors, roles.next_observation, where, order)
    notes.append(_ended(terminals, ends, roles))
    rows = Ordered(raw.observations, raw.actions, raw.rewards, terminals, ends, raw.successors)
    del raw
    columns = rows.columns(where, notes)
    return Logged(**vars(columns), choices=choices)


@dataclass
class _Raw:
    """The columns of a table, in its order until they are sorted; NaN where a cell is empty."""

    observations: Floats
    actions: NDArray[Any]  # while they are read, the numbers of discrete ones (N, columns)
    rewards: Floats
    successors: Floats | None
    episodes: Rows  # the number of each row's, in the order of their first rows
    moments: NDArray[Any] | None
    terminals: Floats | None
    timeouts: Floats | None


def _read(table: Table, roles: Roles) -> tuple[_Raw, dict[str, Levels]]:
    """The columns of a table, and the values of those that are read as such."""
    groups = {
        "observations": roles.observation,
        "actions": [] if roles.discrete else roles.action,
        "rewards": [roles.reward],
        "successors": roles.next_observation,
        "terminals": [roles.terminal] if roles.terminal else [],
        "timeouts": [roles.timeout] if roles.timeout else [],
    }
    parts: dict[str, NDArray[Any]] = {}
    numbers = [name for names in groups.values() for name in names]
    texts = [*roles.action] if roles.discrete else []
    levels = {name: Levels(table.where, name) for name in [*texts, *filter(None, [roles.episode])]}
    width = len(numbers) + 2 * (len(levels) + 1)
    check_size(table.where, [(table.most, width)], 4 * width * table.most)
    rows = 0

    def keep(name: str, values: NDArray[Any]) -> None:
        if parts.get(name, values).dtype != values.dtype:  # whole numbers, and others: times
            whole = values if values.dtype == np.int64 else parts[name][:rows]
            if max(-int(whole.min()), int(whole.max())) > EXACT:
                raise InputError(
                    f"{table.where}: {roles.time}: the times from row {rows} on (counted from 0) "
                    "are of another kind than those before; make all dates, or all numbers"
                )
            parts[name] = parts[name].astype(np.float64)
        if name not in parts:  # as long as it may become: what is not written takes no memory
            parts[name] = np.empty((table.most, *values.shape[1:]), values.dtype)
        parts[name][rows : rows + len(values)] = values

    expected = roles.cells()
    for block in table.blocks(expected, list(levels)):
        for group, names in groups.items():
            if names:
                keep(group, _numbers(block, names, table.where, rows, expected))
        if roles.time:
            cells, form = block.column(roles.time), expected[roles.time]
            keep("moments", moments_of(cells, table.where, roles.time, rows, form))
        if roles.episode:
            keep("episodes", levels[roles.episode].of(block.column(roles.episode), rows))
        if texts:
            codes = [levels[name].of(block.column(name), rows) for name in texts]
            keep("actions", np.stack(codes, axis=1))
        rows += block.num_rows
    if not rows:
        raise InputError(f"{table.where}: no rows; expected at least one")
    parts.setdefault("episodes", np.zeros(rows, dtype=np.int64))
    for name in ("rewards", "terminals", "timeouts"):
        if name in parts:
            parts[name] = parts[name][:, 0]
    found: dict[str, Any] = {
        field.name: parts[field.name][:rows] if field.name in parts else None
        for field in fields(_Raw)
    }
    return _Raw(**found), levels


def _numbers(
    block: Any, names: Sequence[str], where: str, first: int, expected: Mapping[str, Cells]
) -> Floats:
    """Columns of a block side by side. Raises InputError for numbers that float32 does not have."""
    values = np.empty((block.num_rows, len(names)), dtype=np.float32)
    for place, name in enumerate(names):
        cells = numbers_of(block.column(name), where, name, first, expected[name])
        with np.errstate(over="ignore"):
            values[:, place] = cells
        if np.isinf(values[:, place]).any():
            row = int(np.argmax(np.isinf(values[:, place])))
            raise InputError(
                f"{where}: {name}: {cells[row]} in row {first + row} (counted from 0); expected "
                "finite float32 numbers, so correct it or leave it empty"
            )
    return values


def _chosen(
    codes: Rows, levels: Sequence[Levels], where: str, notes: list[str]
) -> tuple[Rows, Choices]:
    """Discrete actions (N,) of the values of one column or of several, and their names.

    The values of a column are sorted; among combinations those of the last column change first.
    """
    chosen = np.zeros(len(codes), dtype=np.int64)
    names = [""]
    for place, of_column in enumerate(levels):
        whole = _whole(of_column.values)
        values: list[Any] = whole or [str(value) for value in of_column.values]
        order = sorted(range(len(values)), key=lambda k: values[k])
        if len(values) * len(names) > MOST_CHOICES:
            several = " with the columns before it" if place else ""
            raise InputError(
                f"{where}: {of_column.name}: {len(values):,} distinct values make more than "
                f"{MOST_CHOICES:,} actions{several}; leave discrete out where they are quantities, "
                "or group them"
            )
        counts = np.bincount(codes[:, place], minlength=len(of_column.values))
        notes += doubts(of_column.name, of_column.values, counts.tolist())
        rank = np.argsort(order)
        chosen = chosen * len(values) + rank[codes[:, place]]
        prefix = f"{of_column.name}=" if len(levels) > 1 else ""
        texts = [visible(f"{prefix}{values[k]}") for k in order]
        names = [f"{name}, {text}" if name else text for name in names for text in texts]
    if len(names) < 2:
        raise InputError(
            f"{where}: {levels[0].name} is {names[0]!r:.60} in every row; an action "
            "needs two choices at least"
        )
    occurring = len(np.unique(chosen))
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    seen = f", of which {occurring:,} occur" if occurring < len(names) else ""
    notes.append(f"actions are one of {len(names):,} choices{seen}: {shown}")
    return chosen, Choices(count=len(names), names=names)


def _whole(values: Sequence[Any]) -> list[int] | None:
    """Values as whole numbers, or None where one is none or two are the same number."""
    if any(isinstance(value, bool) for value in values):
        return None
    try:
        numbers = [float(value) for value in values]
        whole = [int(number) for number in numbers]
    except (ValueError, TypeError, OverflowError):
        return None
    same = [float(k) for k in whole] == numbers and len({*whole}) == len(whole)
    return whole if same else None


def _ordered(
    raw: _Raw, episodes: Sequence[Any], roles: Roles, where: str, notes: list[str]
) -> tuple[Rows, Bools]:
    """Rows by episode and time, and the last of each episode in that order.

    Raises InputError where two rows of an episode have one time.
    """
    codes, moments = raw.episodes, raw.moments
    rows, count = len(codes), max(1, len(episodes))
    if moments is None:
        order = np.argsort(codes, kind="stable")
    else:
        order = np.lexsort((moments, codes))  # stable
        same = codes[order[1:]] == codes[order[:-1]]
        if (ties := np.flatnonzero(same & (np.diff(moments[order]) == 0))).size:
            one, two = sorted(order[ties[0] : ties[0] + 2].tolist())
            raise InputError(
                f"{where}: rows {one} and {two} (counted from 0) have the same {roles.time}"
                f"{_of(episodes, codes[one], roles)}; give each row of an episode its own time, or "
                "leave time out where the rows are in order"
            )
    by = (
        f"{counted(count, 'episode')} by {roles.episode}" if roles.episode else "one stream of rows"
    )
    sorted_by = f"sorted by {roles.time}" if roles.time else "in the order of the table"
    notes.append(f"{counted(rows, 'row')}: {by}, {sorted_by}")
    begun = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(begun) > count:
        pieces = np.bincount(codes[begun], minlength=count)
        first = int(np.argmax(pieces > 1))
        notes.append(
            f"gathered the rows of {counted((pieces > 1).sum(), 'episode')}, which were scattered: "
            f"the first is {_name(episodes[first])}"
        )
    if moments is not None:
        by_file = np.argsort(codes, kind="stable")
        moved = int((by_file != order).sum())
        if moved:
            notes.append(f"sorted {counted(moved, 'row')}, not in the order of {roles.time} before")
    ends = np.ones(rows, dtype=np.bool_)
    ends[:-1] = codes[order[1:]] != codes[order[:-1]]
    return order, ends


def _of(episodes: Sequence[Any], code: int, roles: Roles) -> str:
    return f" in episode {_name(episodes[code])}" if roles.episode else ""


def _name(value: Any) -> str:
    return one_line(repr(value))[:SHOWN]


def _terminals(
    raw: _Raw, episodes: Sequence[Any], ends: Bools, order: Rows, roles: Roles, where: str
) -> Bools:
    """The rows that end the process. Raises InputError for one inside an episode."""
    if raw.terminals is None:
        return np.zeros_like(ends)
    terminals = _flags(raw.terminals, str(roles.terminal), order, where)
    inside = np.flatnonzero(terminals & ~ends)
    if roles.episode and inside.size:
        row = inside[0]
        raise InputError(
            f"{where}: {roles.terminal} is 1 in row {order[row]} (counted from 0), but "
            f"{roles.episode} {_name(episodes[raw.episodes[row]])} goes on with row "
            f"{order[row + 1]}; expected 1 in the last row of an episode only, so correct it "
            f"({inside.size:,} such rows)"
        )
    return terminals


def _flags(values: Floats, name: str, order: Rows, where: str) -> Bools:
    """A column of flags. Raises InputError for a value other than 0 and 1."""
    odd = (values != 0) & (values != 1)
    if odd.any():
        row = int(np.argmax(odd))
        shown = "empty" if np.isnan(values[row]) else f"{values[row]:g}"
        raise InputError(
            f"{where}: {name}: {shown} in row {order[row]} (counted from 0); expected 0 or 1"
        )
    return np.asarray(values == 1)


def _fill(
    observations: Floats,
    ends: Bools,
    names: Sequence[str],
    impute: str | None,
    where: str,
    order: Rows,
    notes: list[str],
) -> None:
    """Puts numbers where observations are missing, by the rule. See `table_columns`."""
    missing = np.isnan(observations)
    if not missing.any():
        return
    if impute is None:
        _check_present(observations, names, where, order, "; or give a rule to impute")
    begins = np.concatenate(([0], np.flatnonzero(ends)[:-1] + 1))
    begun = np.repeat(begins, np.diff(np.append(begins, len(ends))))
    for place in np.flatnonzero(missing.any(axis=0)).tolist():
        gaps, values = missing[:, place], observations[:, place]
        if gaps.all():
            raise InputError(
                f"{where}: {names[place]}: every value is missing; leave the column out"
            )
        if impute != "zero":
            mean = np.float32(np.mean(values[~gaps], dtype=np.float64))
        filling: Any = mean if impute == "mean" else np.float32(0)
        said = f"its mean {mean:g}" if impute == "mean" else "0"
        if impute == "forward":
            last = np.maximum.accumulate(np.where(gaps, -1, np.arange(len(gaps))))
            known = last[gaps] >= begun[gaps]
            filling = np.where(known, values[last[gaps]], mean)
            said = f"the last one of its episode, and {int((~known).sum()):,} before any: {mean:g}"
            said += ", its mean"
        values[gaps] = filling
        notes.append(f"{names[place]}: {counted(gaps.sum(), 'missing value')} became {said}")


def _check_present(
    values: Floats, names: Sequence[str], where: str, order: Rows, advice: str = ""
) -> None:
    """Raises InputError for the first missing value."""
    missing = np.isnan(values)
    if missing.any():
        row, place = np.argwhere(missing)[0].tolist()
        raise InputError(
            f"{where}: {names[place]}: missing in row {order[row]} (counted from 0), one of "
            f"{int(missing.sum()):,} missing values; complete it, or leave that episode out{advice}"
        )


def _said(roles: Roles) -> list[str]:
    """Which columns were taken, in their order."""
    said: dict[str, list[str]] = {}
    for role, name in roles.by_role():
        said.setdefault(role, []).append(name)
    return ["; ".join(f"{role}: {', '.join(map(one_line, names))}" for role, names in said.items())]


def _ended(terminals: Bools, ends: Bools, roles: Roles) -> str:
    """How the episodes end."""
    terminated, count = int(terminals.sum()), int(ends.sum())
    by = f"by {roles.terminal}" if roles.terminal else "as no column says so"
    return f"{terminated:,} of {counted(count, 'episode')} terminated, {by}"
