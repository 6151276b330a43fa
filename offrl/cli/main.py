"""The command line, from the list of its commands to its exit codes. Nothing imports it."""

import errno
import io
import logging
import os
import sys
from typing import Annotated, Any

import typer

from offrl.cli import (
    analysis,
    authoring,
    browse,
    data,
    leaderboard,
    papers,
    policies,
    published,
    results,
    running,
    watching,
)
from offrl.cli.console import print_line, print_message
from offrl.errors import InputError
from offrl.version import __version__

app = typer.Typer(
    help="Measure offline reinforcement learning.\n\nExample: offrl run quickstart -o runs",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
THINGS, RUNS, SCORES = "Data sets, algorithms, protocols", "Runs", "Scores"
app.command("list", rich_help_panel=THINGS)(browse.list_names)
app.command(rich_help_panel=THINGS)(browse.show)
app.add_typer(data.app, name="data", rich_help_panel=THINGS)
app.add_typer(authoring.new, name="new", rich_help_panel=THINGS)
app.add_typer(authoring.check, name="check", rich_help_panel=THINGS)
app.command(rich_help_panel=RUNS)(running.run)
app.command(rich_help_panel=RUNS)(running.train)
app.command(rich_help_panel=RUNS)(watching.status)
app.command(rich_help_panel=RUNS)(watching.log)
app.command(rich_help_panel=RUNS)(policies.evaluate)
app.command(rich_help_panel=RUNS)(policies.export)
app.command(rich_help_panel=SCORES)(analysis.scores)
app.command(rich_help_panel=SCORES)(analysis.report)
app.command(rich_help_panel=SCORES)(papers.table)
app.command(rich_help_panel=SCORES)(papers.plot)
app.command(rich_help_panel=SCORES)(analysis.compare)
app.command(rich_help_panel=SCORES)(analysis.budget)
app.command(rich_help_panel=SCORES)(analysis.adastop)
app.command(rich_help_panel=SCORES)(published.reproduce)
app.add_typer(results.app, name="results", rich_help_panel=SCORES)
app.add_typer(leaderboard.app, name="leaderboard", rich_help_panel=SCORES)

ADVICE = {  # what to do about errors of the file system
    errno.EACCES: "give a place that you may read and write",
    errno.EPERM: "give a place that you may read and write",
    errno.EROFS: "give a place that you may read and write",
    errno.ENOSPC: "free some space and give the same command again",
    errno.EEXIST: "a file stands where a folder is needed, so give another place",
    errno.ENOTDIR: "a file stands where a folder is needed, so give another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: "a folder stands where a file is needed, so give another name",
}
INTERRUPTED = 130  # the exit code after Ctrl-C
UsageError: Any = typer.BadParameter.__mro__[1]  # which Typer does not export


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"offrl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command(
    hidden=True,
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
def online() -> None:
    """The former name of `offrl budget`."""
    raise InputError("offrl online is now offrl budget")


class _Log(logging.Handler):
    """Prints what the library logs, a line each, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        print_message(record.getMessage())


def _mend_streams() -> None:
    """Makes what is printed fit any output: one that is closed, or has not all characters."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed; the first number that is free is the one that it had
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> None:
    """Runs the command line. Bad input ends in one line on stderr and exit code 2."""
    _mend_streams()
    logger = logging.getLogger("offrl")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Log) for handler in logger.handlers):
        logger.addHandler(_Log())
    try:
        try:
            code = app(prog_name="offrl", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except InputError as error:
        message = str(error)
    except UsageError as error:
        message = error.format_message()
        if not message:  # no word was given to a group of commands, which then printed its help
            raise SystemExit(2) from None
        if error.ctx is not None:
            end = "" if message.endswith((".", "?")) else "."
            message += f"{end} See {error.ctx.command_path} --help."
    except MemoryError as error:
        message = (
            f"this takes more memory than is free ({str(error) or 'out of memory'}); end other "
            "programs, raise the limit, or give less at once: fewer scores, --reps or --workers"
        )
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            raise SystemExit(1) from None
        message = f"{error.filename or 'file system'}: {error.strerror or error}"
        if error.errno in ADVICE:
            message += f"; {ADVICE[error.errno]}"
    else:
        if code == INTERRUPTED:
            print_message("Interrupted; what was saved stays, and the same command carries on.")
            # Where the interrupt passed an exec() of text, as in the import of a dataclass, CPython
            # would end by the signal in place of the exit code; running text anew clears that.
            exec("")
        raise SystemExit(code or 0)
    print_message(f"error: {' '.join(message.split())}")
    raise SystemExit(2)
