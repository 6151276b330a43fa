"""Tables and episodes of a user's own: what their columns become, and what is refused."""

import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import offrl
from offrl.data.dataset import load_dataset
from offrl.data.deposit import deposit_table
from offrl.data.logged import table_columns
from offrl.data.roles import Roles
from offrl.data.tables import BLOCK, frame_table, open_table
from offrl.errors import InputError

ROLES = Roles(["obs_*"], ["dose"], "r", episode="patient", time="t", terminal="died")


def log() -> pd.DataFrame:
    """Two patients whose rows are mixed: a dies in its second row, b is lost after its third."""
    rows = [
        ("a", 1, 1.0, 2.0, 0.5, 1.0, 0),
        ("b", 2, 3.0, 6.0, 0.1, 0.0, 0),
        ("a", 2, 4.0, 5.0, 0.2, 2.0, 1),
        ("b", 1, 7.0, 8.0, 0.3, 1.0, 0),
        ("b", 3, 9.0, 10.0, 0.4, 5.0, 0),
    ]
    return pd.DataFrame(rows, columns=["patient", "t", "obs_a", "obs_b", "dose", "r", "died"])


def written(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep={".csv": ",", ".tsv": "\t"}[path.suffix])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_times_in_nanoseconds_are_not_rounded_to_one(suffix: str, tmp_path: Path) -> None:
    """Of whole numbers beyond 2^53 float64 makes one of several."""
    frame = log()
    frame["t"] += 1_700_000_000_000_000_000
    columns = table_columns(open_table(written(frame, tmp_path / f"log{suffix}")), ROLES)
    assert columns.observations.tolist() == [[1, 2], [4, 5], [7, 8], [3, 6]]


def test_times_of_two_kinds_are_numbers_or_refused() -> None:
    """Blocks of an object column may be whole numbers in one and others in the next."""
    half = np.arange(BLOCK)
    times = pd.Series([*(half.tolist()), *(half + 0.5).tolist()][::-1], dtype=object)
    frame = pd.DataFrame({"o": range(2 * BLOCK), "a": 0.5, "r": 1.0, "e": 0, "t": times})
    roles = Roles(["o"], ["a"], "r", episode="e", time="t")
    columns = table_columns(frame_table(frame), roles)
    assert columns.observations[:3, 0].tolist() == [2 * BLOCK - 1, BLOCK - 1, 2 * BLOCK - 2]
    frame.loc[BLOCK:, "t"] = [2**60 + k for k in range(BLOCK)]
    with pytest.raises(InputError, match=f"t: the times from row {BLOCK} on .* of another kind"):
        table_columns(frame_table(frame), roles)


