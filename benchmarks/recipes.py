"""Chooses the policies that recipes ship, and measures what their cards hold.

    python benchmarks/recipes.py choose SNAPSHOTS hopper 1638400 1945600 --noise 0.5
    python benchmarks/recipes.py cards recipe-hopper-random recipe-hopper-random-small

Development tools. `choose` takes the snapshots that `benchmarks/behaviours.py` kept of a body: by
their steps, that of `medium` and that of `expert`, whose noise is scaled, and for `medium-replay`
ten at even distances among those up to medium, or the first ten. `datasets/recipes.npz` holds
weights as float16, biases and deviations as float32.

`cards` makes data sets and prints what belongs into `each` of the card's table. The tolerance is
six standard errors of the mean return, or of the mean length where that is more, relative to it.
Variances are those of differences of neighbours, so that a set's parts may differ.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from offrl import registry
from offrl.data.card import find_card
from offrl.data.columns import episodes
from offrl.data.loader import loader_of

SNAPSHOTS = 10


def choose(folder: Path, body: str, medium: int, expert: int, noise: float) -> None:
    """Writes a body's policies beside those of others."""
    paths = {int(path.stem): path for path in folder.glob("*.npz")}
    before = [steps for steps in sorted(paths) if steps <= medium]
    if len(before) < SNAPSHOTS:
        before = sorted(paths)[:SNAPSHOTS]
    even = np.linspace(0, len(before) - 1, SNAPSHOTS).round().astype(int)
    chosen = {f"replay-{k}": (before[i], 1.0) for k, i in enumerate(even)}
    chosen |= {"medium": (medium, 1.0), "expert": (expert, noise)}
    target = registry.folder("datasets") / "recipes.npz"
    arrays: dict[str, Any] = {}
    if target.exists():
        with np.load(target) as archive:
            arrays = {k: archive[k] for k in archive.files if not k.startswith(f"{body}/")}
    for name, (steps, scale) in chosen.items():
        with np.load(paths[steps]) as snapshot:
            for key in ("first", "second", "mean"):
                weights = snapshot[f"{key}.weight"].astype(np.float16)
                arrays[f"{body}/{name}/{key}.weight"] = weights
                arrays[f"{body}/{name}/{key}.bias"] = snapshot[f"{key}.bias"]
            deviation = scale * np.exp(snapshot["log_std"])
            arrays[f"{body}/{name}/deviation"] = deviation.astype(np.float32)
            returns = snapshot["sampled"].mean(), snapshot["best"].mean()
        print(f"{body}/{name}: {steps} steps, returns {returns[0]:.0f}, of means {returns[1]:.0f}")
    np.savez_compressed(target, **arrays)
    print(f"{target}: {target.stat().st_size} bytes")


def card_line(name: str) -> str:
    """A line of TOML for the card of that id, which may lack what is printed."""
    card = find_card(name)
    maker = registry.load("datasets", str(card.source.maker), "maker")
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        path = maker.make_for(card, Path(folder))
        seconds = time.process_time() - before
        columns = loader_of(card).read(path, card)
    rows = len(columns.rewards)
    starts, lengths = episodes(columns.terminations, columns.truncations)
    returns = np.add.reduceat(columns.rewards, starts, dtype=np.float64)
    errors = [
        math.sqrt(np.square(np.diff(values)).mean() / 2 / len(values)) / abs(values.mean())
        for values in (returns, lengths)
    ]
    tolerance = math.ceil(6e3 * max(errors)) / 1e3
    print(f"# {name}: {rows / seconds:.0f} steps per second of the processor")
    return (
        f'{{ set = "{name}", rows = {rows}, episodes = {len(starts)}, '
        f"mean = {returns.mean():.6f}, tolerance = {tolerance}, "
        f'sha256 = "{columns.digest()}" }},'
    )


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    chooser = commands.add_parser("choose")
    chooser.add_argument("folder", type=Path)
    chooser.add_argument("body")
    chooser.add_argument("medium", type=int)
    chooser.add_argument("expert", type=int)
    chooser.add_argument("--noise", type=float, default=1.0, help="share of the expert's own")
    commands.add_parser("cards").add_argument("names", nargs="+")
    args = parser.parse_args()
    if args.command == "choose":
        choose(args.folder, args.body, args.medium, args.expert, args.noise)
        return
    for name in args.names:
        print(card_line(name), flush=True)


if __name__ == "__main__":
    main()
