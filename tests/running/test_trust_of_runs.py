"""What a protocol names runs where it is trusted; the decision goes with the run, and only here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from offrl.data.cache import cache_folder
from offrl.errors import InputError
from offrl.results.store import RunFolder, run_folders
from offrl.running.decisions import decide
from offrl.running.jobs import expand
from offrl.running.protocol import find_protocol
from offrl.running.runner import plan, run, train
from offrl.trust import Untrusted

CARD = """
id = "mine"
version = 1
title = "made up"
licence = "none"
citation = "none"
[source]
loader = "loader.py"
files = [{ name = "a.npz" }]
[environment]
id = "simulator_of_mine:Mine-v0"
max_episode_steps = 5
[reference]
min = -500.0
max = 0.0
source = "made up"
"""
PROTOCOL = """
id = "tiny"
version = 1
title = "made up"
source = "made up"
datasets = ["card.toml"]
seeds = [0]
steps = 2
evaluation = { every = 1, episodes = 1 }
[algorithms.own]
algorithm = "own.py"
"""
RAN = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
LOADER = f"{RAN}from offrl.datasets.neorl2 import *\n"
OWN = f"""{RAN}
from dataclasses import dataclass
import torch
import offrl

@dataclass(frozen=True)
class Config:
    batch_size: int = 4

class Own(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        self.net = torch.nn.Linear(spec.observation_dim, spec.action_dim)

    def update(self, batch):
        return {{"actor/loss": 0.0}}

    def act(self, observations):
        return self.net(observations).tanh()
"""
SIMULATOR = f"""{RAN}
import gymnasium

gymnasium.register("Mine-v0", "gymnasium.envs.classic_control:PendulumEnv")
"""


@pytest.fixture
def folder(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A protocol, a card and the code that each names; nothing of it is in the working folder."""
    assert own_cache
    home = tmp_path / "bundle"
    home.mkdir()
    rng = np.random.default_rng(np.random.SeedSequence(0))
    rows = 10
    observations = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    np.savez(
        home / "a.npz",
        obs=observations[:-1],
        next_obs=observations[1:],
        action=rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        reward=np.ones(rows, dtype=np.float32),
        done=np.zeros(rows),
        truncated=np.arange(rows) % 5 == 4,
    )
    texts = {
        "card.toml": CARD,
        "tiny.toml": PROTOCOL,
        "loader.py": LOADER,
        "own.py": OWN,
        "simulator_of_mine.py": SIMULATOR,
    }
    for name, text in texts.items():
        (home / name).write_text(text)
    monkeypatch.syspath_prepend(home)
    path = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)  # of the workers
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return home


