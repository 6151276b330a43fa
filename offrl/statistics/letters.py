"""The compact letter display: algorithms share a letter where a test does not tell them apart."""

from collections.abc import Collection, Sequence
from string import ascii_lowercase


def letters(names: Sequence[str], apart: Collection[frozenset[str]]) -> dict[str, str]:
    """The letters of each name (Piepho 2004, "An algorithm for a letter-based representation").

    Two names share a letter if and only if they are not told apart. Each letter has as many names
    as it can have, and letters come in the order of the first name that has them.

    Args:
        names: the best first; each has one letter at least.
        apart: the pairs that are told apart.
    """
    groups: list[list[str]] = []
    for k, name in enumerate(names):
        for other in names[k:]:
            two = {name, other}
            if frozenset(two) in apart or any(two <= {*group} for group in groups):
                continue
            group = [name] if name == other else [name, other]
            for more in names:
                if more not in group and not any(frozenset((more, x)) in apart for x in group):
                    group.append(more)
            groups.append(group)
    places = {name: k for k, name in enumerate(names)}
    groups.sort(key=lambda group: sorted(places[name] for name in group))
    return {
        name: " ".join(_sign(k) for k, group in enumerate(groups) if name in group)
        for name in names
    }


def _sign(number: int) -> str:
    """One of a to z, then of a1 to z1, and so on."""
    round_, place = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(round_) if round_ else "")
