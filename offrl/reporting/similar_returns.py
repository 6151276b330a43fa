"""Whether the returns of two runs are too much alike to come from two seeds."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

CHANCE = 1e-9  # that two seeds give what is taken for a copy
FEWEST = 10  # episodes that a correlation needs


def same_up_to_order(x: Sequence[float], y: Sequence[float]) -> bool:
    """Whether two runs have the same returns, in this order or another, and not by chance.

    Were the values all there is to say of a policy, each order of them would be as likely: there
    are n! over the product of the factorials of their counts. In the same order, returns are a copy
    where that is more than one over CHANCE: policies that always fail, or that win once, are none.
    In another order they are where all values differ, too.
    """
    if len(x) != len(y):
        return False
    counts = Counter(x)
    orders = math.lgamma(len(x) + 1) - sum(math.lgamma(n + 1) for n in counts.values())
    if orders <= -math.log(CHANCE):
        return False
    return list(x) == list(y) or (len(counts) > len(x) / 2 and Counter(y) == counts)


def correlated(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The correlation of two runs' returns, episode by episode; None where chance explains it."""
    if len(x) != len(y) or len(x) < FEWEST or min(len({*x}), len({*y})) < 3:
        return None
    r = float(np.corrcoef(x, y)[0, 1])
    # Fisher's z of independent returns has the standard deviation 1 / sqrt(n - 3), about.
    z = math.atanh(min(abs(r), 1 - 1e-15)) * math.sqrt(len(x) - 3)
    return r if math.erfc(z / math.sqrt(2)) < CHANCE else None
