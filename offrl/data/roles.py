"""Which columns of a user's table mean what."""

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from offrl.data.tables import Cells, Table
from offrl.errors import InputError, unknown
from offrl.text import one_line

SHOWN = 60  # characters of a name in messages


@dataclass(frozen=True)
class Roles:
    """Which columns of a table mean what.

    Names may be patterns, such as `obs_*`, for columns in the table's order.

    Attributes:
        observation: what was seen before the action.
        action: what was done.
        reward: what it brought.
        next_observation: what was seen after it; none: the observation of the episode's next row.
        episode: a value that the rows of an episode share; none: a terminal or a timeout row ends
            one, and the next begins below it.
        time: numbers or dates by which the rows of an episode are sorted; none: they are in order.
        terminal: 1 where the process ended, 0 elsewhere; none: it never did.
        timeout: 1 where an episode was cut off, 0 elsewhere.
        discrete: whether an action is one of several choices, texts or whole numbers; of several
            columns each combination of their values is one.
    """

    observation: Sequence[str]
    action: Sequence[str]
    reward: str
    next_observation: Sequence[str] = ()
    episode: str | None = None
    time: str | None = None
    terminal: str | None = None
    timeout: str | None = None
    discrete: bool = False

    def of(self, table: Table) -> "Roles":
        """The same by the names of a table's columns.

        Raises InputError for a name or a pattern without a column, a column with two roles, and
        where nothing says which rows are an episode.
        """
        found: dict[str, Any] = {}
        for role in _ROLES:
            given = getattr(self, role)
            if given is None:
                continue
            single = role in _SINGLE
            patterns = [given] if isinstance(given, str) else list(given)
            matched = [name for p in patterns for name in _matching(p, role, table)]
            names = list(dict.fromkeys(matched))
            if single and len(names) > 1:
                raise InputError(
                    f"{table.where}: {role}: {given!r:.80} fits {_listed(names)}; expected one "
                    "column"
                )
            found[role] = names[0] if single else names
        resolved = replace(self, **found)
        resolved._check(table)
        return resolved

    def _check(self, table: Table) -> None:
        for role in ("observation", "action"):
            if not getattr(self, role):
                raise InputError(f"{table.where}: {role}: no columns; name at least one")
        taken: dict[str, str] = {}
        for role, name in self.by_role():
            if name in taken:
                raise InputError(
                    f"{table.where}: column {name!r:.80} is {taken[name]} and {role}; give each "
                    "column one role"
                )
            taken[name] = role
        if self.next_observation and len(self.next_observation) != len(self.observation):
            raise InputError(
                f"{table.where}: {len(self.next_observation)} columns of next observations, but "
                f"{len(self.observation)} of observations; they have to be the same quantities in "
                "the same order"
            )
        if not (self.episode or self.terminal or self.timeout):
            raise InputError(
                f"{table.where}: nothing says which rows are an episode; name its column by "
                "episode, or the one that ends it by terminal or timeout"
            )

    def by_role(self) -> Iterable[tuple[str, str]]:
        """Each role with each of its columns."""
        for role in _ROLES:
            given = getattr(self, role)
            for name in [given] if isinstance(given, str) else given or ():
                yield role.replace("_", " "), name

    def cells(self) -> dict[str, Cells]:
        """What the cells of each column that is read as numbers or dates should be."""
        texts = ("episode", "action") if self.discrete else ("episode",)
        return {
            name: _CELLS.get(role, _NUMBER) for role, name in self.by_role() if role not in texts
        }


_NUMBER = Cells("a number such as 1.5", "write texts as numbers, or leave the column out")
_FLAG = Cells("0 or 1, or true or false", "write yes and no, or whatever stands there, so")
_CELLS = {
    "action": Cells("a number such as 1.5", "take actions that are choices as such (discrete)"),
    "reward": Cells("a number such as 1.5", "write it so"),
    "time": Cells(
        "a number, or a date such as 2020-01-31 or 2020-01-31 14:30 (YYYY-MM-DD)", "write it so"
    ),
    "terminal": _FLAG,
    "timeout": _FLAG,
}

_ROLES = [field.name for field in fields(Roles) if field.name != "discrete"]
_SINGLE = ("reward", "episode", "time", "terminal", "timeout")  # roles of one column each


def _matching(pattern: str, role: str, table: Table) -> list[str]:
    """The columns that a name or a pattern means, in the table's order."""
    if pattern in table.names:
        return [pattern]
    names = [name for name in table.names if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        fault = unknown(f"column for {role}", pattern, table.names)
        raise InputError(f"{table.where}: {fault}")
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(one_line(name)[:SHOWN] for name in names)
