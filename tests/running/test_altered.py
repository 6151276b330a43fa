"""Runs on altered data sets: each is a data set of its own, scored in the clean simulator."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import offrl
from offrl.data.altered import parted
from offrl.data.columns import Columns
from offrl.data.transforms import Corrupt
from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.results.store import run_folders
from offrl.running.attacks import attacked, trained
from offrl.running.jobs import expand
from offrl.running.protocol import find_protocol

pytestmark = pytest.mark.usefixtures("pendulum")

PROTOCOL = """
id = "robust"
version = 1
title = "Clean and altered"
source = "made up"
seeds = [0, 1]
steps = 4
datasets = [
    "pend.toml",
    { dataset = "pend.toml", transforms = [
        { kind = "corrupt", element = "rewards", rate = 0.5, seed = "run" },
    ] },
    "pend.toml+drop-actions[from_returns=0..1,keep=0.9]",
]
[evaluation]
every = 2
episodes = 1
[algorithms.bc]
config = { hidden = [8], batch_size = 4 }
[[algorithms.bc.on]]
datasets = ["*+corrupt*"]
config = { hidden = [4] }
"""
CORRUPT = "pend+corrupt[rewards,random,rate=0.5,range=1,seed=run]"
DROPPED = "pend+drop-actions[from_returns=0..1,keep=0.9,seed=0]"


def test_altered_sets_stand_beside_the_clean_one(caplog: pytest.LogCaptureFixture) -> None:
    Path("robust.toml").write_text(PROTOCOL)
    with caplog.at_level(logging.WARNING):
        events = offrl.run("robust.toml", "runs", workers=1)
    assert [event.status for event in events] == [Status.DONE] * 6
    assert "algorithm bc takes no rows without an action, so it trains on 10 of 20" in caplog.text
    identities = [folder.record().identity for folder in run_folders(Path("runs"))]
    by_name: dict[str, list[str]] = {}
    for identity in identities:
        by_name.setdefault(identity.dataset, []).append(identity.data_sha256)
        assert identity.environment is not None
        assert identity.environment["id"] == "Pendulum-v1"
        assert identity.config["hidden"] == ([4] if "corrupt" in identity.dataset else [8])
    checksums = {name: len(set(of_seeds)) for name, of_seeds in by_name.items()}
    assert checksums == {"pend@1": 1, f"{CORRUPT}@1": 2, f"{DROPPED}@1": 1}
    assert len({checksum for of_seeds in by_name.values() for checksum in of_seeds}) == 4
    stamps = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*.json*")}
    assert [event.status for event in offrl.run("robust.toml", "runs", workers=1)] == [
        Status.DONE
    ] * 6
    assert stamps == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*.json*")}


@pytest.mark.parametrize("element", ["observations", "actions", "next_observations"])
def test_adversarial_values_are_those_that_the_critic_likes_least(element: str) -> None:
    """Lower than clean and than random ones by the same critic, within range, and again so."""
    name = f"corrupt[{element},adversarial,rate=0.5,range=0.5,critic=sac_n,updates=3,seed=3]"
    with pytest.raises(InputError, match="is made by a run, or by offrl data make"):
        offrl.load_dataset(f"pend.toml+{name}")
    clean = offrl.load_dataset("pend.toml").columns()
    data = offrl.load_dataset(f"pend.toml+{name}", attack=attacked)
    (transform,) = parted(f"a+{name}")[1]
    assert isinstance(transform, Corrupt)
    rows = np.flatnonzero(np.random.RandomState(3).random_sample(20) < 0.5)
    before, after = clean.arrays()[element], data.columns().arrays()[element]
    assert np.flatnonzero((before != after).any(1)).tolist() == rows.tolist()
    limit = 0.5 * before.std(0) * (1 + 1e-5)
    assert (np.abs(after - before) <= limit + 1e-6).all()
    value, policy = trained(transform, clean)
    random = Corrupt(element=element, rate=0.5, range=0.5, seed=3).made(clean)  # type: ignore[arg-type]

    def mean(columns: Columns) -> float:
        states, actions = (torch.from_numpy(np.array(a)) for a in pair(columns))
        with torch.no_grad():
            taken = policy(states[None]) if element == "next_observations" else actions[None]
            return float(value(states[None], taken)[0, rows].mean())

    def pair(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        if element == "next_observations":
            return columns.next_observations, columns.actions
        return columns.observations, columns.actions

    assert mean(data.columns()) < min(mean(clean), mean(random))
    if element == "actions":
        assert np.array_equal(attacked(transform, clean).actions, after)


def test_a_protocol_that_extends_takes_altered_sets(tmp_path: Path) -> None:
    Path("robust.toml").write_text(PROTOCOL)
    Path("more.toml").write_text(
        'extends = "robust.toml"\nid = "more"\nversion = 1\n'
        'datasets = [{ dataset = "pend.toml", transforms = [{ kind = "delay", steps = 2 }] }]\n'
    )
    (first, second) = expand(find_protocol("more.toml"))
    assert first.dataset == second.dataset == f"{tmp_path / 'pend.toml'}+delay[steps=2]"
    assert first.config["hidden"] == [8]  # the entry of `on` is for none of its data sets
    assert first.place == ("more", "pend+delay[steps=2]", f"bc-{first.config_hash}", "seed-0")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{ kind = 'corupt' }", r"robust.toml: datasets: unknown transform 'corupt'; did you mean"),
        ("{ kind = 'delay', steps = 1 }", "datasets: transform delay: steps: Input should be"),
        ("{ kind = 'subset', episodes = 9 }", "9 episodes of 4 that are eligible; choose few"),
    ],
)
def test_a_fault_in_a_transform_is_said_before_anything_runs(entry: str, message: str) -> None:
    table = f'datasets = [{{ dataset = "pend.toml", transforms = [{entry}] }}]\n'
    start, end = PROTOCOL.index("datasets ="), PROTOCOL.index("[evaluation]")
    text = (PROTOCOL[:start] + table + PROTOCOL[end:]).partition("[[algorithms.bc.on]]")[0]
    Path("robust.toml").write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        offrl.run("robust.toml", "runs", workers=1)
    assert "\n" not in str(raised.value)
    assert not Path("runs").exists()