def test_four_times_the_columns_take_four_times_as_long(tmp_path: Path) -> None:
    """Not sixteen times, as where each name is looked up in a list of all."""
    roles = Roles(["o*"], ["a"], "r", episode="e")
    seconds: list[float] = []
    for width in (1_500, 1_500, 6_000):  # the first imports what is needed
        frame = pd.DataFrame(np.zeros((4, width), dtype=np.int8)).add_prefix("o")
        path = written(frame.assign(a=0.5, r=1.0, e=[0, 0, 1, 1]), tmp_path / "log.csv")
        card = tmp_path / f"{len(seconds)}.toml"
        started = time.process_time()
        deposit_table(open_table(path), roles, card)
        load_dataset(card)
        seconds.append(time.process_time() - started)
    assert seconds[2] < 6.5 * seconds[1]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_the_rows_of_a_table_are_counted_by_its_line_ends(end: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(end.join(["a,b", "1,2", "3,4", ""]).encode())
    assert open_table(tmp_path / "log.csv").most == 4  # with the names, and one without an end


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_rows_are_put_in_the_order_of_episodes_and_times(suffix: str, tmp_path: Path) -> None:
    columns = table_columns(open_table(written(log(), tmp_path / f"log{suffix}")), ROLES)
    assert columns.observations.tolist() == [[1, 2], [4, 5], [7, 8], [3, 6]]
    assert columns.next_observations.tolist() == [[4, 5], [4, 5], [3, 6], [9, 10]]
    assert columns.actions[:, 0].tolist() == pytest.approx([0.5, 0.2, 0.3, 0.1])
    assert columns.rewards.tolist() == [1, 2, 1, 0]
    assert columns.terminations.tolist() == [False, True, False, False]
    assert columns.truncations.tolist() == [False, False, False, True]
    said = "\n".join(columns.notes)
    assert "observation: obs_a, obs_b; action: dose; reward: r; episode: patient" in said
    assert "5 rows: 2 episodes by patient, sorted by t" in said
    assert "gathered the rows of 2 episodes, which were scattered: the first is 'a'" in said
    assert "sorted 2 rows, not in the order of t before" in said
    assert "1 of 2 episodes terminated, by died" in said
    assert "left out the last row of 1 episode that did not terminate" in said
    assert "(rewards of 5 in all)" in said
    assert "1 terminal row without a next observation" in said


def test_known_next_observations_keep_every_row() -> None:
    frame = log().assign(next_a=[10.0, 11, 12, 13, 14], next_b=0.0)
    roles = Roles(
        ["obs_*"], ["dose"], "r", ["next_*"], episode="patient", time="t", terminal="died"
    )
    columns = table_columns(frame_table(frame), roles)
    assert columns.next_observations[:, 0].tolist() == [10, 12, 13, 11, 14]
    assert columns.truncations.tolist() == [False, False, False, False, True]
    assert "left out" not in "\n".join(columns.notes)


def test_without_an_episode_column_terminals_and_timeouts_end_episodes() -> None:
    frame = pd.DataFrame(
        {
            "o": np.arange(6.0),
            "a": 0.5,
            "r": 1.0,
            "end": [0, 1, 0, 0, 0, 0],
            "cut": [0, 0, 0, 1, 0, 0],
        }
    )
    columns = table_columns(
        frame_table(frame), Roles(["o"], ["a"], "r", terminal="end", timeout="cut")
    )
    assert columns.observations[:, 0].tolist() == [0, 1, 2, 4]  # 3 and 5 have no successor
    assert columns.next_observations[:, 0].tolist() == [1, 1, 3, 5]
    assert columns.terminations.tolist() == [False, True, False, False]
    assert columns.truncations.tolist() == [False, False, True, True]
    done = frame_table(frame.assign(end=[0, 1, 0, 1, 0, 0]))  # also at the timeout
    columns = table_columns(done, Roles(["o"], ["a"], "r", terminal="end", timeout="cut"))
    assert columns.terminations.tolist()[3] is True
    assert any("1 row with end and cut both set count as terminal" in n for n in columns.notes)


def test_a_name_alone_stands_for_a_list_of_columns() -> None:
    one = Roles("obs_*", "dose", "r", episode="patient", time="t", terminal="died")
    several = Roles(["obs_*"], ["dose"], "r", episode="patient", time="t", terminal="died")
    first, second = (table_columns(frame_table(log()), roles) for roles in (one, several))
    assert first.observations.tolist() == second.observations.tolist()
    assert first.actions.tolist() == second.actions.tolist()


def test_an_episode_of_one_row_that_is_cut_off_leaves_the_one_before_as_it_is() -> None:
    frame = pd.DataFrame(
        {"e": [1, 1, 2, 3, 3], "o": np.arange(5.0), "a": 0.5, "r": 1.0, "end": [0, 1, 0, 0, 1]}
    )
    columns = table_columns(
        frame_table(frame), Roles(["o"], ["a"], "r", episode="e", terminal="end")
    )
    assert columns.observations[:, 0].tolist() == [0, 1, 3, 4]
    assert columns.terminations.tolist() == [False, True, False, True]
    assert not columns.truncations.any()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("forward", [4, 4, 7, 8, 8]),  # 4 is the mean of 7, 8, 1, 0
        ("mean", [4, 4, 7, 8, 4]),
        ("zero", [0, 0, 7, 8, 0]),
    ],
)
def test_missing_observations_are_imputed_by_a_named_rule(rule: Any, expected: Any) -> None:
    """Forward stays inside an episode, and what is before any value of it is the mean."""
    frame = pd.DataFrame(
        {
            "e": [0, 0, 1, 1, 1, 2, 2],
            "o": [np.nan, np.nan, 7, 8, np.nan, 1, 0],
            "a": 0.5,
            "r": 1.0,
            "end": [0, 1, 0, 0, 1, 0, 1],
        }
    )
    roles = Roles(["o"], ["a"], "r", episode="e", terminal="end")
    columns = table_columns(frame_table(frame), roles, rule)
    assert columns.observations[:5, 0].tolist() == expected
    assert "o: 3 missing values became" in "\n".join(columns.notes)
    with pytest.raises(InputError, match=r"o: missing in row 0 .*one of 3 missing values.*impute"):
        table_columns(frame_table(frame), roles)


