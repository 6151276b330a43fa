"""Which kernel a run uses: measured, remembered, fixed, and the one with which it began."""

import json
import time
from pathlib import Path

import pytest
import torch
from battery import data, parameters, small, trained

from offrl.data.cache import cache_folder
from offrl.errors import InputError
from offrl.learning import kernels
from offrl.results.store import RunFolder
from offrl.running import kernel_choice
from offrl.running.events import Event
from offrl.running.jobs import Job
from offrl.running.kernel_choice import choose
from offrl.running.runner import plan
from offrl.running.task import Workload, prepare
from offrl.running.training import train_group, train_run

TRAINED = ("td3_bc", "iql", "cql", "edac", "sac_n", "rebrac")


@pytest.fixture(autouse=True)
def same_kernel_after() -> object:
    before = kernels.current()
    yield
    kernels.use(before)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    protocol = tmp_path / "tiny.toml"
    protocol.write_text(
        """
        id = "tiny"
        version = 1
        title = "Tiny"
        source = "offrl"
        datasets = ["pointmaze-quickstart"]
        seeds = [0]
        steps = 20
        [evaluation]
        every = 10
        episodes = 1
        [algorithms.bc.config]
        hidden = [4]
        batch_size = 4
        """
    )
    from offrl.running.protocol import find_protocol

    (job,) = plan(find_protocol(str(protocol))).jobs
    return job


@pytest.fixture
def work(job: Job) -> Workload:
    from offrl.data.dataset import load_dataset

    return prepare(job, load_dataset(job.dataset))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kernel", kernels.KERNELS[1:])
def test_kernels_differ_by_rounding_alone(name: str, kernel: str) -> None:
    config = small(name)
    one, _ = trained(name, data(), [3, 4], 6, config)
    kernels.use(kernel)
    other, _ = trained(name, data(), [3, 4], 6, config)
    for a, b in zip(parameters(one), parameters(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_kernel_that_is_not_here_is_refused(
    job: Job, work: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRL_KERNEL", "fast")
    with pytest.raises(InputError, match="OFFRL_KERNEL is 'fast'; expected one of"):
        choose(job, work, 1)
    with pytest.raises(InputError, match="kernel 'fast' is not here"):
        kernels.use("fast")


def test_the_fastest_is_measured_once_and_remembered(
    job: Job, work: Workload, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OFFRL_KERNEL")
    monkeypatch.setattr(kernel_choice, "SECONDS", 0.02)
    chosen = choose(job, work, 1)
    assert chosen in kernels.KERNELS
    assert cache_folder() == own_cache
    file = own_cache / "kernels.json"
    ((key, value),) = json.loads(file.read_text()).items()
    assert value == chosen
    assert "R = 1" in key
    other = next(name for name in kernels.KERNELS if name != chosen)
    file.write_text(json.dumps({key: other}))
    assert choose(job, work, 1) == other
    for damaged in ("[", "[]", json.dumps({key: "gone"})):
        file.write_text(damaged)
        assert choose(job, work, 1) in kernels.KERNELS


def test_a_slower_kernel_is_not_chosen(
    work: Workload, job: Job, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_cache
    monkeypatch.delenv("OFFRL_KERNEL")
    ticks = iter(range(10**6))
    cost = dict.fromkeys(kernels.KERNELS, 2.0) | {"batched": 1.0}

    def clock() -> float:
        next(ticks)
        clock.now += cost[kernels.current()]  # type: ignore[attr-defined]
        return float(clock.now)  # type: ignore[attr-defined]

    clock.now = 0.0  # type: ignore[attr-defined]
    monkeypatch.setattr(time, "perf_counter", clock)
    assert choose(job, work, 1) == "batched"


def test_a_run_goes_on_with_the_kernel_with_which_it_began(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: Event) -> bool:
        return event.step >= 10

    monkeypatch.setenv("OFFRL_KERNEL", "batched")
    (event,) = train_group([job], tmp_path / "runs", 1, stop)
    assert event.status == "interrupted"
    monkeypatch.setenv("OFFRL_KERNEL", kernels.KERNELS[0])
    train_run(job, tmp_path / "runs")
    folder = RunFolder(job.folder(tmp_path / "runs"))
    assert [(n.step, n.kernel) for n in folder.record().numerics] == [(0, "batched")]


def test_a_record_says_from_which_step_another_kernel_is_used(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kernels.KERNELS[0]
    train_group([job], tmp_path / "runs", 1, lambda event: event.step >= 10)
    folder = RunFolder(job.folder(tmp_path / "runs"))
    monkeypatch.setattr(kernels, "KERNELS", ("batched",))
    monkeypatch.setenv("OFFRL_KERNEL", "batched")
    train_run(job, tmp_path / "runs")
    record = [(n.step, n.kernel) for n in folder.record().numerics]
    assert record == [(0, first), (10, "batched")]
