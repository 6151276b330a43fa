"""Runs that go on to more steps than they began with, and those that cannot."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from offrl.errors import InputError
from offrl.learning import checkpoint
from offrl.results.rows import Status
from offrl.results.store import RunFolder, State, run_folders
from offrl.running.events import Event
from offrl.running.protocol import Protocol
from offrl.running.runner import run, train

pytestmark = pytest.mark.usefixtures("pendulum")
SMALL = {"batch_size": 8}
NARROW = {
    "bc": {"hidden": [4]},
    "iql": {"hidden": [4]},
    "td3_bc": {"actor_hidden": [4], "critic_hidden": [4]},
    "edac": {"actor_hidden": [4], "critic_hidden": [4]},
}
SCHEDULED = """
import dataclasses
import torch
import offrl

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 4

class Scheduled(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        {line}
        self.size = spec.action_dim

    def update(self, batch):
        return {{}}

    def act(self, observations):
        return torch.zeros(len(observations), self.size)
"""


def trained(root: Path, steps: int, algorithm: str = "td3_bc", **changes: Any) -> list[Event]:
    given: dict[str, Any] = {
        "config": {**SMALL, **NARROW.get(algorithm, {})},
        "evaluate_every": 10,
        "episodes": 2,
        "seeds": [0, 1],
        "workers": 1,
        "replicas": 2,
    }
    return train(algorithm, "pend.toml", root, steps=steps, **{**given, **changes})


def exact(value: Any) -> Any:
    """A state with the bytes of its tensors."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    return [*map(exact, value)] if isinstance(value, list) else value


def ended(root: Path) -> list[tuple[Any, ...]]:
    """What runs hold at their end, times and sessions apart, and their learners bit for bit."""
    found = []
    for folder in run_folders(root):
        stored = folder.read()
        assert stored.state is State.DONE
        assert stored.record is not None
        rows = [row.model_dump(exclude={"wall_time"}) for row in stored.rows]
        state = checkpoint.load(folder.checkpoint)
        learned = {name: exact(state[name]) for name in ("learner", "sampler", "step")}
        found.append((stored.record.identity, stored.record.numerics, rows, learned))
    return found


@pytest.mark.parametrize("algorithm", ["bc", "td3_bc", "edac"])
def test_more_steps_end_as_if_the_run_had_begun_with_them(algorithm: str, tmp_path: Path) -> None:
    trained(tmp_path / "whole", 50, algorithm)
    trained(tmp_path / "parts", 20, algorithm)
    events = trained(tmp_path / "parts", 50, algorithm)
    assert [(event.status, event.step) for event in events] == [(Status.DONE, 50)] * 2
    assert ended(tmp_path / "parts") == ended(tmp_path / "whole")
    for path in (tmp_path / "parts").rglob("run.json"):
        assert len(json.loads(path.read_text())["sessions"]) == 2
    with pytest.raises(InputError, match=r'holds a run with {"steps": 50}, but this one has'):
        trained(tmp_path / "parts", 20, algorithm)


def test_a_run_that_waits_or_stopped_goes_on_to_more_steps(tmp_path: Path) -> None:
    trained(tmp_path / "whole", 30, replicas=1)
    trained(tmp_path / "parts", 25, replicas=1)
    for path in (tmp_path / "parts").rglob("run.json"):  # as if killed before its last evaluation
        record = json.loads(path.read_text())
        del record["checksum"]
        path.write_text(json.dumps({**record, "status": "interrupted"}))
        rows = path.with_name("evaluations.jsonl")
        rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:2]))
        path.parent.joinpath("checkpoint", "state.safetensors").unlink()
    trained(tmp_path / "parts", 30, replicas=1)
    assert ended(tmp_path / "parts") == ended(tmp_path / "whole")


def test_a_schedule_that_depends_on_the_steps_is_named(tmp_path: Path) -> None:
    trained(tmp_path, 20, "iql")
    files = [*tmp_path.rglob("run.json"), *tmp_path.rglob("*.jsonl"), *tmp_path.rglob("*tensors")]
    before = {path: path.read_bytes() for path in files}
    assert len(before) == 6
    with pytest.raises(InputError, match="20 steps cannot go on to 50, as the cosine decay of act"):
        trained(tmp_path, 50, "iql")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("line", "depends"),
    [("self.end = spec.steps", True), ("self.spec = spec", True), ("self.end = 0", False)],
)
def test_an_own_algorithm_that_reads_the_steps_has_a_schedule(
    line: str, depends: bool, tmp_path: Path
) -> None:
    own = tmp_path / "own.py"
    own.write_text(SCHEDULED.format(line=line))
    given: dict[str, Any] = {"config": {}, "seeds": [0], "replicas": 1}
    trained(tmp_path / "runs", 20, str(own), **given)
    if depends:
        with pytest.raises(
            InputError, match=r"cannot go on to 50, as what it makes of spec\.steps"
        ):
            trained(tmp_path / "runs", 50, str(own), **given)
    else:
        (event,) = trained(tmp_path / "runs", 50, str(own), **given)
        assert (event.status, event.step) == (Status.DONE, 50)


def test_no_run_goes_on_where_another_cannot(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "id": "two",
        "version": 1,
        "title": "two",
        "source": "offrl",
        "datasets": ["pend.toml"],
        "seeds": [0],
        "steps": 20,
        "evaluation": {"every": 10, "episodes": 1},
        "algorithms": {name: {"config": SMALL | NARROW[name]} for name in ("bc", "iql")},
    }
    run(Protocol.model_validate(values), tmp_path / "runs", workers=1)
    with pytest.raises(InputError, match="the cosine decay of actor_lr depends on their number"):
        run(Protocol.model_validate({**values, "steps": 30}), tmp_path / "runs", workers=1)
    events = run(Protocol.model_validate(values), tmp_path / "runs", workers=1)
    assert [(event.status, event.step) for event in events] == [(Status.DONE, 20)] * 2


def test_a_last_evaluation_that_a_longer_run_has_not_is_kept(tmp_path: Path) -> None:
    trained(tmp_path, 25)
    with pytest.raises(InputError, match="its last evaluation, at step 25, is none of the longer"):
        trained(tmp_path, 50)
    assert [folder.read().state for folder in run_folders(tmp_path)] == [State.DONE] * 2
    folder = RunFolder(next(tmp_path.rglob("run.json")).parent)
    assert [row.step for row in folder.rows()] == [10, 20, 25]
