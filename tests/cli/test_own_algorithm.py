"""`offrl new algorithm` and `offrl check algorithm`, and that each check sees its mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import BROKEN, Call, files

from offrl.learning import checks
from offrl.learning.battery import Settings, Subject
from offrl.learning.checks import Failed, NotApplicable
from offrl.learning.learner import find_algorithm
from offrl.learning.template import TEMPLATE
from offrl.running.checking import subject_of


def test_a_new_algorithm_is_called_by_its_name(call: Call, tmp_path: Path) -> None:
    made = call("new", "algorithm", "tilted_q")
    assert (made.code, made.stdout) == (0, "tilted_q.py\n")
    text = (tmp_path / "tilted_q.py").read_text()
    assert text.startswith('"""tilted_q: weighted regression')
    algorithm = find_algorithm(str(tmp_path / "tilted_q.py"))
    assert (algorithm.__name__, algorithm.Config.__name__) == ("TiltedQ", "TiltedQConfig")
    assert "my_algo" not in text.lower() + text
    assert call("new", "algorithm", "other", "-o", "there/mine.py").stdout == "there/mine.py\n"
    assert "class Other(" in (tmp_path / "there" / "mine.py").read_text()
    assert "; give" in call("new", "algorithm", "tilted_q").error
    assert (tmp_path / "tilted_q.py").read_text() == text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("my-algo", "expected a Python identifier of at most 60 letters"),
        ("2fast", "expected a Python identifier"),
        ("über", "expected a Python identifier"),
        ("a" * 61, "expected a Python identifier of at most 60 letters"),
        ("../x", "expected a Python identifier"),
        ("lambda", "expected a name that Python leaves free"),
        ("none", "expected a name that Python leaves free"),  # its class would be None
        ("___", "expected a name that Python leaves free"),
        ("iql", "'iql': expected a new name, but offrl has that algorithm"),
        ("types", "'types': expected a new name, but Python has a module types, which types.py"),
        ("__main__", "expected a new name, but Python has a module __main__"),
        ("timeit", "Python has a module timeit, which timeit.py would hide"),
        ("mine -o mine.txt", "mine.txt: expected the name of a .py file; give mine.py"),
        ("mine -o link.py", "link.py: exists, and is left as it is; give another name"),
    ],
)
def test_names_that_cannot_be_used(call: Call, tmp_path: Path, words: str, line: str) -> None:
    (tmp_path / "link.py").symlink_to("nowhere")
    before = files(tmp_path)
    assert line in call("new", "algorithm", *words.split()).error
    assert files(tmp_path) == before


def test_a_check_that_fails_is_a_line_and_an_exit_code(call: Call, tmp_path: Path) -> None:
    """The code raises at once, in every update, and prints, which is no part of the output."""
    raising = "print('noise'); raise RuntimeError"
    (tmp_path / "broken.py").write_text(BROKEN.replace("raise RuntimeError", raising))
    checked = call("check", "algorithm", "broken.py")
    assert checked.code == 1
    first, *_, last = checked.stdout.splitlines()
    assert first == (
        "failed          Metrics have standard names and one finite value a seed: "
        f"{tmp_path}/broken.py, line 17, called by this check: RuntimeError: cannot learn; "
        "expected no error; correct the line"
    )
    assert last == f"{len(checks.CHECKS) - 3} failed, 1 ok, 2 not applicable"
    listed = json.loads(call("check", "algorithm", "broken.py", "--json").stdout)
    assert [finding["check"] for finding in listed] == [each.__name__ for each in checks.CHECKS]
    assert {finding["outcome"] for finding in listed} == {"ok", "failed", "not applicable"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "offrl.SingleSeedLearner, found 0; offrl new algorithm NAME writes one"),
        (BROKEN + "BATTERY = 3\n", "BATTERY is a int; expected a Settings of offrl.learning.batt"),
        (
            BROKEN + "from offrl.learning.battery import Settings\n"
            "BATTERY = Settings(plain={'batch_siez': 3})\n",
            "unknown field of Config in BATTERY 'batch_siez'; did you mean 'batch_size'?",
        ),
        (BROKEN.replace("batch_size", "size"), "batch_size: expected a field of Config"),
    ],
)
def test_a_file_that_cannot_be_checked(call: Call, tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "odd.py").write_text(text)
    assert line in call("check", "algorithm", "odd.py").error


