"""Mistakes in an algorithm of the user's own: one line with file, line and step, and a record."""

import json
from pathlib import Path

import pytest
import torch

from offrl.data.dataset import load_dataset
from offrl.errors import InputError
from offrl.learning.learner import find_algorithm
from offrl.results.store import RunFolder
from offrl.running.faults import AlgorithmError, blaming, cause_of, check_metrics
from offrl.running.jobs import Job
from offrl.running.protocol import Evaluation
from offrl.running.task import check
from offrl.running.training import train_run

OWN = """
import dataclasses
import torch
import offrl

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 4

class Own(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        self.size, self.updates = spec.action_dim, 0
        INIT

    def update(self, batch):
        self.updates += 1
        if self.updates == 3:
            UPDATE
        return {"own/loss": 0.5}

    def act(self, observations):
        actions = torch.zeros(len(observations), self.size)
        return ACTIONS
"""


def own(folder: Path, init: str = "", update: str = "pass", actions: str = "actions") -> Path:
    text = OWN.replace("INIT", init).replace("UPDATE", update).replace("ACTIONS", actions)
    (folder / "own.py").write_text(text)
    return folder / "own.py"


def job(path: Path) -> Job:
    return Job(
        protocol="p@1",
        dataset="pointmaze-quickstart",
        label="own",
        algorithm=str(path),
        config={"batch_size": 4},
        code="0",
        view=None,
        steps=4,
        evaluation=Evaluation(every=2, episodes=1),
        seed=0,
    )


@pytest.mark.parametrize(
    ("parts", "line", "step", "words"),
    [
        ({"update": "raise RuntimeError('no way')"}, 20, 3, "RuntimeError: no way"),
        ({"update": "raise SystemExit(0)"}, 20, 3, "SystemExit: 0"),
        ({"update": "raise GeneratorExit"}, 20, 3, "GeneratorExit"),
        ({"update": "raise BaseException('x')"}, 20, 3, "BaseException: x"),
        ({"update": "torch.zeros(3) @ torch.zeros(4)"}, 20, 3, "RuntimeError: "),
        ({"update": "return {'own/loss': torch.zeros(16)}"}, 17, 3, "'own/loss' has shape (16,)"),
        ({"update": "return {'own/loss': 'low'}"}, 17, 3, "'own/loss' is a str"),
        ({"update": "return None"}, 17, 3, "returned NoneType"),
        ({"actions": "actions[:, 0]"}, 23, 2, "shape (1,); expected (1, 2)"),
        ({"actions": "actions / 0"}, 23, 2, "action that is not finite"),
        ({"actions": "None"}, 23, 2, "NoneType"),
    ],
)
def test_a_run_names_file_line_and_step_and_keeps_the_traceback(
    parts: dict[str, str], line: int, step: int, words: str, tmp_path: Path
) -> None:
    path = own(tmp_path, **parts)
    with pytest.raises(AlgorithmError) as caught:
        train_run(job(path), tmp_path / "runs")
    method = "act" if "actions" in parts else "update"
    assert f"{path}, line {line}, {method} at step {step}: " in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.step == step
    (record_file,) = tmp_path.rglob("run.json")
    record = json.loads(record_file.read_text())
    assert (record["status"], record["cause"]) == ("failed", cause_of(caught.value))
    assert "run.json has the traceback" in record["cause"]
    assert any("own.py" in text or "single.py" in text for text in record["traceback"])


def test_a_metric_that_is_not_finite_is_named_with_its_file(tmp_path: Path) -> None:
    path = own(tmp_path, update="return {'own/loss': float('nan')}")
    path.write_text(path.read_text().replace("== 3", ">= 3"))
    with pytest.raises(AlgorithmError, match=r"own.py, .*update at step 4: .*own/loss is nan"):
        train_run(job(path), tmp_path / "runs")
    assert RunFolder(job(path).folder(tmp_path / "runs")).read().cause is not None


def test_a_call_that_does_not_reach_the_method_names_its_definition(tmp_path: Path) -> None:
    path = own(tmp_path)
    path.write_text(path.read_text().replace("def act(self, observations)", "def act(self)"))
    with pytest.raises(AlgorithmError, match=r"line 23, act at step 2: TypeError: .*argument"):
        train_run(job(path), tmp_path / "runs")


def test_what_cannot_be_built_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    path = own(tmp_path, init="self.size = {}['width']")
    with pytest.raises(InputError, match=r"own cannot be built: .*py, line 15, __init__: Key"):
        check(job(path), load_dataset("pointmaze-quickstart"))
    path = own(tmp_path, init="raise offrl.InputError('own: width = 3 is odd')")
    with pytest.raises(InputError, match=r"^own: width = 3 is odd$"):
        check(job(path), load_dataset("pointmaze-quickstart"))


def test_an_algorithm_that_ships_raises_what_it_raises() -> None:
    with pytest.raises(ZeroDivisionError), blaming(find_algorithm("bc"), "update", 1):
        raise ZeroDivisionError
    with pytest.raises(InputError, match=r"^mine$"), blaming(find_algorithm("bc"), "update", 1):
        raise InputError("mine")


def test_an_interrupt_is_the_users_but_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own(tmp_path, update="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        train_run(job(path), tmp_path / "runs")
    monkeypatch.setattr("multiprocessing.parent_process", object)
    with pytest.raises(AlgorithmError, match=r"own.py, line 20, update at step 3: KeyboardInterr"):
        train_run(job(path), tmp_path / "runs")


def test_metrics_are_one_number_per_replica_by_name() -> None:
    assert check_metrics({}, 2) == {}
    good = {"a": torch.zeros(2)}
    assert check_metrics(good, 2) is good
    for bad in ({"a": torch.zeros(2, 1)}, {"a": 1.0}, {"a": torch.zeros(2, dtype=torch.complex64)}):
        with pytest.raises(ValueError, match="metric 'a' is"):
            check_metrics(bad, 2)
