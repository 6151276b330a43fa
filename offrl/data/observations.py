"""Observations of any form as one vector each: the same for data and for simulators.

Dicts and tuples may be nested. Their arrays, the leaves, have paths such as `goal/kettle` or
`0/position`, and stand side by side: in the order of the declared keys, else dicts sorted by name
and tuples by place. Texts, such as an instruction, are left out where no keys are declared.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offrl.errors import InputError

if TYPE_CHECKING:
    import gymnasium


def leaves(values: Any, name: str = "") -> dict[str, Any]:
    """The arrays of nested dicts and tuples by path, and texts; a plain array's path is empty."""
    found: dict[str, Any] = {}
    for path, value in _below(values, name):
        found |= leaves(value, path)
    if _nested(values):
        return found
    return {name: values if _is_text(values) else np.asarray(values)}


def _is_text(values: Any) -> bool:
    """Whether it is a text or holds one; as an array, each would be as long as the longest."""
    if isinstance(values, list):
        return any(isinstance(value, str) for value in values)
    return isinstance(values, str) or getattr(getattr(values, "dtype", None), "kind", "") == "U"


def order(
    names: Iterable[str], keys: Sequence[str], where: str, texts: Collection[str] = ()
) -> list[str]:
    """Paths of leaves in the order of `keys`, each of which names a leaf or all below it.

    Without keys those of `texts` are left out, where there are others.
    """
    paths = list(names)
    if not keys or paths == [""]:
        return [path for path in paths if path not in texts] or paths
    found = []
    for key in keys:
        below = [path for path in paths if path == key or path.startswith(f"{key}/")]
        if not below:
            raise InputError(
                f"{where}: observations lack {key!r}; found {', '.join(paths)}; correct "
                f"environment.observation_keys of the card"
            )
        found += below
    return found


def flatten(
    observations: Any,
    keys: Sequence[str] = (),
    where: str = "environment",
    layout: Mapping[str, tuple[int, ...]] | None = None,
) -> NDArray[np.float32]:
    """Float32 observations (n, dimensions) of leaves (n, ...), always a copy.

    Args:
        observations: an array, or nested dicts and tuples of arrays.
        keys: the declared order.
        where: what they are, for messages.
        layout: the shape of each leaf, as `layout_of` its declared space gives it.

    Raises InputError for a key that is not there, a leaf that holds no numbers, and leaves that
    are not those of `layout`.
    """
    found = leaves(observations)
    names = order(found, keys, where, [name for name in found if _is_text(found[name])])
    parts = [found[name] for name in names]
    if any(_is_text(part) or part.dtype.kind not in "fiub" or part.ndim == 0 for part in parts):
        kinds = ", ".join(
            f"{name} {'text' if _is_text(part) else part.dtype}".strip()
            for name, part in zip(names, parts, strict=True)
        )
        raise InputError(f"{where}: observations are {kinds}; offrl reads arrays of numbers only")
    if layout is not None:
        seen = {name: found[name].shape[1:] for name in names}
        if seen != dict(layout):
            raise InputError(
                f"{where}: observations have {_shown(seen)}, but the declared space has "
                f"{_shown(layout)}; correct the space, or write the observations again"
            )
    with np.errstate(over="ignore"):  # beyond float32 turns to infinity: found where data are read
        flat = [np.array(part, dtype=np.float32).reshape(len(part), -1) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)


def layout_of(
    space: "gymnasium.Space[Any]", keys: Sequence[str], where: str
) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf of a declared space, in the order in which `flatten` takes them.

    Raises InputError for a leaf that is no fixed number of numbers, such as a graph, and for a text
    that is named by a key or has no numbers beside it.
    """
    from gymnasium import spaces

    numbers = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    found = dict(_parts(space, ""))
    layout = {}
    for name in order(found, keys, where, texts_of(space)):
        part = found[name]
        if not isinstance(part, numbers):
            raise InputError(
                f"{where}: {name or 'the observation space'} is {type(part).__name__}; offrl reads "
                f"Box, Discrete, MultiDiscrete and MultiBinary, and Dict and Tuple of these"
            )
        layout[name] = tuple(part.shape or ())
    return layout


def texts_of(space: "gymnasium.Space[Any]") -> list[str]:
    """The paths of the leaves of a declared space that are texts."""
    return [name for name, part in _parts(space, "") if getattr(part.dtype, "kind", "") == "U"]


def _parts(space: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The spaces of the leaves by path."""
    inside = getattr(space, "spaces", None)
    if not _nested(inside):
        yield name, space
        return
    for path, part in _below(inside, name):
        yield from _parts(part, path)


def _nested(values: Any) -> bool:
    return isinstance(values, Mapping | tuple)


def _below(values: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What a dict or a tuple holds, with paths, in order."""
    if isinstance(values, Mapping):
        items = [(str(key), values[key]) for key in sorted(values)]
    elif isinstance(values, tuple):
        items = [(str(place), value) for place, value in enumerate(values)]
    else:
        items = []
    for key, value in items:
        yield f"{name}/{key}" if name else key, value


def _shown(parts: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name or 'shape'} {shape}" for name, shape in parts.items())
