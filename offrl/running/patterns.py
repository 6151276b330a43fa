"""Names of data sets and patterns that match them."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path


def matches_any(dataset: str, patterns: Sequence[str]) -> bool:
    """Whether a data set's id matches one of the patterns."""
    return any(fnmatch.fnmatchcase(dataset, pattern) for pattern in patterns)


def is_chosen(dataset: str, patterns: Sequence[str]) -> bool:
    """Whether `--dataset` names it: by id, by a path's file name, or by a pattern of either."""
    return matches_any(dataset, patterns) or matches_any(Path(dataset).name, patterns)


def patterns(names: Sequence[str], among: Sequence[str]) -> list[str]:
    """Ids and patterns that match the names and nothing else of `among`, in the names' order."""
    shortened, left = [], list(names)
    while left:
        best, parts = left[0], left[0].split("-")
        heads = ["-".join([*parts[:i], "*"]) for i in range(1, len(parts))]
        tails = ["-".join(["*", *parts[i:]]) for i in range(1, len(parts))]
        for pattern in [*heads, *tails]:
            of_names, of_all = fnmatch.filter(left, pattern), fnmatch.filter(among, pattern)
            if len(of_names) > 1 and set(of_all) <= set(names):
                best = pattern
                break
        shortened.append(best)
        left = [name for name in left if name != best and not fnmatch.fnmatchcase(name, best)]
    return shortened
