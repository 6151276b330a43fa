"""The files of a pull request that adds runs to a leaderboard."""

import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offrl.errors import InputError
from offrl.files import below, plain, replacing
from offrl.reporting.submission import TUNING, Submission, read_submission, submission_text
from offrl.reporting.submission_checks import Checked, check_submission
from offrl.results.bundle import SUBMISSION, chosen_runs, pack
from offrl.results.store import StoredRun
from offrl.results.unpacking import opened
from offrl.toml import MOST_BYTES, to_toml

DRAFT = """\
# What a leaderboard says of these runs. Fill in what is empty, then give the same command again.
name = {name}
authors = []  # names of persons or groups
contact = ""  # an address to write to
code = ""  # https://...: where the code of the algorithm is, or offrl if it ships with that
commit = "{commit}"  # of that code
licence = ""  # of that code
# paper = "https://..."
# extra_data = "what was trained on besides the protocol's data sets"
# replaces = "digest of an earlier submission of yours"

[tuning]
{kinds}
kind = ""
settings_tried = 1  # of the algorithm, on these data sets or others like them
online_episodes = 0  # played in simulators to choose among them

[compute]
hours = {hours:.3g}  # of all runs together, as they recorded it
hardware = "{hardware}"
# parameters = 0  # of the networks that act
"""


@dataclass(frozen=True)
class Prepared:
    """A submission that was written: its bundle, and what its check says."""

    path: Path
    checked: Checked


def submit(
    runs: Path,
    name: str,
    about: Path,
    folder: Path,
    *,
    protocols: Sequence[str] = (),
    algorithms: Sequence[str] = (),
    weights: bool = False,
) -> Prepared:
    """Writes a submission of runs into a folder of submissions.

    Args:
        runs: the folder of runs, or a bundle of them.
        name: of its line on the board.
        about: the file that says the rest of submission.toml; a draft is written where there is
            none, and InputError raised.
        folder: of submissions.
        protocols: as in `pack`.
        algorithms: as in `pack`.
        weights: as in `pack`.

    Raises InputError where the submission has faults; then none is written. Those of the runs are
    looked for before a draft is written.
    """
    if runs.suffix == ".zip" and not runs.is_dir():
        with opened(runs) as bundle:
            try:
                return submit(
                    *(bundle.folder, name, about, folder),
                    protocols=protocols,
                    algorithms=algorithms,
                    weights=weights,
                )
            except InputError as error:
                raise InputError(str(error).replace(str(bundle.folder), str(runs))) from None
    chosen: dict[str, Any] = {"protocols": protocols, "algorithms": algorithms, "weights": weights}
    if not about.exists():
        with _checked(runs, None, chosen) as (_, checked):
            faults = [line for line in checked.faults if not line.startswith(f"{SUBMISSION}:")]
        if faults:
            raise InputError("\n".join(faults))
        with replacing(about) as temporary:
            temporary.write_text(draft(runs, name, protocols, algorithms), encoding="utf-8")
        raise InputError(
            f"{about}: a draft was written, with what the runs say; fill in the rest, then give "
            "the same command again"
        )
    submission = _read(about).model_copy(update={"name": name})
    text = submission_text(submission)
    read_submission(text, "--as")
    with _checked(runs, text, chosen) as (trial, checked):
        if checked.faults:
            raise InputError("\n".join(checked.faults))
        of = checked.runs[0].identity
        file = f"{_plain(name)}-{checked.digest[:8]}.zip"
        path = below(folder, plain(of.protocol, str(folder)), file)
        with replacing(path) as temporary:
            temporary.write_bytes(trial.read_bytes())
    return Prepared(path, checked)


@contextmanager
def _checked(
    runs: Path, submission: str | None, chosen: dict[str, Any]
) -> Iterator[tuple[Path, Checked]]:
    """A bundle of runs in a temporary folder, and what its check says."""
    with tempfile.TemporaryDirectory(prefix="offrl-") as scratch:
        trial = Path(scratch) / "submission.zip"
        pack(runs, trial, submission=submission, **chosen)
        yield trial, check_submission(trial)


def draft(
    runs: Path, name: str, protocols: Sequence[str] = (), algorithms: Sequence[str] = ()
) -> str:
    """A draft of submission.toml, with what runs say of themselves."""
    stored = chosen_runs(runs, protocols, algorithms)
    sessions = [s for run in stored if run.record for s in run.record.sessions]
    commits = {str(session.commit or "") for session in sessions}
    (commit,) = commits if len(commits) == 1 else ("",)
    machines = sorted({f"{s.hardware.get('machine', '')} CPU" for s in sessions})
    return DRAFT.format(
        name=_value(name),
        commit=commit if re.fullmatch("[0-9a-f]{40}", commit) else "",
        kinds="\n".join(f"# {kind}: {words}" for kind, words in TUNING.items()),
        hours=_hours(stored),
        hardware=re.sub(r"[^A-Za-z0-9 _.,-]", "", ", ".join(machines))[:100],
    )


def _value(text: str) -> str:
    """A text as a value of TOML."""
    return to_toml({"name": text}).removeprefix("name = ").strip()


def commands(path: Path, name: str) -> list[str]:
    """The git commands that make a pull request of a submission."""
    branch = f"submission-{_plain(name)}"
    return [
        f"git switch -c {branch}",
        f"git add {shlex.quote(str(path))}",
        f"git commit -m 'Submit {_plain(name)}'",
        f"git push -u origin {branch}",
    ]


def _read(about: Path) -> Submission:
    try:
        text = about.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{about}: expected a TOML file, but {why!s:.200}") from None
    if len(text) > MOST_BYTES:
        raise InputError(f"{about}: expected a TOML file of at most {MOST_BYTES:,} bytes")
    return read_submission(text, str(about))


def _hours(stored: Sequence[StoredRun]) -> float:
    """The hours of training and evaluation; runs that trained as one batch took theirs together."""
    took: dict[str, float] = {}
    for run in stored:
        groups = [n.group for n in run.record.numerics[-1:]] if run.record else []
        batch = groups[0] if groups and groups[0] else str(run.path)
        if run.rows:
            took[batch] = max(took.get(batch, 0.0), run.rows[-1].wall_time)
    return sum(took.values()) / 3600


def _plain(name: str) -> str:
    """A name that any file system and shell takes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:60] or "submission"
