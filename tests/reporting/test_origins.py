import math

from offrl.reporting.origins import DISTINCT, origins


def rows(*entries):
    return dict(origins(entries))


def run(algorithm="IQL", seed=0, **values):
    return {"algorithm": algorithm, "dataset": "hopper@1", "seed": seed, **values}


def test_labels_are_listed_once_each():
    shown = rows(run(seed=7), run(seed=8), run("BC", 7), run("BC", 8))
    assert shown == {
        "algorithms": [("IQL, BC", "")],
        "data sets": [("hopper@1", "")],
        "seeds": [("7, 8", "")],
    }


def test_a_value_stands_with_the_runs_that_have_it():
    shown = rows(
        run("IQL", 0, lr=3e-4, protocol="quick@1"),
        run("IQL", 1, lr=3e-4, protocol="quick@1"),
        run("BC", 0, lr=1e-3, protocol="quick@1"),
        run("BC", 1, lr=1e-3, protocol="quick@1"),
    )
    assert shown["lr"] == [("0.0003", "IQL"), ("0.001", "BC")]
    assert shown["protocol"] == [("quick@1", "")]


def test_runs_that_no_label_sets_apart_are_counted():
    shown = rows(run("IQL", 0, machine="a"), run("BC", 1, machine="b"), run("BC", 0, machine="a"))
    assert shown["machine"] == [("a", "seed 0"), ("b", "BC · seed 1")]
    shown = rows(run(seed=0, day="x"), run(seed=0, day="y"))
    assert shown["day"] == [("x", "1 of 2"), ("y", "1 of 2")]


def test_an_algorithm_goes_by_its_label_in_the_table():
    shown = rows(run("IQL", label="IQL (a)", lr=1), run("IQL", label="IQL (b)", lr=2))
    assert shown["lr"] == [("1", "IQL (a)"), ("2", "IQL (b)")]
    assert "label" not in rows(run("IQL", label="IQL"))


def test_sessions_are_laid_side_by_side():
    sessions = [{"started": "9", "versions": {"mujoco": "3.4"}}, {"started": "10", "commit": None}]
    shown = rows(run(sessions=sessions))
    assert shown["started"] == [("9 | 10", "")]
    assert shown["versions"] == [("mujoco = 3.4", "")]
    assert "commit" not in shown


def test_settings_are_written_as_toml_and_what_is_infinite_is_shown():
    shown = rows(run(config={"lr": 3e-4, "net": {"hidden": [8, 8]}, "cut": None, "top": math.inf}))
    text = "lr = 0.0003, net = {hidden = [8, 8]}, cut = none, top = inf"
    assert shown["config"] == [(text, "")]


def test_many_values_are_a_range_or_cut():
    count = DISTINCT + 3
    shown = rows(*(run(seed=k, began=f"{k:02d}:00") for k in range(30)))
    assert shown["began"] == [("00:00 to 29:00", "")]
    shown = rows(*(run(seed=k, group=k // 2) for k in range(2 * count)))
    assert len(shown["group"]) == DISTINCT + 1
    assert shown["group"][0] == ("0", "seed 0, 1")
    assert shown["group"][-1] == ("and 3 more, in summary.json", "")
