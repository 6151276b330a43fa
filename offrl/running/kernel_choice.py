"""Which kernel multiplies fastest here: measured once per machine and shape, then remembered."""

import json
import logging
import os
import time
from pathlib import Path

import torch

from offrl.data.cache import cache_folder, lock
from offrl.errors import InputError
from offrl.files import read_own, replacing
from offrl.learning import kernels
from offrl.learning.learner import Learner
from offrl.learning.spec import Spec
from offrl.results.provenance import processor
from offrl.running.jobs import Job
from offrl.running.opening import learner_of, sampler_of
from offrl.running.task import Workload

log = logging.getLogger(__name__)

SECONDS = 0.5  # that a measurement takes, of all kernels together
MARGIN = 1.05  # by which another kernel has to be faster than the first
LARGEST = 2**20  # bytes of the file of measurements


def choose(job: Job, work: Workload, replicas: int) -> str:
    """The kernel with which updates of R replicas are fastest, one of `kernels.KERNELS`.

    OFFRL_KERNEL fixes it. Else it is measured on updates of an untrained learner and kept in the
    cache, so that it is the same the next time.
    """
    if fixed := os.environ.get("OFFRL_KERNEL"):
        if fixed not in kernels.KERNELS:
            raise InputError(
                f"OFFRL_KERNEL is {fixed!r:.80}; expected one of {', '.join(kernels.KERNELS)}"
            )
        return fixed
    if not issubclass(work.algorithm, Learner):
        return kernels.KERNELS[0]  # a file of the user's own, whose products are its own
    file = cache_folder() / "kernels.json"
    key = f"{processor()}, torch {torch.__version__}; {_shape(job, work.spec)}; R = {replicas}"
    try:
        with lock(file):
            known = _read(file)
            if known.get(key) not in kernels.KERNELS:
                known[key] = _fastest(work, replicas)
                with replacing(file) as temporary:
                    temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            return known[key]
    except Exception as error:  # of an update, which training is where to say, or of the cache
        log.info("no kernel was measured: %s", error)
        return kernels.KERNELS[0]


def _fastest(work: Workload, replicas: int) -> str:
    """The kernel with the most updates in equal time; the first unless another gains MARGIN."""
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
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    finally:
        kernels.use(before)
    fastest = min(seconds, key=lambda name: seconds[name])
    first = kernels.KERNELS[0]
    chosen = fastest if seconds[fastest] * MARGIN < seconds[first] else first
    shown = ", ".join(f"{name} {1e3 * value / 2:.3g} ms" for name, value in seconds.items())
    log.info("an update of %d replicas: %s; %s is used", replicas, shown, chosen)
    return chosen


def _shape(job: Job, spec: Spec) -> str:
    """What decides the sizes of the products of an update."""
    return f"{job.algorithm} {job.config_hash}, {spec.observation_dim} {spec.action_dim}"


def _read(file: Path) -> dict[str, str]:
    """Earlier measurements; none where the file is another's or damaged."""
    try:
        values = json.loads(read_own(file, LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