def cell(row: int, name: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame[name] = frame[name].astype(object)
        frame.loc[row, name] = value
        return frame

    return change


WRONG = {
    "text among numbers": (cell(3, "obs_b", "high"), r"obs_b: 'high' in row 3 .*expected a number"),
    "a decimal comma": (
        cell(0, "obs_a", "44,4433"),
        r"obs_a: '44,4433' in row 0 .*such as 44\.4433, with a point where .*decimal comma",
    ),
    "no ISO date": (
        cell(0, "t", "01/03/2024"),
        r"t: '01/03/2024' in row 0 .*\(YYYY-MM-DD\)",
    ),
    "a flag in words": (cell(0, "died", "no"), r"died: 'no' in row 0 .*; expected 0 or 1, or true"),
    "another flag in words": (
        cell(2, "died", "no"),
        r"died: 'no' in row 2 .*0 or 1.*, as in",
    ),
    "a reward in words": (
        cell(0, "r", "none"),
        r"r: 'none' in row 0 .*a number such as 1\.5;",
    ),
    "an action in words": (
        cell(0, "dose", "low"),
        r"dose: 'low' in row 0 .*are choices as such",
    ),
    "an infinity": (cell(1, "obs_a", "inf"), r"obs_a: inf in row 1"),
    "beyond float32": (cell(1, "obs_a", 1e39), r"obs_a: 1e\+39 in row 1"),
    "no action": (cell(2, "dose", None), r"dose: missing in row 2"),
    "no reward": (cell(4, "r", None), r"r: missing in row 4"),
    "no episode": (cell(2, "patient", None), r"patient: empty in row 2"),
    "no time": (cell(2, "t", None), r"t: empty in row 2"),
    "no flag": (cell(2, "died", None), r"died: empty in row 2"),
    "another flag": (cell(2, "died", 2), r"died: 2 in row 2 .*expected 0 or 1"),
    "two rows at one time": (cell(1, "t", 3), r"rows 1 and 4 .*same t in episode 'b'"),
    "a terminal row inside": (
        cell(3, "died", 1),
        r"died is 1 in row 3 .*but patient 'b' goes on with row 1",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_wrong_is_named_with_its_row(name: str, suffix: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    frame = change(log())
    if suffix == ".parquet":
        if any(isinstance(value, str) for value in frame.drop(columns="patient").to_numpy().flat):
            pytest.skip("a column of Parquet has one type")
        numbers = [column for column in frame if column != "patient"]
        frame = frame.astype(dict.fromkeys(numbers, "float64"))
    with pytest.raises(InputError, match=message):
        table_columns(open_table(written(frame, tmp_path / f"log{suffix}")), ROLES)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (Roles(["obs*"], ["dosis"], "r"), "unknown column for action 'dosis'; did you mean 'dose'"),
        (Roles(["x_*"], ["dose"], "r"), r"unknown column for observation 'x_\*'"),
        (Roles(["obs_*", "dose"], ["dose"], "r"), "'dose' is observation and action"),
        (Roles(["obs_*"], ["dose"], "obs_*"), "reward: 'obs_.*' fits obs_a, obs_b; expected one"),
        (Roles(["obs_*"], ["dose"], "r"), "nothing says which rows are an episode"),
        (Roles(["obs_*"], ["dose"], "r", ["t"]), "1 columns of next observations, but 2 of"),
        (Roles([], ["dose"], "r"), "observation: no columns"),
        (
            Roles(["patient"], ["dose"], "r", terminal="died"),
            "patient: 'a' near row 0.*leave the",
        ),
        (Roles(["obs_*"], ["dose"], "r", terminal="patient"), "'a' near row 0 .*expected 0 or 1"),
        (
            Roles(["obs_*"], ["dose"], "r", (), "died", "patient"),
            r"'a' near row 0 .*\(YYYY-MM",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(roles: Roles, message: str) -> None:
    with pytest.raises(InputError, match=message):
        table_columns(frame_table(log()), roles)


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ragged.csv").write_text("o,a,r,e\n1,2,3,4\n1,2,3\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "names.csv").write_text("o,a,r,e\n")
    (tmp_path / "twice.csv").write_text("o,a,r,e,o\n1,2,3,4,5\n")
    (tmp_path / "latin.csv").write_bytes("o,a,r,e\n1,2,3,\xe9\n".encode("latin-1"))
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "table.xlsx").touch()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match=path.name):
            table_columns(open_table(path), Roles(["o"], ["a"], "r", episode="e"))
    with pytest.raises(InputError, match="no such file"):
        open_table(tmp_path / "absent.csv")


def test_cells_of_a_csv_file_are_read_by_what_they_are(tmp_path: Path) -> None:
    """Ids keep their zeros, dates sort as such, and numbers may follow empty cells and integers."""
    text = '﻿id;when;o;flag;a;r;end;why\n007;2024-10-02;;true;1;0;0;"two\nlines; quoted"\n'
    text += "7;2024-09-30 12:00;2;false;1;0;1;\n007;2024-10-01;1.5;false;1;0.25;0;\n"
    text += "007;2024-10-03;3;true;1;0;1;\n"
    (tmp_path / "log.csv").write_text(text)
    roles = Roles(["o", "flag"], ["a"], "r", episode="id", time="when", terminal="end")
    columns = table_columns(open_table(tmp_path / "log.csv"), roles, "zero")
    assert columns.observations.tolist() == [[1.5, 0], [0, 1], [3, 1], [2, 0]]
    assert columns.rewards.tolist() == [0.25, 0, 0, 0]


def test_rows_of_many_blocks_are_those_of_pandas(tmp_path: Path) -> None:
    """Against pandas, which sorts and shifts the same rows."""
    rng = np.random.default_rng(0)
    rows = 2 * BLOCK + 17
    frame = pd.DataFrame(rng.normal(size=(rows, 3)).astype(np.float32), columns=["x", "y", "u"])
    frame["e"], frame["r"] = rng.integers(0, 500, rows), rng.normal(size=rows).astype(np.float32)
    frame["t"] = rng.permutation(rows)
    sorted_ = frame.sort_values("t")
    groups = dict(list(sorted_.groupby("e", sort=False)))
    order = list(dict.fromkeys(frame["e"]))
    ours = table_columns(
        open_table(written(frame, tmp_path / "log.csv")),
        Roles(["x", "y"], ["u"], "r", episode="e", time="t"),
    )
    kept = pd.concat([groups[e].iloc[:-1] for e in order])
    after = pd.concat([groups[e].iloc[1:] for e in order])
    assert np.array_equal(ours.observations, kept[["x", "y"]].to_numpy())
    assert np.array_equal(ours.next_observations, after[["x", "y"]].to_numpy())
    assert np.array_equal(ours.rewards, kept["r"].to_numpy())
    assert ours.truncations.sum() == len(order)


def test_a_deposited_set_is_loaded_by_its_card(tmp_path: Path) -> None:
    card = deposit_table(frame_table(log()), ROLES, tmp_path / "mine.toml")
    data = load_dataset(tmp_path / "mine.toml")
    assert (data.card.id, len(data), data.card.expected.transitions) == ("mine", 4, 4)
    assert data.card.expected.mean_return == 2.0
    assert "sorted by t" in card.notes
    expected = table_columns(frame_table(log()), ROLES)
    for name, values in expected.arrays().items():
        assert np.array_equal(getattr(data, name), values), name
    with pytest.raises(InputError, match="is there already"):
        deposit_table(frame_table(log()), ROLES, tmp_path / "mine.toml")
    (tmp_path / "mine.toml").unlink()
    with pytest.raises(InputError, match=r"mine.transitions.parquet: is there already"):
        deposit_table(frame_table(log()), ROLES, tmp_path / "mine.toml")
    with pytest.raises(InputError, match=r"ends in .toml"):
        deposit_table(frame_table(log()), ROLES, tmp_path / "mine.txt")


def test_a_frame_becomes_a_data_set(tmp_path: Path) -> None:
    data = offrl.Dataset.from_frame(
        log(),
        tmp_path / "mine.toml",
        observation=["obs_*"],
        action=["dose"],
        reward="r",
        episode="patient",
        time="t",
        terminal="died",
    )
    assert data.observations.tolist() == [[1, 2], [4, 5], [7, 8], [3, 6]]


def episode(steps: int, seen: int, terminated: bool, start: float = 0) -> dict[str, Any]:
    return {
        "observations": start + np.arange(seen)[:, None] * [1.0, 10.0],
        "actions": np.full((steps, 1), 0.5),
        "rewards": np.ones(steps),
        "terminated": terminated,
    }


def test_episodes_become_a_data_set(tmp_path: Path) -> None:
    """With the last observation, without it, and terminated without it."""
    data = offrl.Dataset.from_episodes(
        [episode(2, 3, False), episode(3, 3, False, 100), episode(2, 2, True, 200)],
        tmp_path / "mine.toml",
    )
    assert data.observations[:, 0].tolist() == [0, 1, 100, 101, 200, 201]
    assert data.next_observations[:, 0].tolist() == [1, 2, 101, 102, 201, 201]
    assert data.terminations.tolist() == [False] * 5 + [True]
    assert data.truncations.tolist() == [False, True, False, True, False, False]
    assert "left out the last row of 1 episode" in data.card.notes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rewards": np.ones(0)}, "episode 0: 0 rewards"),
        ({"observations": np.ones((5, 2))}, "episode 0: 3 rewards and 5 observations"),
        ({"actions": np.ones((2, 1))}, "episode 0: actions: 2 rows"),
        ({"actions": np.ones((3, 1), int)}, "episode 0: actions are int64"),
        ({"observations": np.full((4, 2), np.nan)}, "episode 0: observations: nan in row 0"),
        ({"terminations": [0, 1, 0]}, "episode 0: terminates in step 1 of 3"),
        ({"terminated": None}, "episode 0: has no terminated"),
        ({"observations": [[1.0], [1.0, 2.0], [1.0], [1.0]]}, "episode 0: cannot be read as an"),
        ({"terminated": np.array([True, False])}, "episode 0: terminated: shape"),
        ({"terminated": "no"}, "episode 0: terminated: expected numbers, found <U2"),
    ],
)
def test_episodes_of_another_form_are_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    one = {k: v for k, v in {**episode(3, 4, True), **changed}.items() if v is not None}
    with pytest.raises(InputError, match=message):
        offrl.Dataset.from_episodes([one], tmp_path / "mine.toml")
    assert not list(tmp_path.iterdir())


