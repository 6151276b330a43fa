"""All findings on what a data set's columns hold, of either split."""

import dataclasses

from offrl.data.contents import Limits, content_findings, leak_finding
from offrl.data.dataset import Dataset
from offrl.data.ends import end_findings
from offrl.data.findings import Finding
from offrl.data.jumps import Jumps, jumps
from offrl.progress import Progress


def examine(
    dataset: Dataset,
    limit: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> tuple[list[Finding], Jumps]:
    """Findings on a data set and its validation split, and the scores of its own steps.

    Args:
        dataset: what is examined.
        limit: the step limit of its simulator, if known.
        limits: of its simulator's actions, low and high by dimension, if known.
        progress: called with the rows that were looked at and their number.
    """
    scores = jumps(dataset, progress)
    findings = [*end_findings(dataset, limit, scores), *content_findings(dataset, limits)]
    held_out = dataset.validation
    if held_out is not None:
        of_split = [
            *end_findings(held_out, limit, jumps(held_out)),
            *content_findings(held_out, limits),
        ]
        findings += [dataclasses.replace(finding, split="validation") for finding in of_split]
        findings.append(leak_finding(dataset, held_out))
    return findings, scores
