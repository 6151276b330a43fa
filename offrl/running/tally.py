"""How far a set of runs is, as a line of text now and then: for logs, files and notebooks."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from offrl.results.rows import Status
from offrl.running.costs import Costs
from offrl.running.events import Event

SECONDS = 30.0  # between two lines


@dataclass
class _Run:
    """A run as its last event has it."""

    event: Event
    first: int  # the step at which it was met

    @property
    def state(self) -> str:
        """What the line counts it as."""
        if self.event.holder is not None:
            return "made elsewhere"
        return self.event.status.value


class Tally:
    """Counts runs by what happened to them; pass one to `offrl.run` as `on_event`.

    For example `offrl.run("quickstart", "runs", on_event=offrl.Tally(print))` in a notebook.

    Args:
        show: called with a line, at most every `seconds`.
        root: the folder of runs, whose costs weigh the steps of different algorithms for the time
            to go; None: all steps alike.
        seconds: between two lines; by default SECONDS.
    """

    def __init__(
        self, show: Callable[[str], None], root: Path | None = None, seconds: float | None = None
    ):
        self.show, self.root = show, root
        self.seconds = SECONDS if seconds is None else seconds
        self.runs: dict[tuple[str, ...], _Run] = {}
        self.of: Counter[str] = Counter()  # runs by their states
        self.begun: float | None = None  # when the first run was on its way
        self.shown = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Takes an event, and shows a line if it is time for one."""
        self.add(event)
        if self.begun is not None and time.monotonic() - self.shown >= self.seconds:
            self.shown = time.monotonic()
            self.show(self.line())

    def add(self, event: Event) -> None:
        """Takes an event."""
        known = self.runs.get(event.job.place)
        first = known.first if known else event.step
        if event.status is Status.RUNNING and self.begun is None:
            self.begun, first = time.monotonic(), event.step  # made before the clock runs
        run = _Run(event, first)
        self.runs[event.job.place] = run
        self.of[run.state] += 1
        if known is not None:
            self.of[known.state] -= 1

    def counts(self) -> str:
        """How many runs are done, have failed, are running and are made elsewhere."""
        parts = [f"{self.of['done']:,} of {len(self.runs):,} runs done"]
        states = ("failed", "running", "made elsewhere")
        parts += [f"{self.of[state]:,} {state}" for state in states if self.of[state]]
        return ", ".join(parts)

    def line(self) -> str:
        """The counts, the share of the steps, and the time to go as far as it can be said."""
        steps = sum(run.event.job.steps for run in self.runs.values())
        made = sum(run.event.step for run in self.runs.values())
        left = self.seconds_to_go()
        to_go = "" if left is None else f", {duration(left)} to go"
        return f"{self.counts()}; {made / max(1, steps):.0%} of the steps{to_go}"

    def seconds_to_go(self) -> float | None:
        """By how fast runs went since the first began here; None before there is any to see."""
        costs = Costs() if self.root is None else Costs.read(self.root)
        weights = {
            place: (costs.seconds(run.event.job) or 0.0) / run.event.job.steps
            for place, run in self.runs.items()
            if run.event.job.steps
        }
        known = [weight for weight in weights.values() if weight]
        usual = sum(known) / len(known) if known else 1.0
        made = left = 0.0
        for place, run in self.runs.items():
            weight, job = weights.get(place) or usual, run.event.job
            made += weight * (run.event.step - run.first)
            if run.state in ("running", "waiting"):
                left += weight * (job.steps - run.event.step)
        if self.begun is None or made <= 0:
            return None
        return (time.monotonic() - self.begun) * left / made


def duration(seconds: float) -> str:
    """A time in the two largest units that it has, such as `2 h 05 min`."""
    if not math.isfinite(seconds):
        return "ever"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest:02} s" if minutes < 10 else f"{minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes:02} min"