CHOICES = [
    (["high", "low", "high", "low", "mid"], [0, 1, 0, 1, 2], ["high", "low", "mid"]),
    ([10, 9, 10, 0, 10], [2, 1, 2, 0, 2], ["0", "9", "10"]),  # by number, not as text
    ([1.0, 0.0, 1.0, 0.0, 0.0], [1, 0, 1, 0, 0], ["0", "1"]),
    ([True, False, True, False, False], [1, 0, 1, 0, 0], ["False", "True"]),
]


@pytest.mark.parametrize(("values", "codes", "names"), CHOICES)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_discrete_actions_are_numbers_with_names(
    suffix: str, values: Any, codes: Any, names: Any, tmp_path: Path
) -> None:
    frame = log().assign(dose=values)
    frame["end"] = [0, 0, 1, 0, 1]
    path = written(frame, tmp_path / f"log{suffix}")
    roles = Roles(["obs_*"], ["dose"], "r", episode="patient", terminal="end", discrete=True)
    columns = table_columns(open_table(path), roles)
    assert columns.choices is not None
    assert columns.choices.names == names
    assert columns.actions.dtype == np.int64
    assert columns.actions.tolist() == [codes[k] for k in (0, 2, 1, 3, 4)]
    assert f"one of {len(names)} choices: {', '.join(names)}" in "\n".join(columns.notes)


