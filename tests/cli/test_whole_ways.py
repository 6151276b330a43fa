"""Whole ways through the command line, from data to what can be said of them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from command_line import Call

from offrl import load_dataset

DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"
SMALL = ("--steps", 20, "--every", 10, "--workers", 1)


def write_log(path: Path) -> None:
    """Forty patients of six visits: two readings, one of three treatments by name, an effect."""
    rng = np.random.default_rng(0)
    lines = ["patient,visit,pulse,fever,treatment,effect,died"]
    for patient in range(40):
        for visit in range(6):
            pulse, fever = rng.normal(70, 9), rng.normal(37, 0.7)
            treatment = rng.choice(["none", "low", "high"])
            died = int(visit == 5 and patient % 4 == 0)
            effect = rng.normal(fever > 37) - 5 * died
            lines.append(
                f"p{patient},{visit},{pulse:.3f},{fever:.3f},{treatment},{effect:.3f},{died}"
            )
    path.write_text("\r\n".join(lines) + "\r\n")


def test_a_log_of_discrete_treatments_is_trained_on_with_five_commands(call: Call) -> None:
    """Those of docs/datasets.md, with the protocol that stands there."""
    write_log(Path("log.csv"))
    made = call(
        *("data", "import", "log.csv", "--observation", "pulse", "--observation", "fever"),
        *("--action", "treatment", "--discrete", "--reward", "effect", "--episode", "patient"),
        *("--time", "visit", "--terminal", "died", "--validation", 0.2),
    )
    assert made.code == 0, made.stderr
    assert "168 transitions in 32 episodes of 5 to 6, observations 2, 3 discrete" in made.stdout

    checked = call("data", "check", "log.toml")
    assert checked.code == 0, checked.stderr
    assert "train: 168 transitions, 32 episodes" in checked.stdout
    assert "validation: 42 transitions, 8 episodes" in checked.stdout

    looked = call("data", "stats", "log.toml")
    assert re.search(r"high: \d+\.\d+%, low: \d+\.\d+%,\s+none", looked.stdout), looked.stdout

    (own,) = re.findall(r"^```toml\n(extends = .*?)^```$", DOCS.read_text("utf-8"), re.M | re.S)
    Path("treatments.toml").write_text(own)
    refused = call("run", "discrete-small", "-o", "runs", "--dataset", "log.toml")
    assert "for data of your own: a .toml file with extends, id, version" in refused.error
    trained = call("run", "treatments.toml", "-o", "runs", "--seed", 0, *SMALL)
    assert trained.code == 0, trained.stderr
    assert "3 of 3 runs are done" in " ".join(trained.stdout.split())
    said = " ".join(trained.stderr.split())
    assert "its card has no simulator, so no policy is evaluated" in said

    reported = call("report", "runs", "-o", "report")
    assert reported.code == 0, reported.stderr
    page = Path("report/index.html").read_text(encoding="utf-8")
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    first, second = re.findall(r"<p>(.*?)</p>", body)[:2]
    assert first.startswith("<strong>No policy was evaluated: the data have no simulator")
    assert second.startswith("Losses of different algorithms do not compare")
    for name in ("bc", "percent_bc", "double_dqn"):
        assert name in body
    assert "On the validation split" in body


def test_real_simulator_data_need_no_network_and_five_commands(call: Call) -> None:
    """They are listed, made, checked, trained on and exported."""
    name = "cartpole-small"
    assert name in call("list", "datasets", "--json").stdout
    made = call("data", "make", name)
    assert made.code == 0, made.stderr
    checked = call("data", "check", name)
    assert checked.code == 0, checked.stderr
    assert "transitions" in checked.stdout
    trained = call("train", "bc", name, "-o", "runs", *SMALL, "--episodes", 1)
    assert trained.code == 0, trained.stderr
    assert "1 of 1 runs are done" in " ".join((trained.stdout + trained.stderr).split())
    exported = call("data", "export", name, "--to", "out.parquet")
    assert exported.code == 0, exported.stderr
    data, frame = load_dataset(name), pd.read_parquet("out.parquet")
    assert np.array_equal(data.observations, frame.filter(regex=r"^observation_\d+$"))
    assert np.array_equal(data.rewards, frame["reward"])
