"""Which kernel is fastest here, with how many replicas: measured once per machine and shape."""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from offrl.data.cache import cache_folder, lock
from offrl.data.dataset import Dataset
from offrl.errors import InputError
from offrl.files import read_own, replacing
from offrl.learning import kernels
from offrl.learning.learner import Learner
from offrl.learning.spec import Spec
from offrl.results.provenance import processor
from offrl.running.jobs import Job
from offrl.running.opening import learner_of, sampler_of
from offrl.running.task import Workload, prepare

log = logging.getLogger(__name__)

SECONDS = 0.5  # that a measurement takes, of all kernels together
MARGIN = 1.05  # by which another kernel, or number of replicas, has to be faster than the first
LONG = 20_000  # gradient steps of a run for which the number of replicas is measured
LARGEST = 2**20  # bytes of the file of measurements


def choose(job: Job, work: Workload, replicas: int) -> str:
    """The kernel with which updates of R replicas are fastest, one of `kernels.KERNELS`.

    OFFRL_KERNEL fixes it. Else it is measured on updates of an untrained learner and kept in the
    cache, so that it is the same the next time.
    """
    if fixed := _fixed():
        return fixed
    seconds = _measured(job, work, replicas)
    return _fastest(seconds) if seconds else kernels.KERNELS[0]


def choose_replicas(job: Job, dataset: Dataset, most: int) -> int:
    """R, up to `most`, with which a processor makes the most updates of all replicas together.

    Measured as kernels are, for `most` and what halving makes of it; another one than `most` has to
    gain MARGIN. A run of less than LONG steps is over too soon to measure it: it has `most`.
    """
    if most == 1 or job.steps < LONG:
        return most
    fixed, work = _fixed(), prepare(job, dataset)
    share: dict[int, float] = {}  # seconds of an update of one replica, by R
    size = most
    while size not in share:
        if not (seconds := _measured(job, work, size)):
            return most
        share[size] = seconds[fixed or _fastest(seconds)] / size
        size = math.ceil(size / 2)
    fastest = min(share, key=lambda size: share[size])
    chosen = fastest if share[fastest] * MARGIN < share[most] else most
    shown = ", ".join(f"R = {size} {1e3 * value:.3g} ms" for size, value in share.items())
    log.info("%s, an update of one replica: %s; R = %d is used", job.label, shown, chosen)
    return chosen


def _fixed() -> str | None:
    """The kernel that OFFRL_KERNEL names. Raises InputError where that is none."""
    fixed = os.environ.get("OFFRL_KERNEL")
    if fixed and fixed not in kernels.KERNELS:
        raise InputError(
            f"OFFRL_KERNEL is {fixed!r:.80}; expected one of {', '.join(kernels.KERNELS)}"
        )
    return fixed or None


def _measured(job: Job, work: Workload, replicas: int) -> dict[str, float]:
    """Seconds of an update of R replicas by kernel, measured or remembered; empty where neither."""
    if not issubclass(work.algorithm, Learner):
        return {}  # a file of the user's own, whose products are its own
    file = cache_folder() / "kernels.json"
    key = f"{processor()}, torch {torch.__version__}; {_shape(job, work.spec)}; R = {replicas}"
    try:
        with lock(file):
            known = _read(file)
            if not _is_whole(known.get(key)):
                known[key] = _measure(work, replicas)
                with replacing(file) as temporary:
                    temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            seconds: dict[str, float] = known[key]
            return seconds
    except Exception as error:  # of an update, which training is where to say, or of the cache
        log.info("no kernel was measured: %s", error)
        return {}


def _measure(work: Workload, replicas: int) -> dict[str, float]:
    """The shortest time that an update took by each kernel."""
    before = kernels.current()
    seconds = dict.fromkeys(kernels.KERNELS, float("inf"))
    try:
        seeds = [*range(replicas)]
        works = [work] * replicas
        learner, sampler = learner_of(works, seeds), sampler_of(works, seeds)
        for name in kernels.KERNELS:  # warms up
            kernels.use(name)
            learner.update(sampler.sample())
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until or min(seconds.values()) == float("inf"):
            for name in kernels.KERNELS:  # in turn, so that what else goes on meets all
                kernels.use(name)
                start = time.perf_counter()
                for _ in range(2):  # one with and one without a delayed part
                    learner.update(sampler.sample())
                seconds[name] = min(seconds[name], (time.perf_counter() - start) / 2)
    finally:
        kernels.use(before)
    shown = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in seconds.items())
    log.info("an update of %d replicas: %s; %s is used", replicas, shown, _fastest(seconds))
    return seconds


def _fastest(seconds: Mapping[str, float]) -> str:
    """The kernel that takes the least time; the first unless another gains MARGIN."""
    fastest = min(kernels.KERNELS, key=lambda name: seconds[name])
    first = kernels.KERNELS[0]
    return fastest if seconds[fastest] * MARGIN < seconds[first] else first


def _shape(job: Job, spec: Spec) -> str:
    """What decides the sizes of the products of an update."""
    actions = spec.action_count or spec.action_dim
    return f"{job.algorithm} {job.config_hash}, {spec.observation_dim} {actions}"


def _read(file: Path) -> dict[str, Any]:
    """Earlier measurements; none where the file is another's or damaged."""
    try:
        values = json.loads(read_own(file, LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _is_whole(seconds: Any) -> bool:
    """Whether a value of the file is a measurement of all kernels that are here."""
    return isinstance(seconds, dict) and all(
        isinstance(value := seconds.get(name), float) and 0 < value < float("inf")
        for name in kernels.KERNELS
    )
