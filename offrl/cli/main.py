"""The command line. It sits on top of everything; nothing imports it."""

import errno
import logging
import os
import sys

from offrl.cli import analysis, browse, data, running  # noqa: F401 (they add their commands)
from offrl.cli.console import app, data_app, err
from offrl.errors import InputError

app.add_typer(data_app, name="data")


ADVICE = {  # what to do about errors of the file system
    errno.EACCES: "give a place that you may read and write",
    errno.EPERM: "give a place that you may read and write",
    errno.EROFS: "give a place that you may read and write",
    errno.ENOSPC: "free some space and give the same command again",
    errno.EEXIST: "a file stands where a folder is needed, so give another place",
    errno.ENOTDIR: "a file stands where a folder is needed, so give another place",
    errno.EISDIR: "a folder stands where a file is needed, so give another name",
}


class _Log(logging.Handler):
    """Prints what the library logs, a line each, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command line. Bad input ends in one line on stderr and exit code 2."""
    logger = logging.getLogger("offrl")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Log) for handler in logger.handlers):
        logger.addHandler(_Log())
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except InputError as error:
        message = str(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            raise SystemExit(1) from None
        message = f"{error.filename or 'file system'}: {error.strerror or error}"
        if error.errno in ADVICE:
            message += f"; {ADVICE[error.errno]}"
    else:
        return
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)
