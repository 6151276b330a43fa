"""Runs that train as replicas of one learner: the same files, failures and scores as alone."""

import json
import multiprocessing
from collections.abc import Hashable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
import torch
from battery import EXAMPLE

from offrl.algorithms.bc import BC
from offrl.data.transitions import transitions
from offrl.errors import InputError
from offrl.evaluation.environments import Actions
from offrl.learning.batch import Batch
from offrl.learning.learner import Metrics
from offrl.results.rows import Status
from offrl.results.store import RunFolder, State
from offrl.running import loop, runner, scoring
from offrl.running.devices import cores, players_each, worker_places
from offrl.running.events import Event
from offrl.running.groups import Group, group, kind_of
from offrl.running.jobs import Job, configure
from offrl.running.protocol import Evaluation
from offrl.running.runner import Plan
from offrl.running.scoring import Players, Task
from offrl.running.task import learner_spec
from offrl.running.training import train_group, train_run

ACTIONS = Actions.within(2.0, 1)  # Pendulum's


def go_on(_event: Event) -> bool:
    return False


def stop_at(step: int) -> Any:
    return lambda event: event.step >= step


@pytest.fixture
def plan(tmp_path: Path, own_cache: Path) -> Plan:
    assert own_cache
    return small_runs.planned(tmp_path, seeds=(0, 1, 2))


def folder(plan: Plan, r: int, root: Path) -> RunFolder:
    return RunFolder(plan.jobs[r].folder(root))


def returns(plan: Plan, r: int, root: Path) -> np.ndarray:
    return np.array([row["mean_return"] for row in small_runs.rows(plan.jobs[r], root)])