@pytest.mark.parametrize("name", ["nowhere.py", "iql"])
def test_what_is_checked_is_a_file(call: Call, name: str) -> None:
    assert "of a" in call("check", "algorithm", name).error
    assert name in call("check", "algorithm", name).error


SCALED = """
    @classmethod
    def prepare(cls, data, config):
        import dataclasses
        return dataclasses.replace(data, rewards=data.rewards / data.rewards.std())

    def update("""
FINITE = "{key: loss.nan_to_num() for key, loss in losses.items()}"

# One mistake in the template for each check, and what is said of it.
MISTAKES: dict[str, tuple[str, str, str]] = {
    "names_metrics": ('"actor/loss": ', '"cloning": ', "metric 'cloning' is about none of actor"),
    "repeats": ("lr=config.lr", "lr=__import__('random').random()", "differs after 20 updates"),
    "trains_every_parameter": (" + value_loss", "", r"^v\.0\.weight is unchanged after 4 updates"),
    "reads_its_config": ("lr=config.lr", "lr=3e-4", "^lr is never read; expected that it changes"),
    "shows_what_is_not_finite": ('{**losses, "critic/q": q.mean()}', FINITE, "are finite; exp"),
    "imitates": ("(states) - actions", "(states) + actions", "off the one action of the data"),
    "solves_the_chain": (
        "1 - batch.terminations",
        "1.0",
        "state 0 of a chain that ends is 0.6.*expected 0.500",
    ),
    "keeps_episodes_apart": ("\n    def update(", SCALED, "^rewards of the first episode changed"),
    "learns_from_single_rows": ("self.v(states)", "self.v(states / states.std(0))", "equal rows"),
    "bears_actions_beyond_the_bounds": (
        "(states) - actions",
        "(states) - torch.atanh(actions / 2)",
        "is not finite after 20 updates on actions",
    ),
    "replicas_agree": (
        "self.config.beta * (q - v)",
        "CALLS.append(0) or len(CALLS) * (q - v)",
        "differ by .* alone and among three seeds",
    ),
    "carries_on": (
        "    Config = ",
        "    not_restored = frozenset({'actor'})\n    Config = ",
        "^actor.0.weight is another after save and load",
    ),
    "states_its_schedule": ("lr=config.lr", "lr=0.1 / spec.steps", "depends on the number of"),
}


@pytest.mark.parametrize("check", MISTAKES)
def test_each_check_sees_its_mistake(check: str, tmp_path: Path) -> None:
    old, new, said = MISTAKES[check]
    text = TEMPLATE.read_text()
    assert text.count(old) == 1
    path = tmp_path / "my_algo.py"
    path.write_text(text.replace(old, new) + "\n\nCALLS: list[int] = []\n")
    with pytest.raises(Failed, match=said):
        getattr(checks, check)(subject_of(str(path)))


@pytest.mark.parametrize(
    ("check", "settings", "reason"),
    [
        ("imitates", Settings(imitating=None), "nothing in its losses pulls"),
        ("solves_the_chain", Settings(), r"Settings\(plain=...\) does not say"),
        ("parts_and_joins", Settings(), "one seed at a time"),
        ("stays_on_its_device", Settings(), "one seed at a time"),
    ],
)
def test_a_check_that_does_not_apply_says_why(check: str, settings: Any, reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        getattr(checks, check)(Subject.of(find_algorithm(str(TEMPLATE)), settings))