def test_categories_decimals_and_durations_are_read(tmp_path: Path) -> None:
    rewards: Any = [Decimal("1.25")] * 5  # which the types of pandas do not have
    frame = log().assign(end=[0, 0, 1, 0, 1], r=rewards)
    frame["drug"] = pd.Categorical(["high", "low", "high", "low", "mid"])
    frame["patient"] = frame["patient"].astype("category")
    frame["t"] = pd.to_timedelta(frame["t"], "h")
    path = written(frame, tmp_path / "log.parquet")
    roles = Roles(["obs_*"], ["drug"], "r", (), "patient", "t", "end", discrete=True)
    columns = table_columns(open_table(path), roles)
    assert columns.actions.tolist() == [0, 0, 1, 1, 2]
    assert columns.rewards.tolist() == [1.25] * 5
    assert columns.observations[3:].tolist() == [[3, 6], [9, 10]]


def test_a_category_as_long_as_a_book_is_refused(tmp_path: Path) -> None:
    """Held once, it would stand in each of many rows."""
    book = pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int8), ["x" * 100_000])
    table = pa.table({"drug": book, "r": np.zeros(100_000), "o": np.zeros(100_000)})
    parquet.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"needs 37\.\d GiB of memory, but holds"):
        open_table(tmp_path / "log.parquet")


