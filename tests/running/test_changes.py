"""What options change of a protocol, and that it is another one then."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offrl.errors import InputError
from offrl.learning.template import TEMPLATE
from offrl.running.changes import LONGEST_NAME, Changes, changed
from offrl.running.jobs import Job, expand
from offrl.running.protocol import Protocol, find_protocol, tables
from offrl.running.runner import run
from offrl.toml import to_toml
from offrl.trust import Untrusted

VALUES: dict[str, Any] = {
    "id": "mine",
    "version": 2,
    "title": "A protocol for tests",
    "source": "offrl",
    "datasets": ["hopper-medium-v2", "antmaze-umaze-v2"],
    "seeds": [0, 1],
    "steps": 50,
    "evaluation": {"every": 10, "episodes": 4, "final_episodes": 9},
    "algorithms": {
        "bc": {"steps": 20, "episodes": 2},
        "iql": {
            "config": {"beta": 4.0},
            "on": [{"datasets": ["antmaze-*"], "every": 5, "config": {"beta": 9.0, "tau": 0.1}}],
        },
        "fast": {"algorithm": "td3_bc"},
    },
}
MINE = Protocol.model_validate(VALUES)


def jobs(algorithms: tuple[str, ...] = (), **changes: Any) -> list[Job]:
    return expand(changed(MINE, Changes(**changes), algorithms), algorithms)


def test_steps_every_and_episodes_hold_for_all_algorithms_and_data_sets() -> None:
    found = jobs(steps=30, every=15, episodes=3)
    assert {j.protocol for j in found} == {"mine+steps=30+every=15+episodes=3@2"}
    assert {j.steps for j in found} == {30}
    assert {(j.evaluation.every, j.evaluation.episodes_at(30, 30)) for j in found} == {(15, 3)}
    assert {j.evaluation.episodes for j in found} == {3}
    assert {j.config["beta"] for j in found if j.label == "iql"} == {4, 9}


def test_a_value_is_set_for_all_that_have_it_or_for_one() -> None:
    found = jobs(config={"gamma": 0.5, "iql.beta": 1})
    assert {j.protocol for j in found} == {"mine+gamma=0.5+iql.beta=1@2"}
    assert {j.label for j in found if j.config.get("gamma") == 0.5} == {"iql", "fast"}
    assert {(j.config["beta"], j.config["tau"]) for j in found if j.label == "iql"} == {
        (1, 0.005),
        (1, 0.1),
    }
    assert "gamma" not in next(j for j in found if j.label == "bc").config


def test_what_options_leave_as_it_is_stays_the_protocol() -> None:
    assert changed(MINE, Changes()) is MINE
    assert changed(MINE, Changes(seeds=[0, 1], config={"iql.tau": 0.5})).id != "mine"
    assert changed(MINE, Changes(seeds=[0, 1])) is MINE
    assert changed(MINE, Changes(seeds=[0])).id == "mine+seeds=0"
    assert changed(MINE, Changes(steps=50)).id == "mine+steps=50"  # of bc too


def test_algorithms_that_are_given_are_changed_too(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(TEMPLATE.read_text())
    (first, *_) = found = jobs((str(own), "awac"), steps=30, config={"batch_size": 7})
    assert {(j.label, j.steps, j.config["batch_size"]) for j in found} == {
        ("own", 30, 7),
        ("awac", 30, 7),
    }
    assert first.protocol == "mine+steps=30+batch_size=7@2"


def test_code_of_a_protocol_is_not_read_before_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    text = to_toml(tables(MINE)) + "\n[algorithms.own]\nalgorithm = 'own.py'\n"
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(Untrusted, match="algorithm own would import"):
        changed(find_protocol(str(path)), Changes(config={"beta": 1}))
    made = changed(find_protocol(str(path)), Changes(config={"iql.beta": 1}))
    with pytest.raises(Untrusted, match="algorithm own would import"):
        expand(made)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"steps": 1000}, "steps=1000"),
        ({"seeds": [4, 2, 3]}, "seeds=2..4"),
        ({"seeds": [7, 0]}, "seeds=0,7"),
        (
            {"config": {"hidden": [64, 64], "lr": 1e-7, "big": 1e16}},
            "big=1e16+hidden=64x64+lr=1e-07",
        ),
        ({"config": {"a": True, "b": "corl", "td3-bc.c": -2.5}}, "a=true+b=corl+td3-bc.c=-2.5"),
    ],
)
def test_an_id_says_what_was_changed(changes: dict[str, Any], name: str) -> None:
    assert Changes(**changes).name() == name


def test_what_no_id_can_say_has_a_checksum_that_differs() -> None:
    odd: list[dict[str, Any]] = [
        {"config": {"reward": "minus one"}},
        {"config": {"reward": "true"}},
        {"config": {"reward": "../x"}},
        {"config": {"hidden": [64]}},
        {"config": {"hidden": [[1, 2], [3]]}},
        {"config": {"TD3+BC.alpha": 1}},
        {"config": {"steps": 3}},
        {"config": {"a": 10**400}},
        {"seeds": list(range(0, 2000, 2))},
    ]
    names = [Changes(**changes).name() for changes in odd]
    assert len({*names}) == len(names)
    for name in names:
        assert len(name) == 8
        int(name, 16)
    assert len(Changes(seeds=list(range(0, 60, 2))).name()) <= LONGEST_NAME


def test_a_changed_protocol_as_toml_is_read_back_equal(tmp_path: Path) -> None:
    changes = Changes(steps=7, seeds=[3], config={"hidden": [8, 8], "iql.reward": "minus one"})
    made = changed(find_protocol("neorl2-dmsd"), changes)
    path = tmp_path / "x.toml"
    path.write_text(to_toml(tables(made)))
    assert find_protocol(str(path)) == made
    assert expand(find_protocol(str(path))) == expand(made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "protocol mine: steps: .*greater than 0, found 0"),
        ({"every": -1}, "evaluation.every: .*found -1"),
        ({"seeds": [1, 1]}, "seeds: 1 stands there twice"),
        ({"seeds": []}, "seeds: .*at least 1"),
        ({"config": {"bata": 1}}, "--set bata: unknown config key 'bata'; did you mean 'beta'"),
        ({"config": {"iq.beta": 1}}, "unknown algorithm 'iq'; did you mean 'iql'.*--set iq.beta"),
        ({"config": {"iql.bata": 1}}, "algorithm iql: unknown config key 'bata'"),
        ({"config": {"beta": "x"}}, "algorithm iql: beta: .*valid number, found 'x'"),
    ],
)
def test_a_bad_change_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        jobs(**changes)


def test_a_grid_and_a_value_of_one_key_contradict_each_other() -> None:
    grid = {**VALUES, "algorithms": {"iql": {"grid": {"beta": [1, 2]}}}}
    with pytest.raises(InputError, match="--set beta: algorithm iql has a grid of it"):
        changed(Protocol.model_validate(grid), Changes(config={"beta": 3}))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """They get as far as a name that there is not."""
    values = {"iql.beta": np.float64(3), "iql.hidden": np.array([8, 8])}
    with pytest.raises(InputError, match=r"seeds=0,1\+iql\.beta=3\+iql\.hidden=8x8 'nope'"):
        run("quickstart", tmp_path, seeds=np.arange(2), config=values, datasets=["nope"])  # type: ignore[arg-type]
