"""D4RL's files in both views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numbered import numbers

from offrl.data.card import Card, Environment, find_card
from offrl.data.dataset import Dataset, load_dataset
from offrl.errors import InputError


def d4rl_file(
    path: Path,
    rows: int,
    ends: Sequence[int] = (),
    cuts: Sequence[int] | None = None,
    successors: bool = False,
    **replaced: Any,
) -> Path:
    """A file in the layout of D4RL's locomotion data: names, types and the groups beside them.

    `ends` are the rows of terminals and `cuts` those of timeouts; `replaced` are whole columns.
    """
    observations = numbers(rows, 3)
    data: dict[str, Any] = {
        "observations": observations,
        "actions": numbers(rows, 2, 1000) / 2000,
        "rewards": np.arange(rows, dtype=np.float32) + 0.5,
        "terminals": np.isin(np.arange(rows), ends),
        "infos/qpos": np.zeros((rows, 4)),
        "metadata/algorithm": np.bytes_("SAC"),
    }
    if cuts is not None:
        data["timeouts"] = np.isin(np.arange(rows), cuts)
    if successors:  # a row's true successor is its own observation plus 100
        data["next_observations"] = observations + 100
    data |= replaced
    with h5py.File(path, "w") as file:
        for key, values in data.items():
            if values is not None:
                file.create_dataset(key, data=values)
    return path


def d4rl_card(path: Path, view: str = "transitions", limit: int | None = None) -> Card:
    card = Card.model_validate(
        {
            "id": path.stem,
            "version": 1,
            "title": "test",
            "source": {"loader": "d4rl", "files": [{"name": str(path)}]},
            "view": view,
            "licence": "none",
            "citation": "none",
        }
    )
    if limit is None:
        return card
    environment = Environment(id="CartPole-v1", max_episode_steps=limit)
    return card.model_copy(update={"environment": environment})


def straight_qlearning(path: Path, limit: int) -> dict[str, list[Any]]:
    """d4rl.qlearning_dataset, said again row by row in plain lists."""
    with h5py.File(path, "r") as file:
        data = {key: list(file[key]) for key in file if isinstance(file[key], h5py.Dataset)}
    out: dict[str, list[Any]] = {"row": [], "next": [], "terminal": []}
    counter = 0
    for row in range(len(data["rewards"]) - 1):
        final = data["timeouts"][row] if "timeouts" in data else counter == limit - 1
        if final:
            counter = 0
            continue
        if data["terminals"][row]:
            counter = 0
        out["row"].append(row)
        out["next"].append(row + 1)
        out["terminal"].append(bool(data["terminals"][row]))
        counter += 1
    return out


def rows_of(dataset: Dataset, size: int = 3) -> list[int]:
    return [int(first) // size for first in dataset.observations[:, 0]]


@pytest.mark.parametrize("successors", [False, True])
@pytest.mark.parametrize("with_timeouts", [False, True])
def test_qlearning_view_is_the_one_of_d4rl(
    tmp_path: Path, successors: bool, with_timeouts: bool
) -> None:
    rng = np.random.default_rng(np.random.SeedSequence(3))
    rows, limit = 200, 7
    ends = sorted(rng.choice(rows, 12, replace=False).tolist())
    cuts = sorted(rng.choice(rows, 20, replace=False).tolist()) if with_timeouts else None
    path = d4rl_file(tmp_path / "a.hdf5", rows, ends, cuts, successors)
    expected = straight_qlearning(path, limit)
    dataset = load_dataset(d4rl_card(path, "qlearning", limit))
    assert rows_of(dataset) == expected["row"]
    assert [int(first) // 3 for first in dataset.next_observations[:, 0]] == expected["next"]
    assert dataset.terminations.tolist() == expected["terminal"]
    np.testing.assert_array_equal(dataset.rewards, np.array(expected["row"]) + 0.5)
    assert not (dataset.terminations & dataset.truncations).any()


def test_qlearning_view_by_hand(tmp_path: Path) -> None:
    # episodes: rows 0-3 time out, rows 4-6 terminate, rows 7-9 time out
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3, 9])
    dataset = load_dataset(path, view="qlearning")
    assert rows_of(dataset) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert dataset.next_observations[5, 0] == 21  # row 7, the next episode's first
    assert dataset.terminations.nonzero()[0].tolist() == [5]
    assert dataset.truncations.nonzero()[0].tolist() == [2, 7]
    assert dataset.episode_lengths.tolist() == [3, 3, 2]
    assert (dataset.source.transitions, dataset.source.episodes) == (10, 3)
    assert dataset.source.mean_return == pytest.approx((10 * 9 / 2 + 5) / 3)
    assert "qlearning view: left out 1 rows at timeouts and the last row" in dataset.notes[-1]
    assert "qlearning view" in repr(dataset)


def test_qlearning_view_counts_steps_as_d4rl_does_after_a_terminal(tmp_path: Path) -> None:
    # d4rl counts the first step after a terminal as the second: the next cut comes a step early
    path = d4rl_file(tmp_path / "a.hdf5", 12, ends=[2])
    dataset = load_dataset(d4rl_card(path, "qlearning", 4))
    assert rows_of(dataset) == [0, 1, 2, 3, 4, 6, 7, 8, 10]
    whole = load_dataset(d4rl_card(path, "transitions", 4))
    assert whole.episode_lengths.tolist() == [3, 3, 3]  # of 3, 4, 4 and 1 steps: last rows go


def test_transitions_view_keeps_every_row_with_successors(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3], successors=True)
    dataset = load_dataset(path)
    assert rows_of(dataset) == list(range(10))
    np.testing.assert_array_equal(dataset.next_observations, np.asarray(dataset.observations) + 100)
    assert dataset.terminations.nonzero()[0].tolist() == [6]
    assert dataset.truncations.nonzero()[0].tolist() == [3, 9]
    assert dataset.notes == ["the last episode is unfinished: marked as truncated"]
    assert dataset.episode_lengths.tolist() == [4, 3, 3]
    assert dataset.source.episodes == 2  # finished ones, as d4rl counts
    assert dataset.source.mean_return == pytest.approx((7 * 6 / 2 + 3.5) / 2)


def test_transitions_view_without_successors_drops_what_has_none(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3])
    dataset = load_dataset(path)
    assert rows_of(dataset) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert [int(v) // 3 for v in dataset.next_observations[:, 0]] == [1, 2, 3, 5, 6, 6, 8, 9]
    assert dataset.truncations.nonzero()[0].tolist() == [2, 7]
    assert dataset.terminations.nonzero()[0].tolist() == [5]
    assert "left out 2 rows" in dataset.notes[-1]
    assert "1 terminal rows their own observation" in dataset.notes[-1]


def test_a_row_that_terminates_at_the_limit_is_a_termination(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 6, [2, 5], [2])
    dataset = load_dataset(path)
    assert dataset.terminations.nonzero()[0].tolist() == [2, 5]
    assert len(dataset) == 6


def test_a_one_step_episode_that_times_out_leaves_no_flag_behind(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 6, [2, 5], [3])  # rows 0-2, row 3 alone, rows 4-5
    dataset = load_dataset(path)
    assert rows_of(dataset) == [0, 1, 2, 4, 5]
    assert not dataset.truncations.any()


def test_float64_and_column_shaped_rewards_are_read(tmp_path: Path) -> None:
    path = d4rl_file(
        tmp_path / "a.h5",
        4,
        [3],
        [],
        observations=numbers(4, 3).astype(np.float64),
        rewards=np.ones((4, 1)),
        terminals=np.array([0, 0, 0, 1], dtype=np.uint8),
    )
    dataset = load_dataset(path)
    assert dataset.observations.dtype == np.float32
    assert dataset.rewards.shape == (4,)
    assert dataset.episode_returns.tolist() == [4.0]


@pytest.mark.parametrize("view", ["transitions", "qlearning"])
def test_d4rls_columns_in_an_npz_file_are_the_same(tmp_path: Path, view: str) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3, 9])
    with h5py.File(path) as file:
        columns = {k: v[()] for k, v in file.items() if isinstance(v, h5py.Dataset)}
    np.savez_compressed(tmp_path / "b.npz", **columns)
    one = load_dataset(d4rl_card(path, view))
    other = load_dataset(d4rl_card(tmp_path / "b.npz", view))
    assert other.checksum == one.checksum
    assert (other.source, other.notes) == (one.source, one.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"b\.npz: cannot be read as d4rl data \(BadZipFile: .*copy it from its source"),
        (b"PK\x03\x04 and no more", r"b\.npz: cannot be read as d4rl data \(BadZip"),
        (None, r"b\.npz: lacks actions, rewards, terminals; found observations"),
    ],
)
def test_npz_files_that_are_not_whole_are_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "b.npz"
    if content is None:  # a pickle inside
        np.savez(path, observations=np.array([{}], dtype=object))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(d4rl_card(path))
    assert "\n" not in str(caught.value)


def test_d4rl_without_timeouts_and_limit_is_refused(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10)
    with pytest.raises(InputError, match=r"a\.hdf5: has no timeouts.*environment\.max_episode_st"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"actions": None}, r"a\.hdf5: lacks actions; found infos, metadata, observations"),
        ({"rewards": np.ones(9)}, r"rewards: 9 rows, but the first column has 10"),
        ({"actions": np.ones((10, 2, 2))}, r"actions: shape \(10, 2, 2\), expected \(rows, dim"),
        ({"terminals": np.full(10, 0.5)}, r"terminals: 0\.5 in row 0; expected 0 or 1"),
        ({"rewards": np.array([b"x"] * 10)}, r"rewards: expected numbers, found \|S1"),
        ({"observations": np.ones((0, 3))}, r"terminals: 10 rows|no rows"),
        ({"next_observations": np.ones((10, 4))}, r"next_observations: shape \(10, 4\), expected"),
    ],
)
def test_odd_d4rl_files_are_refused_in_one_line(
    tmp_path: Path, replaced: dict[str, Any], message: str
) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [], [4, 9], **replaced)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["observations", "timeouts", "episode_ids", "discrete_action"])
def test_values_of_unequal_lengths_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """One of them may stand in every row, so that a small file fills any memory."""
    path = d4rl_file(tmp_path / "a.hdf5", 10, ends=[9], cuts=[4])
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        shape = () if key == "discrete_action" else (10,)
        file.create_dataset(key, shape, h5py.vlen_dtype(np.float32))
    read = h5py.Dataset.__getitem__

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        assert self.dtype.kind != "O"
        return read(self, *args, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    if key in ("observations", "timeouts"):
        with pytest.raises(InputError, match=rf"a\.hdf5: {key}: expected numbers, found object"):
            load_dataset(d4rl_card(path))
    else:
        assert len(load_dataset(d4rl_card(path))) == 9


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_name_column_and_row(tmp_path: Path, bad: float) -> None:
    observations = numbers(70_000, 1).astype(np.float64)
    observations[66_000, 0] = bad  # in the second block of the search
    observations[69_000, 0] = bad
    path = d4rl_file(tmp_path / "a.hdf5", 70_000, [], [69_999], observations=observations)
    with pytest.raises(InputError, match=r"observations: -?(nan|inf|1e\+300) in row 66000"):
        load_dataset(path)


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 1000, [], [999])
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"<!DOCTYPE html><title>403 Forbidden</title>"):
        path.write_bytes(part)
        with pytest.raises(
            InputError, match=r"a\.hdf5: cannot be read as d4rl data \(OSError.* write"
        ):
            load_dataset(path)


# --- episodes by a file's own column ---

LENGTHS = [4, 1, 5]  # of the episodes of rows 0-3, 4 and 5-9; the second ends by a termination
FINAL = np.isin(np.arange(10), [3, 4, 9])
FIRST = np.isin(np.arange(10), [0, 4, 5])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("episode_terminals", FINAL.astype(np.float32)),  # d3rlpy
        ("episode_end", FINAL),
        ("truncated", FINAL),
        ("truncations", FINAL & (np.arange(10) != 4)),
        ("is_last", FINAL[:, None]),
        ("dones", FINAL.astype(np.uint8)),
        ("episode_ends", np.array([4, 5, 10])),
        ("traj_lengths", np.array(LENGTHS)),
        ("episode_starts", np.array([0, 4, 5])),
        ("is_first", FIRST),
        ("episode_id", np.repeat([7, 3, 9], LENGTHS)),
        ("timesteps", np.array([0, 1, 2, 3, 0, 0, 1, 2, 3, 4])),
    ],
)
def test_a_column_of_the_files_own_ends_episodes_where_there_are_no_timeouts(
    tmp_path: Path, name: str, values: Any
) -> None:
    own = d4rl_file(tmp_path / "own.hdf5", 10, [4], successors=True, **{name: values})
    plain = d4rl_file(tmp_path / "plain.hdf5", 10, [4], [3, 9], successors=True)
    dataset = load_dataset(own)
    assert dataset.checksum == load_dataset(plain).checksum
    assert dataset.episode_lengths.tolist() == LENGTHS
    assert dataset.notes == [
        f"no timeouts in the file: its {name} ends 2 episodes without a termination, which count "
        "as truncated"
    ]
    # Also where a card gives a step limit, and in the other view:
    limited = load_dataset(d4rl_card(own, "qlearning", 2))
    assert limited.checksum == load_dataset(plain, view="qlearning").checksum


def test_a_column_that_may_speak_of_episodes_is_never_passed_over(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [4], episode_bounds=np.full(10, 0.5))
    for source in (path, d4rl_card(path, limit=5)):
        with pytest.raises(InputError, match=r"no timeouts, and episode_bounds may speak of") as e:
            load_dataset(source)
        assert "max_episode_steps" not in str(e.value)
    d4rl_file(path, 10, [4], [9], episode_bounds=np.full(10, 0.5))  # timeouts say enough
    assert load_dataset(path).notes
    d4rl_file(path, 10, [4], [9], episode_ends=FINAL)
    with pytest.raises(InputError, match=r"episode_ends ends an episode in row 3 .*, but timeouts"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"actions": np.zeros(10, np.int64)}, r"actions are int64, so discrete, and its card"),
        ({"actions": np.zeros((10, 1), bool)}, r"actions are bool, so discrete, and its card"),
        ({"discrete_action": True}, r"discrete_action says that its actions are discrete"),
    ],
)
def test_discrete_actions_without_their_number_are_refused(
    tmp_path: Path, replaced: dict[str, Any], message: str
) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [], [9], **replaced)
    with pytest.raises(InputError, match=message):
        load_dataset(path)


def test_discrete_actions_are_read_where_the_card_has_their_number(tmp_path: Path) -> None:
    taken = np.arange(10) % 3
    path = d4rl_file(tmp_path / "a.hdf5", 10, [], [9], actions=taken[:, None], discrete_action=True)
    given = tmp_path / "card.toml"
    given.write_text(
        'id = "d"\nversion = 1\ntitle = "d"\nlicence = "none"\ncitation = "none"\n'
        f'[source]\nloader = "d4rl"\nfiles = [{{ name = "{path}" }}]\n'
        '[actions]\ncount = 3\nnames = ["left", "none", "right"]\n'
    )
    dataset = load_dataset(given)
    assert dataset.actions.dtype == np.int64
    assert dataset.actions.tolist() == taken[:9].tolist()
    assert dataset.action_count == 3


@pytest.mark.parametrize("successors", [False, True])
def test_views_of_d4rls_rooms_are_flattened(tmp_path: Path, successors: bool) -> None:
    """In the layout of D4RL's script: images and choices as float32, no timeouts."""
    views = numbers(10, 147).reshape(10, 7, 7, 3)
    kept: dict[str, Any] = {"next_observations": views + 100} if successors else {}
    path = d4rl_file(
        tmp_path / "minigrid4rooms.hdf5",
        10,
        [3, 9],
        observations=views,
        actions=np.arange(10, dtype=np.float32) % 7,
        **kept,
    )
    room = find_card("minigrid-fourrooms-v0")
    with pytest.raises(InputError, match=r"load it through a card that gives .*max_episode_steps"):
        load_dataset(room.model_copy(update={"source": d4rl_card(path).source}))
    card = d4rl_card(path, limit=50).model_copy(update={"actions": room.actions})
    dataset = load_dataset(card)
    flat = views.reshape(10, -1)
    np.testing.assert_array_equal(dataset.observations, flat)
    after = flat + 100 if successors else flat[[1, 2, 3, 3, 5, 6, 7, 8, 9, 9]]
    np.testing.assert_array_equal(dataset.next_observations, after)
    assert dataset.actions.tolist() == [*range(7), 0, 1, 2]
    assert "observations of shape (7, 7, 3) flattened" in dataset.notes


def test_d4rls_columns_in_an_npz_file_given_by_its_path_are_read(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3, 9])
    with h5py.File(path) as file:
        columns = {k: v[()] for k, v in file.items() if isinstance(v, h5py.Dataset)}
    np.savez(tmp_path / "b.npz", **columns)
    dataset = load_dataset(tmp_path / "b.npz")
    assert dataset.card.source.loader == "d4rl"
    assert dataset.checksum == load_dataset(path).checksum
    del columns["rewards"]
    np.savez(tmp_path / "c.npz", **columns)
    with pytest.raises(
        InputError, match=r"c\.npz: lacks rewards; found .* expected D4RL's .*; add or rename col"
    ):
        load_dataset(tmp_path / "c.npz")
    del columns["terminals"]
    np.savez(tmp_path / "c.npz", **columns)
    message = (
        r"c\.npz: no loader reads its columns: d4rl needs rewards, terminals too; .*neorl2 need"
    )
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "c.npz")