def test_several_discrete_columns_are_one_choice_among_all_combinations() -> None:
    frame = log().assign(dose=["low", "high", "low", "low", "low"], vent=[1, 1, 0, 0, 1])
    frame["end"] = [0, 0, 1, 0, 1]
    roles = Roles(["obs_*"], ["dose", "vent"], "r", terminal="end", discrete=True)
    columns = table_columns(frame_table(frame), roles)
    assert columns.choices is not None
    assert columns.choices.names == [
        "dose=high, vent=0",
        "dose=high, vent=1",
        "dose=low, vent=0",
        "dose=low, vent=1",
    ]
    assert columns.actions.tolist() == [3, 1, 2, 2, 3]
    assert "one of 4 choices, of which 3 occur" in "\n".join(columns.notes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["low", None, "low", "low", "mid"], "dose: empty in row 1"),
        (["low"] * 5, "dose is 'low' in every row"),
    ],
)
def test_what_is_no_choice_is_refused(values: Any, message: str) -> None:
    roles = Roles(["obs_*"], ["dose"], "r", terminal="died", discrete=True)
    with pytest.raises(InputError, match=message):
        table_columns(frame_table(log().assign(dose=values)), roles)


def test_choices_that_may_be_slips_are_named() -> None:
    drugs = ["low", "Low ", "high", "ＬＯＷ", *["low"] * 40, *["high"] * 40, *["mid"] * 40]
    frame = pd.DataFrame({"o": 0.0, "u": drugs, "v": "0", "r": 0.0, "e": 0})
    frame.loc[::2, "v"], frame.loc[4, "v"] = "1", "1.5"
    roles = Roles(["o"], ["u", "v"], "r", episode="e", discrete=True)
    said = table_columns(frame_table(frame), roles).notes
    assert [note for note in said if note.startswith("look at")] == [
        "look at u, and correct slips: nearly the same, yet choices of their own: 'low' and 'Low ' "
        "and 'ＬＯＷ'",
        "look at u, and correct slips: rare: 'Low ' in 1 row, 'ＬＯＷ' in 1 row",
        "look at v, and correct slips: no whole number, as others are: '1.5'",
        "look at v, and correct slips: rare: '1.5' in 1 row",
    ]
    clean = pd.DataFrame({"o": 0.0, "u": [0.5, 1.5] * 20, "r": 0.0, "e": 0})
    roles = Roles(["o"], ["u"], "r", episode="e", discrete=True)
    assert "look at" not in "".join(table_columns(frame_table(clean), roles).notes)


def test_too_many_choices_are_quantities() -> None:
    frame = pd.DataFrame({"o": 0.0, "u": np.arange(10_001), "r": 0.0, "e": 0})
    roles = Roles(["o"], ["u"], "r", episode="e", discrete=True)
    with pytest.raises(InputError, match="u: 10,001 distinct values make more than 10,000 actions"):
        table_columns(frame_table(frame), roles)


def test_a_discrete_set_is_loaded_with_its_names(tmp_path: Path) -> None:
    frame = log().assign(dose=["low", "high", "low", "low", "mid"], end=[0, 0, 1, 0, 1])
    data = offrl.Dataset.from_frame(
        frame,
        tmp_path / "mine.toml",
        observation=["obs_*"],
        action=["dose"],
        reward="r",
        terminal="end",
        discrete=True,
    )
    assert data.card.actions is not None
    assert (data.action_count, data.card.actions.names) == (3, ["high", "low", "mid"])
    assert data.actions.tolist() == [1, 0, 1, 1, 2]


def test_episodes_with_discrete_actions(tmp_path: Path) -> None:
    one = {**episode(3, 4, True), "actions": np.array([0, 2, 1])}
    named = offrl.Dataset.from_episodes([one], tmp_path / "named.toml", discrete=["a", "b", "c"])
    assert (named.actions.tolist(), named.action_count) == ([0, 2, 1], 3)
    counted = offrl.Dataset.from_episodes([one], tmp_path / "counted.toml", discrete=5)
    assert counted.action_count == 5
    with pytest.raises(InputError, match="episode 0: actions: 2 in row 1"):
        offrl.Dataset.from_episodes([one], tmp_path / "two.toml", discrete=2)
    with pytest.raises(InputError, match="discrete actions: count"):
        offrl.Dataset.from_episodes([one], tmp_path / "one.toml", discrete=["a"])
