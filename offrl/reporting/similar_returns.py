"""Whether the returns of two runs are too much alike to come from two seeds."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

CHANCE = 1e-9  # that two seeds give what is taken for a copy
FEWEST = 10  # episodes that a correlation needs
COPIED = 0.999  # a correlation above it is that of a copy, with or without noise
BLOCK = 2_000  # runs whose returns are compared at once


def common_form(x: Sequence[float]) -> tuple[float, ...] | None:
    """A run's returns in the form that its copies have too; None where chance makes copies.

    Were the values all there is to say of a policy, each order of them would be as likely: there
    are n! over the product of the factorials of their counts. In the same order, returns are a copy
    where that is more than one over CHANCE: policies that always fail, or that win once, are none.
    In another order they are where most values are there once, too, or where no policy gives the
    same counts again with a probability of CHANCE: at best, with shares as counted, it is that
    number times the product of the shares, each to the power of its count.
    """
    counts, n = Counter(x), len(x)
    orders = math.lgamma(n + 1) - math.fsum(math.lgamma(k + 1) for k in counts.values())
    if orders <= -math.log(CHANCE):
        return None
    again = orders + math.fsum(k * math.log(k / n) for k in counts.values())
    in_any_order = len(counts) > n / 2 or again < math.log(CHANCE)
    return tuple(sorted(x)) if in_any_order else tuple(x)


def near_copies(returns: Sequence[Sequence[float]]) -> Iterator[tuple[int, int]]:
    """Pairs of runs whose returns correlate as those of a copy do, episode by episode.

    Args:
        returns: of each run. Those of fewer than FEWEST episodes or three values are left out.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, of in enumerate(returns):
        if len(of) >= FEWEST and len({*of}) >= 3:
            by_length[len(of)].append(number)
    for length, numbers in by_length.items():
        x = np.array([returns[number] for number in numbers], np.float64)
        x -= x.mean(1, keepdims=True)
        spread = np.sqrt(np.square(x).mean(1, keepdims=True))
        x = np.divide(x, spread, out=np.zeros_like(x), where=spread > 0)
        for first in range(0, len(x), BLOCK):
            for second in range(first, len(x), BLOCK):
                r = x[first : first + BLOCK] @ x[second : second + BLOCK].T / length
                for i, j in np.argwhere(np.abs(r) > COPIED):
                    if first + i < second + j:
                        yield numbers[first + i], numbers[second + j]


def correlated(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The correlation of two runs' returns, episode by episode; None where chance explains it."""
    if len(x) != len(y) or len(x) < FEWEST or min(len({*x}), len({*y})) < 3:
        return None
    r = float(np.corrcoef(x, y)[0, 1])
    # Fisher's z of independent returns has the standard deviation 1 / sqrt(n - 3), about.
    z = math.atanh(min(abs(r), 1 - 1e-15)) * math.sqrt(len(x) - 3)
    return r if math.erfc(z / math.sqrt(2)) < CHANCE else None
