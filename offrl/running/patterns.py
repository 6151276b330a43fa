"""Names of data sets and patterns that match them."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path


def matches(dataset: str, pattern: str, among: Sequence[str]) -> bool:
    """Whether a pattern names a data set: the one of `among` with that very name, else all it fits.

    So a name with brackets or a star in it means itself.
    """
    return dataset == pattern if pattern in among else fnmatch.fnmatchcase(dataset, pattern)


def is_chosen(dataset: str, pattern: str, among: Sequence[str]) -> bool:
    """Whether `--dataset` names it: by id or path, by a path's file name, or by a pattern."""
    names = {name: Path(name).name for name in among}
    if pattern in names:
        return dataset == pattern
    if pattern in names.values():
        return names[dataset] == pattern
    return any(fnmatch.fnmatchcase(name, pattern) for name in (dataset, names[dataset]))


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
