"""One bundle made of several, whose runs do not contradict one another."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from offrl.errors import InputError
from offrl.results.bundle import SUBMISSION, write_bundle
from offrl.results.rows import Identity
from offrl.results.unpacking import Bundle, opened

# What all runs share of one view of a data set, and of one algorithm on it under one protocol.
OF_DATA = ("data_sha256", "environment", "reference")
OF_BUDGET = ("steps", "evaluation", "algorithm", "code")


def merge_bundles(paths: Sequence[Path], output: Path) -> int:
    """Writes one bundle of the runs of several; the number of its runs.

    A run that is in several is taken once. Raises InputError where two hold it with another
    content, or two submissions, or where their runs do not belong together: other data under one
    name and version, or another budget under one protocol.
    """
    files: dict[str, bytes | Path] = {}
    owner: dict[str, tuple[Path, str]] = {}
    shared: dict[tuple[str, ...], tuple[Path, str]] = {}
    with ExitStack() as stack:
        bundles = [stack.enter_context(opened(path)) for path in paths]
        for bundle in bundles:
            _check_shared(bundle, shared)
            for name, digest in bundle.files.items():
                first, known = owner.setdefault(name, (bundle.path, digest))
                if known != digest:
                    what = "submission" if name == SUBMISSION else "run"
                    raise InputError(
                        f"{bundle.path}: {name}: another content than in {first}; two bundles that "
                        f"have one {what} agree on it, so leave one of them out"
                    )
                files.setdefault(name, bundle.folder / name)
        write_bundle(output, files)
        return len({run.path.relative_to(b.folder) for b in bundles for run in b.runs})


def _check_shared(bundle: Bundle, shared: dict[tuple[str, ...], tuple[Path, str]]) -> None:
    """Raises InputError where a run has other data, or another budget, than one before it."""
    for run in bundle.runs:
        assert run.record is not None, "bundles hold runs with records"
        of = run.record.identity
        data, cell = (of.dataset, of.view), (of.dataset, of.protocol, of.label)
        for keys, group in ((OF_DATA, data), (OF_BUDGET, cell)):
            values = _values(of, keys)
            where, before = shared.setdefault(group, (bundle.path, values))
            if before != values:
                raise InputError(
                    f"{bundle.path}: runs of {' '.join(group)} with {values:.120}, but in {where} "
                    f"with {before:.120}; they do not belong together"
                )


def _values(identity: Identity, keys: Sequence[str]) -> str:
    values: dict[str, Any] = identity.model_dump(include=set(keys))
    return json.dumps(values, sort_keys=True)