def agree(job: Job, one: Path, other: Path) -> None:
    """A run has the same returns in both folders, but for rounding."""
    ours, theirs = (
        [row["mean_return"] for row in small_runs.rows(job, root)] for root in (one, other)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_each_run_of_a_group_has_the_files_and_scores_of_a_run_alone(
    plan: Plan, tmp_path: Path
) -> None:
    events = train_group(plan.jobs, tmp_path / "together", 3, go_on)
    assert [(event.status, event.step) for event in events] == [(Status.DONE, 35)] * 3
    for r, job in enumerate(plan.jobs):
        train_run(job, tmp_path / "alone")
        agree(job, tmp_path / "together", tmp_path / "alone")
        stored = folder(plan, r, tmp_path / "together").read()
        assert stored.state is State.DONE
        assert stored.record is not None
        (numerics,) = stored.record.numerics
        assert (numerics.step, numerics.replicas, numerics.dtype) == (0, 3, "float32")
        assert numerics.threads == torch.get_num_threads()
    assert not small_runs.left_over(tmp_path / "together")


def test_a_replica_that_diverges_fails_alone(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = BC.update

    def broken(self: BC, batch: Batch) -> Metrics:
        metrics = update(self, batch)
        if self.updates >= 15:
            with torch.no_grad():
                self.actor.weights[0][1] = torch.nan
        return metrics

    monkeypatch.setattr(BC, "update", broken)
    first, second, third = train_group(plan.jobs, tmp_path / "runs", 3, go_on)
    monkeypatch.undo()
    assert (first.status, third.status) == (Status.DONE, Status.DONE)
    assert (second.status, second.step) == (Status.FAILED, 20)
    assert "is nan at step 20" in str(second.cause)
    stored = folder(plan, 1, tmp_path / "runs").read()
    assert stored.state is State.FAILED
    assert [row.step for row in stored.rows] == [10]
    train_group(plan.jobs, tmp_path / "whole", 3, go_on)
    for r in (0, 2):
        ours, whole = returns(plan, r, tmp_path / "runs"), returns(plan, r, tmp_path / "whole")
        assert (ours == whole).all()


def test_an_interrupted_group_ends_with_the_same_scores(plan: Plan, tmp_path: Path) -> None:
    train_group(plan.jobs, tmp_path / "whole", 3, go_on)
    root = tmp_path / "runs"
    events = train_group(plan.jobs, root, 3, stop_at(20))
    assert [(event.status, event.step) for event in events] == [(Status.INTERRUPTED, 20)] * 3
    # One run is taken away; a copy of another keeps its place.
    (some,) = group(plan.jobs[:2], root, 1, ["cpu"], plan.kind)
    assert some == Group(tuple(plan.jobs[:2]), 3)
    train_group(some.jobs, root, some.replicas, go_on)
    for r in (0, 1):
        assert small_runs.rows(plan.jobs[r], root) == small_runs.rows(
            plan.jobs[r], tmp_path / "whole"
        )
        record = folder(plan, r, root).record()
        assert [numerics.replicas for numerics in record.numerics] == [3]


@pytest.mark.parametrize("first", [[2], [1, 2], [0]], ids=str)
def test_runs_in_seats_are_those_of_the_whole_group_to_the_bit(
    first: list[int], plan: Plan, tmp_path: Path
) -> None:
    """Whichever runs of a group are made together, and with what settings; the widths are odd."""
    rates, sizes = (1e-4, 3e-4, 1e-2), {"actor_hidden": [5], "critic_hidden": [7], "batch_size": 3}
    jobs = []
    for job, rate in zip(plan.jobs, rates, strict=True):
        config = asdict(configure("td3_bc", {**sizes, "actor_lr": rate}, "a test"))
        kept = json.loads(json.dumps(config))
        jobs.append(replace(job, algorithm="td3_bc", label="td3_bc", config=kept))
    whole, root = tmp_path / "whole", tmp_path / "runs"
    train_group(jobs, whole, 3, go_on, seats=jobs)
    some = [jobs[r] for r in first]
    others = [job for job in jobs if job not in some]
    train_group(some, root, 3, stop_at(20), seats=jobs)
    train_group(others, root, 3, go_on, seats=jobs)
    train_group(some, root, 3, go_on, seats=jobs)
    names = set()
    for job in jobs:
        assert small_runs.rows(job, root) == small_runs.rows(job, whole)
        (numerics,) = RunFolder(job.folder(root)).record().numerics
        names.add((numerics.replicas, numerics.group))
    assert len(names) == 1


def test_a_group_whose_first_run_is_held_is_left_as_a_whole(plan: Plan, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with folder(plan, 0, root).held():
        left = train_group(plan.jobs, root, 3, go_on, seats=plan.jobs)
        assert [(event.status, bool(event.holder)) for event in left] == [
            (Status.WAITING, True)
        ] * 3
        (_, *ended) = train_group(plan.jobs, root, 3, go_on)  # of a group that another may not have
        assert [event.status for event in ended] == [Status.DONE] * 2
    with folder(plan, 1, root).held():
        before = folder(plan, 1, root).record()
    ended = train_group(plan.jobs, root, 3, go_on, seats=plan.jobs)  # two of them are done
    assert [event.status for event in ended] == [Status.DONE] * 3
    assert folder(plan, 1, root).record() == before


def test_a_run_of_a_group_that_is_taken_over_leaves_the_others_going(
    plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, whole = tmp_path / "runs", tmp_path / "whole"
    train_group(plan.jobs, whole, 3, go_on, seats=plan.jobs)
    path = plan.jobs[1].folder(root)
    written: dict[str, bytes] = {}

    def content() -> dict[str, bytes]:
        files = [p for p in path.rglob("*") if p.is_file() and p.name != ".lease-1"]
        return {str(p): p.read_bytes() for p in files}

    def take_over(event: Event) -> bool:
        if event.step == 20 and not written:
            (path / ".lease-2").write_text("another's")
            written.update(content())
        return False

    ended = train_group(plan.jobs, root, 3, take_over, seats=plan.jobs)
    statuses = {event.job.seed: event.status for event in ended}
    assert statuses == {0: Status.DONE, 1: Status.WAITING, 2: Status.DONE}
    assert content() == written
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"{path}: another process (a process that its lease does not name)")
    assert message.endswith("was stopped; nothing more is written here")
    for r in (0, 2):
        assert small_runs.rows(plan.jobs[r], root) == small_runs.rows(plan.jobs[r], whole)
        assert len(folder(plan, r, root).record().numerics) == 1


def test_groups_of_a_fixed_size_are_those_of_all_planned_jobs(plan: Plan, tmp_path: Path) -> None:
    jobs = [replace(job, seed=seed) for job in plan.jobs[:1] for seed in range(7)]
    waiting = [jobs[r] for r in (1, 2, 4, 6)]

    def grouped(replicas: int | None) -> list[tuple[list[int], int, int]]:
        groups = group(waiting, tmp_path, replicas, ["cpu"], plan.kind, jobs)
        return [([j.seed for j in g.jobs], g.replicas, len(g.seats)) for g in groups]

    assert grouped(2) == [([1], 2, 2), ([2], 2, 2), ([4], 2, 2), ([6], 1, 0)]
    assert grouped(3) == [([1, 2], 3, 3), ([4], 3, 3), ([6], 1, 0)]
    assert grouped(1) == [([seed], 1, 0) for seed in (1, 2, 4, 6)]
    assert grouped(None) == [([1, 2, 4, 6], 4, 0)]


def test_runs_at_different_steps_go_on_apart_and_their_records_say_so(
    plan: Plan, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    train_group(plan.jobs, root, 3, stop_at(20))
    folder(plan, 2, root).checkpoint.unlink()
    events = train_group(plan.jobs, root, 3, go_on)
    assert {event.status for event in events} == {Status.DONE}
    numerics = [
        [(n.step, n.replicas) for n in folder(plan, r, root).record().numerics] for r in range(3)
    ]
    assert numerics == [[(0, 3), (20, 2)], [(0, 3), (20, 2)], [(0, 3), (0, 1)]]


def test_where_one_makes_all_raise_they_go_on_one_by_one(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    update = BC.update

    def broken(self: BC, batch: Batch) -> Metrics:
        if len(batch.rewards) > 1 and self.updates == 12:
            raise RuntimeError("too large")
        return update(self, batch)

    monkeypatch.setattr(BC, "update", broken)
    events = train_group(plan.jobs, tmp_path / "runs", 3, go_on)
    assert [(event.status, event.step) for event in events] == [(Status.DONE, 35)] * 3
    assert "RuntimeError: too large; its group goes on one by one" in caplog.text
    for r in range(3):
        record = folder(plan, r, tmp_path / "runs").record()
        assert [(n.step, n.replicas) for n in record.numerics] == [(0, 3), (10, 1)]


@pytest.fixture
def played_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations go to players, in parts of an episode, however short they are."""
    monkeypatch.setattr(loop, "STARTED_AFTER", -1.0)
    monkeypatch.setattr(scoring, "SMALLEST_PART", 1)


@pytest.mark.usefixtures("played_elsewhere")
def test_evaluations_that_other_processes_play_are_the_same(plan: Plan, tmp_path: Path) -> None:
    train_group(plan.jobs, tmp_path / "here", 3, go_on)
    players = Players(2)
    with closing(players):
        train_group(plan.jobs, tmp_path / "there", 3, stop_at(10), players=players)
        events = train_group(plan.jobs, tmp_path / "there", 3, go_on, players=players)
        assert [(event.status, event.step) for event in events] == [(Status.DONE, 35)] * 3
        for job in plan.jobs:
            ours = small_runs.rows(job, tmp_path / "there")
            assert ours == small_runs.rows(job, tmp_path / "here")
        for process in multiprocessing.active_children():  # others take their place
            process.kill()
            process.join()
        train_run(plan.jobs[0], tmp_path / "dead", players=players)
        assert len(multiprocessing.active_children()) == 2  # one run's episodes in two parts
        ours = small_runs.rows(plan.jobs[0], tmp_path / "dead")
        train_run(plan.jobs[0], tmp_path / "alone")
        assert ours == small_runs.rows(plan.jobs[0], tmp_path / "alone")
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("played_elsewhere")
def test_what_is_raised_while_others_play_leaves_them_ready(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = BC.update

    def broken(self: BC, batch: Batch) -> Metrics:
        if self.updates == 10:  # after the first evaluation began
            raise RuntimeError("broken")
        return update(self, batch)

    with closing(Players(1)) as players:
        monkeypatch.setattr(BC, "update", broken)
        with pytest.raises(RuntimeError, match="broken"):
            train_run(plan.jobs[0], tmp_path / "runs", players=players)
        monkeypatch.undo()
        monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
        train_run(plan.jobs[1], tmp_path / "runs", players=players)
    assert folder(plan, 1, tmp_path / "runs").read().state is State.DONE


@pytest.mark.usefixtures("played_elsewhere")
def test_what_another_process_raises_or_dies_of_is_the_runs_failure(
    plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "deadly.py").write_text("import os\n\nos._exit(3)\n")
    spec = learner_spec(transitions(plan.dataset(plan.jobs[0])), ACTIONS, 35)
    tasks = [
        Task(replace(plan.jobs[0], algorithm=str(tmp_path / name)), spec, [""], 10, {}, "batched")
        for name in ("gone.py", "deadly.py", "gone.py")
    ]
    with closing(Players(1)) as players:
        players.begin(tasks)
        first, second, third = map(str, players.collect())
    assert "gone.py" in first
    assert second == "the process that plays its episodes ended with code 3"
    assert third == "no process is left that plays episodes"


def test_a_group_that_needs_too_much_memory_goes_on_in_halves(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    update = BC.update

    def large(self: BC, batch: Batch) -> Metrics:
        if len(batch.rewards) > 2 and self.updates == 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update(self, batch)

    monkeypatch.setattr(BC, "update", large)
    events = train_group(plan.jobs, tmp_path / "runs", 3, go_on)
    assert [(event.status, event.step) for event in events] == [(Status.DONE, 35)] * 3
    assert caplog.text.count("they go on in two halves") == 1
    numerics = [
        [(n.step, n.replicas) for n in folder(plan, r, tmp_path / "runs").record().numerics]
        for r in range(3)
    ]
    assert numerics == [[(0, 3), (10, 2)], [(0, 3), (10, 2)], [(0, 3), (10, 1)]]


def test_jobs_of_one_structure_are_grouped(plan: Plan, tmp_path: Path) -> None:
    others = [replace(job, config={**job.config, "actor_lr": 1.0}) for job in plan.jobs]
    wider = [replace(job, config={**job.config, "hidden": [3]}) for job in plan.jobs]
    jobs = [*plan.jobs, *wider]
    data = transitions(plan.dataset(jobs[0]))
    spec = learner_spec(data, ACTIONS, 35)

    def kind(job: Job) -> Hashable:
        return kind_of(job, spec)

    assert kind(others[0]) == kind(plan.jobs[1])  # a number may differ
    assert kind(replace(jobs[0], steps=36)) != kind(jobs[0])
    assert kind(replace(jobs[0], evaluation=Evaluation(every=5, episodes=2))) != kind(jobs[0])
    assert kind_of(jobs[0], replace(spec, observation_dim=4)) != kind(jobs[0])

    def sizes(replicas: int | None, workers: int) -> list[int]:
        groups = group(jobs, tmp_path, replicas, ["cpu"] * workers, kind)
        for some in groups:
            assert len({str(job.config["hidden"]) for job in some.jobs}) == 1
        return [len(some.jobs) for some in groups]

    assert sizes(None, 2) == [3, 3]
    assert sizes(None, 3) == [2, 1, 2, 1]
    assert sizes(1, 2) == [1] * 6
    assert sizes(2, 1) == [2, 1, 2, 1]


def test_an_algorithm_for_one_seed_is_not_grouped(plan: Plan, tmp_path: Path) -> None:
    jobs = [replace(job, algorithm=EXAMPLE) for job in plan.jobs]
    spec = learner_spec(transitions(plan.dataset(plan.jobs[0])), ACTIONS, 35)
    assert kind_of(jobs[0], spec) is None
    groups = group(jobs, tmp_path, 3, ["cpu"], lambda _job: None)
    assert [len(some.jobs) for some in groups] == [1, 1, 1]


def test_a_record_of_a_huge_group_costs_no_memory(plan: Plan, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    train_group(plan.jobs, root, 3, stop_at(10))
    run = folder(plan, 0, root)
    with run.held():
        (numerics,) = run.record().numerics
        run.note_numerics(numerics.model_copy(update={"replicas": 10**9}))
    sizes = [some.replicas for some in group(plan.jobs, root, None, ["cpu"], plan.kind)]
    assert sorted(sizes) == [1, 3]


def test_a_group_that_was_killed_while_checkpoints_took_their_places_ends_that(
    plan: Plan, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    train_group(plan.jobs, tmp_path / "whole", 3, go_on)
    train_group(plan.jobs, root, 3, stop_at(10))
    late = folder(plan, 2, root)
    early = late.checkpoint.read_bytes()
    train_group(plan.jobs, root, 3, stop_at(20))
    late.checkpoint.rename(late.upcoming)
    late.checkpoint.write_bytes(early)
    train_group(plan.jobs, root, 3, go_on)
    assert not late.upcoming.exists()
    for r, job in enumerate(plan.jobs):
        assert small_runs.rows(job, root) == small_runs.rows(job, tmp_path / "whole")
        assert len(folder(plan, r, root).record().numerics) == 1


def test_replicas_with_settings_of_their_own_end_as_alone(plan: Plan, tmp_path: Path) -> None:
    rates = (1e-4, 3e-4, 1e-2)
    jobs = [
        replace(job, config={**job.config, "actor_lr": rate}, label=f"bc-{rate}")
        for job, rate in zip(plan.jobs, rates, strict=True)
    ]
    train_group(jobs, tmp_path / "together", 3, stop_at(20))
    train_group(jobs, tmp_path / "together", 3, go_on)
    for job in jobs:
        train_run(job, tmp_path / "alone")
        agree(job, tmp_path / "together", tmp_path / "alone")


def test_a_run_of_a_group_goes_on_alone(plan: Plan, tmp_path: Path) -> None:
    """Its optimiser had a rate per replica, and has one number afterwards."""
    rates = (1e-4, 3e-4, 1e-2)
    jobs = [
        replace(job, config={**job.config, "actor_lr": rate})
        for job, rate in zip(plan.jobs, rates, strict=True)
    ]
    train_group(jobs, tmp_path / "runs", 3, stop_at(20))
    train_run(jobs[2], tmp_path / "runs")
    train_run(jobs[2], tmp_path / "alone")
    agree(jobs[2], tmp_path / "runs", tmp_path / "alone")


def test_replicas_on_different_data_end_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []
    for name, rows in (("one", 20), ("two", 30)):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / name / "cache"))
        plans.append(small_runs.planned(tmp_path / name, seeds=(0,), rows=rows))
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    config = asdict(configure("iql", {"hidden": [2], "batch_size": 2}, "a test"))
    iql = {"algorithm": "iql", "label": "iql", "config": json.loads(json.dumps(config))}
    jobs = [replace(p.jobs[0], seed=number, **iql) for number, p in enumerate(plans)]
    spec = learner_spec(transitions(plans[0].dataset(plans[0].jobs[0])), ACTIONS, 35)
    assert kind_of(jobs[0], spec) == kind_of(jobs[1], spec)
    events = train_group(jobs, tmp_path / "together", 2, go_on)
    assert {event.status for event in events} == {Status.DONE}
    for job in jobs:
        train_run(job, tmp_path / "alone")
        agree(job, tmp_path / "together", tmp_path / "alone")


@pytest.mark.usefixtures("plan")
def test_replicas_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replicas is 0; expected at least 1"):
        runner.run(str(tmp_path / "small.toml"), tmp_path / "runs", replicas=0)


def test_a_device_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="device 'gpu'; expected auto, cpu, cuda or cuda:N"):
        worker_places("gpu", None)
    assert worker_places("cpu", 3) == ["cpu"] * 3
    if torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda:99"):
            worker_places("cuda:99", None)
    else:
        assert worker_places("auto", 2) == ["cpu"] * 2
        with pytest.raises(InputError, match=r"finds no GPU here; .* or choose cpu"):
            worker_places("cuda", None)


def test_workers_without_a_group_play_evaluations() -> None:
    assert [players_each(["cpu"] * 4, groups) for groups in (1, 2, 3, 4, 9)] == [3, 1, 0, 0, 0]
    assert players_each(["cuda:0"], 9) == cores()  # a GPU's learner needs no core of its own
    assert players_each(["cuda:0"] * 2, 9) == max(1, cores() // 2)