def ran(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.ran"))


def test_nothing_of_a_stranger_runs_unasked(folder: Path) -> None:
    protocol, card = folder / "tiny.toml", folder / "card.toml"
    with pytest.raises(Untrusted, match=rf"algorithm own would import the file {folder}/own\.py"):
        run(protocol, "runs")
    with pytest.raises(
        Untrusted, match=rf"source\.loader = .*, give --trust {card}|--trust {card}"
    ):
        run(protocol, "runs", trust=[protocol])
    with pytest.raises(Untrusted, match=rf"--trust {protocol}"):
        run(protocol, "runs", trust=[card])
    with pytest.raises(Untrusted, match=rf"--trust {card}"):
        run(protocol, "runs", algorithms=["bc"])
    with pytest.raises(Untrusted, match=rf"--trust {card}"):
        train("bc", card, "runs")
    card.write_text(CARD.replace("loader.py", "neorl2"))  # its simulator is left
    with pytest.raises(Untrusted, match=r"environment\.id = .* the module simulator_of_mine, wh"):
        plan(find_protocol(str(protocol), trust=protocol))
    assert ran(folder) == ["own"]  # which the last line trusted
    assert not Path("runs").exists()


@pytest.mark.parametrize("label", ['"own.py"', '"../bundle/own.py"'])
def test_a_label_that_is_a_path_is_code_too(folder: Path, label: str) -> None:
    shutil.copy(folder / "own.py", "own.py")
    text = PROTOCOL.partition("[algorithms")[0] + f"[algorithms.{label}]\n"
    (folder / "tiny.toml").write_text(text)
    with pytest.raises(InputError):  # refused as a label, or as code
        expand(find_protocol(str(folder / "tiny.toml")))
    assert ran(folder) == ran(Path.cwd()) == []


def test_a_path_that_the_user_gives_needs_no_trust(folder: Path) -> None:
    (job,) = expand(find_protocol(str(folder / "tiny.toml")), [str(folder / "own.py")])
    assert job.label == "own"


def test_workers_and_resumed_runs_inherit_the_decision(folder: Path, tmp_path: Path) -> None:
    protocol, card = folder / "tiny.toml", folder / "card.toml"
    (event,) = run(protocol, "runs", workers=1, trust=[protocol, card])
    assert event.status == "done", event.cause
    (stored,) = run_folders(Path("runs"))
    record = json.loads(stored.record_file.read_text())
    assert record["trust"]["files"] == [str(protocol), str(card)]
    (again,) = run(protocol, "runs", workers=1)  # the run says so
    assert again.status == "done"
    with pytest.raises(Untrusted):  # of another folder of runs
        run(protocol, "others", workers=1)
    # A stranger who writes the same record decides nothing here.
    for seal in ("", "0" * 64, record["trust"]["seal"][::-1], "é" * 64, "\ud800", "\0"):
        record["trust"]["seal"] = seal
        stored.record_file.write_text(json.dumps(record))
        with pytest.raises(Untrusted):
            run(protocol, "runs", workers=1)
    other = record["trust"] | {"files": [str(tmp_path / "evil.toml"), str(protocol)]}
    stored.record_file.write_text(json.dumps(record | {"trust": other}))
    with pytest.raises(Untrusted):
        run(protocol, "runs", workers=1)


def key_file() -> Path:
    return cache_folder() / f".trust-{os.getuid()}.key"


@pytest.mark.parametrize(
    "left", ["nothing", "an empty file", "half a key", "a readable key", "a link"]
)
def test_a_key_is_whole_private_and_made_anew_where_none_is(left: str, own_cache: Path) -> None:
    own_cache.mkdir()
    path, victim = key_file(), own_cache / "victim"
    victim.write_bytes(bytes(32))
    match left:
        case "an empty file" | "half a key":
            path.touch(0o600)
            path.write_bytes(bytes(0 if left == "an empty file" else 16))
        case "a readable key":
            path.write_bytes(bytes(32))
            path.chmod(0o644)
        case "a link":
            path.symlink_to(victim)
    first, second = decide(("a.toml",)), decide(("a.toml",))
    assert first is not None
    assert first.seal
    assert first == second
    assert path.lstat().st_mode == 0o100600
    assert len(path.read_bytes()) == 32
    assert victim.read_bytes() == bytes(32)
    assert decide(("b.toml",)) != first


def test_processes_that_begin_at_once_have_one_key(own_cache: Path) -> None:
    code = "from offrl.running.decisions import decide; print(decide(('a.toml',)).seal)"
    environ = {**os.environ, "OFFRL_CACHE": str(own_cache)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert len({process.communicate(timeout=300)[0] for process in processes}) == 1
    assert decide(("a.toml",)) is not None


def test_a_key_that_a_kill_cut_short_is_never_seen(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stands under the key's name until the key is whole."""

    def killed(_from: Path, _to: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        decide(("a.toml",))
    assert not key_file().exists()
    assert own_cache.is_dir()


def test_a_key_that_cannot_be_kept_is_spoken_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        decision = decide(("a.toml",))
        assert decision is not None
        assert decision.seal == ""
    (record,) = caplog.records
    assert "cannot be written" in record.getMessage()
    assert "--trust again" in record.getMessage()


def test_a_record_without_a_decision_looks_as_before(folder: Path) -> None:
    card = CARD.replace("loader.py", "neorl2").replace("simulator_of_mine:Mine-v0", "Pendulum-v1")
    (folder / "card.toml").write_text(card)
    train("bc", folder / "card.toml", "runs", steps=1, evaluate_every=1, episodes=1, workers=1)
    (stored,) = run_folders(Path("runs"))
    assert "trust" not in json.loads(stored.record_file.read_text())


def test_runs_stay_below_the_folder_of_runs(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "card.toml", folder / "...toml")  # whose stem is ".."
    protocol = folder / "tiny.toml"
    protocol.write_text(PROTOCOL.replace("card.toml", "...toml"))
    with pytest.raises(InputError, match=r"folder of its runs: expected a plain name.* '\.\.'"):
        expand(find_protocol(str(protocol), trust=protocol))
    protocol.write_text(PROTOCOL)
    (job,) = expand(find_protocol(str(protocol), trust=protocol))
    (tmp_path / "important").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to("../important")
    stray = RunFolder(job.folder(tmp_path / "runs"), tmp_path / "runs")
    with pytest.raises(InputError, match=r"runs/tiny: it is a link"), stray.held():
        pass
    assert not list((tmp_path / "important").iterdir())
