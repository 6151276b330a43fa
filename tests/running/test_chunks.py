"""How groups of runs become chunks for the machines of a cluster."""

from dataclasses import replace
from pathlib import Path

import pytest

from offrl.errors import InputError
from offrl.running import costs
from offrl.running.chunks import ROOM, Chunk, cut
from offrl.running.costs import Cost
from offrl.running.executors.slurm import executor
from offrl.running.groups import Group
from offrl.running.jobs import Job, expand
from offrl.running.launchers import Launcher
from offrl.running.protocol import find_protocol

SECONDS = 0.01  # of an update


@pytest.fixture
def jobs() -> list[Job]:
    """Runs of BC, a hundred of which take ten steps more each than the one before."""
    first = next(job for job in expand(find_protocol("quickstart")) if job.label == "bc")
    return [replace(first, seed=n, steps=1000 + 10 * n) for n in range(100)]


def chunks(jobs: list[Job], root: Path, **changed: object) -> list[Chunk]:
    given = {"device": "cpu", "workers": 4, "tasks": 1, "seconds": 100.0, **changed}
    return cut([Group((job,), 1) for job in jobs], root, **given)  # type: ignore[arg-type]


def measured(job: Job, root: Path) -> None:
    cost = Cost.of(job, 1, "cpu", update=SECONDS, updates=5000, episode=None)
    costs.note(root, cost.model_copy(update={"memory": 2**30}))


def test_chunks_take_about_the_time_that_was_asked_for(jobs: list[Job], tmp_path: Path) -> None:
    measured(jobs[0], tmp_path)
    made = chunks(jobs, tmp_path)
    steps = [[job.steps for job in chunk.jobs] for chunk in made]
    assert sorted(step for some in steps for step in some) == [job.steps for job in jobs]
    assert steps[0][0] == jobs[-1].steps  # the longest first
    for some in steps[:-1]:
        assert 0.8 * 400 < sum(some) * SECONDS <= 400  # of four workers, 100 s each
    assert {chunk.memory for chunk in made} == {int(ROOM * 4 * 2**30)}
    # With many machines, none is left without work where it would pay.
    many = chunks(jobs, tmp_path, seconds=36000.0, tasks=1000)
    assert max(sum(job.steps for job in c.jobs) * SECONDS for c in many) <= 4 * 300
    assert len(chunks(jobs, tmp_path, seconds=36000.0)) == 2  # 64 groups at most


def test_where_nobody_knows_the_time_each_worker_has_one_group(
    jobs: list[Job], tmp_path: Path
) -> None:
    made = chunks(jobs, tmp_path)
    assert [len(chunk.groups) for chunk in made] == [4] * 25
    assert {(chunk.workers, chunk.memory) for chunk in made} == {(4, None)}
    (last,) = chunks(jobs[:3], tmp_path)
    assert last.workers == 3


def test_what_may_differ_is_named(jobs: list[Job], tmp_path: Path) -> None:
    (one,) = chunks(jobs[:1], tmp_path, allowed=["torch"])
    assert "torch" not in one.versions
    assert {"offrl", "commit", "python", "mujoco", "numpy"} <= one.versions.keys()
    with pytest.raises(InputError, match=r"--allow-versions tensorflow: expected one of commit, "):
        chunks(jobs[:1], tmp_path, allowed=["tensorflow"])


def test_options_of_slurm(jobs: list[Job], tmp_path: Path) -> None:
    options = {"account": "lab", "time": "45", "mem": "8G", "setup": "module load cuda"}
    made = executor(Launcher("slurm", partition="cpu", chunk_hours=2, slurm=options))
    (chunk,) = chunks(jobs[:1], tmp_path)
    assert made.sized(chunk).memory == 8 * 2**30
    assert made.parameters(8 * 2**30) == {
        "additional_parameters": {"account": "lab"},
        "array_parallelism": 256,
        "cpus_per_task": 1,
        "job_name": "offrl",
        "mem": "8192M",
        "partition": "cpu",
        "setup": ["module load cuda"],
        "time": 45,
    }
    assert executor(Launcher("slurm", chunk_hours=2)).parameters(None)["time"] == 180
    with pytest.raises(InputError, match=r"--slurm time=1:00: expected a whole number"):
        executor(Launcher("slurm", slurm={"time": "1:00"})).parameters(None)
    with pytest.raises(InputError, match=r"--slurm mem=much: expected a number such as 8G"):
        executor(Launcher("slurm", slurm={"mem": "much"})).sized(chunk)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "kubernetes"}, "unknown launcher 'kubernetes'"),
        ({"partition": "cpu"}, "--partition: is no option of the launcher local"),
        ({"name": "ray", "slurm": {"qos": "x"}}, "--slurm: is no option of the launcher ray"),
        ({"name": "ray", "chunk_hours": 0.0}, "--chunk-hours 0: expected hours"),
        ({"name": "slurm", "array_parallelism": 0}, "--array-parallelism 0: expected 1 to"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Launcher(**given)  # type: ignore[arg-type]
