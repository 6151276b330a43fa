"""Makes the data sets of recipes and prints what their cards hold of them.

    python benchmarks/recipe_cards.py recipe-hopper-random recipe-hopper-random-small

A development tool: each line belongs into `each` of the body's table in `datasets/recipes.toml` or
`datasets/recipe_mazes.toml`. The tolerance is six standard errors of the mean return, or of the
mean length where that is more, relative to it. Variances are those of differences of neighbours, so
that a set's parts may differ.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from offrl import registry
from offrl.data.card import find_card
from offrl.data.columns import episodes
from offrl.data.loader import loader_of


def line(name: str) -> str:
    """A line of TOML for the card of that id, which may lack what is printed."""
    card = find_card(name)
    maker = registry.load("datasets", str(card.source.maker), "maker")
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        path = maker.make_for(card, Path(folder))
        seconds = time.perf_counter() - before
        columns = loader_of(card).read(path, card)
    rows = len(columns.rewards)
    starts, lengths = episodes(columns.terminations, columns.truncations)
    returns = np.add.reduceat(columns.rewards, starts, dtype=np.float64)
    errors = [
        math.sqrt(np.square(np.diff(values)).mean() / 2 / len(values)) / abs(values.mean())
        for values in (returns, lengths)
    ]
    tolerance = math.ceil(6e3 * max(errors)) / 1e3
    print(f"# {name}: {rows / seconds:.0f} steps per second")
    return (
        f'{{ set = "{name}", rows = {rows}, episodes = {len(starts)}, '
        f"mean = {returns.mean():.6f}, tolerance = {tolerance}, "
        f'sha256 = "{columns.digest()}" }},'
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    for given in parser.parse_args().names:
        print(line(given), flush=True)
