"""Which kernel a run uses: measured, remembered, fixed, and the one with which it began."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from battery import data, parameters, small, trained

from offrl.data.cache import cache_folder
from offrl.data.dataset import load_dataset
from offrl.errors import InputError
from offrl.learning import kernels
from offrl.results.store import RunFolder
from offrl.running import kernel_choice
from offrl.running.events import Event
from offrl.running.groups import group
from offrl.running.jobs import Job
from offrl.running.kernel_choice import choose, choose_replicas
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
    assert value.keys() == {*kernels.KERNELS}
    assert "R = 1" in key
    other = next(name for name in kernels.KERNELS if name != chosen)
    file.write_text(json.dumps({key: dict.fromkeys(kernels.KERNELS, 1.0) | {other: 0.5}}))
    assert choose(job, work, 1) == other
    for damaged in ("[", "[]", json.dumps({key: "gone"}), json.dumps({key: {other: -1.0}})):
        file.write_text(damaged)
        assert choose(job, work, 1) in kernels.KERNELS


def remember(file: Path, milliseconds: dict[int, float]) -> None:
    """Puts an update's time by the number of replicas in place of what was measured."""
    known = json.loads(file.read_text())
    for size, value in milliseconds.items():
        (key,) = (key for key in known if key.endswith(f"R = {size}"))
        known[key] = dict.fromkeys(kernels.KERNELS, value)
    file.write_text(json.dumps(known))


def test_the_number_of_replicas_is_measured_for_long_runs(
    job: Job, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OFFRL_KERNEL")
    monkeypatch.setattr(kernel_choice, "SECONDS", 0.02)
    file = own_cache / "kernels.json"
    data = load_dataset(job.dataset)
    assert choose_replicas(job, data, 5) == 5
    assert not file.exists()  # a run of 20 steps is over before anything is measured
    job = replace(job, steps=kernel_choice.LONG)
    assert choose_replicas(job, data, 5) in (5, 3, 2, 1)
    assert {key[-1] for key in json.loads(file.read_text())} == {"5", "3", "2", "1"}
    remember(file, {5: 10.0, 3: 5.0, 2: 3.9, 1: 2.0})
    assert choose_replicas(job, data, 5) == 3
    groups = group(
        [replace(job, seed=seed) for seed in range(5)],
        own_cache / "runs",
        None,
        ["cpu"],
        lambda _job: "one kind",
        sized=lambda job, most: choose_replicas(job, data, most),
    )
    assert [some.replicas for some in groups] == [3, 2]
    remember(file, {3: 5.9})  # 1.97 a replica, where 5 take 2.00: within the margin
    assert choose_replicas(job, data, 5) == 5
    known = json.loads(file.read_text())
    (key,) = (key for key in known if key.endswith("R = 2"))
    known[key]["batched"] = 2.0
    file.write_text(json.dumps(known))
    assert choose_replicas(job, data, 5) == 2  # by the fastest kernel
    monkeypatch.setenv("OFFRL_KERNEL", kernels.KERNELS[0])
    assert choose_replicas(job, data, 5) == 5  # by the kernel that is fixed


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
