"""Algorithm, data set and seed from the names of runs, as trackers of experiments hold them."""

import re
from collections.abc import Sequence

from offrl.data.card import shipped_cards
from offrl.errors import InputError
from offrl.results.checks import first_few

FIELDS = ("algorithm", "dataset", "seed")
EXAMPLE = "{algorithm}-{dataset}-{seed}"
LONGEST = 200  # characters of a name: a pattern may try many ways to divide it
# Separator, then a seed's number with or without a word for it. Eight hexadecimal digits are an id.
_SEED = re.compile(r"(?:^|[-_ /.=])(?:seed|s|run)?[-_ =]?([0-9]{1,7})$", re.IGNORECASE)
_EDGES = "-_ /.=:"


def pattern_of(template: str) -> re.Pattern[str]:
    """A template such as EXAMPLE as a regular expression; `{}` stands for anything.

    Raises InputError for a field that is none of FIELDS, or is there twice.
    """
    parts = re.split(r"\{([a-z]*)\}", template)
    fields = parts[1::2]
    wrong = [name for name in fields if name and name not in FIELDS]
    twice = [name for name in FIELDS if fields.count(name) > 1]
    if wrong or twice or not any(fields):
        fault = f"{{{wrong[0]}}}" if wrong else f"{{{twice[0]}}} twice" if twice else "no field"
        raise InputError(
            f"run name {template!r:.80}: {fault}; expected some of "
            f"{', '.join(f'{{{name}}}' for name in FIELDS)} once each, and {{}} for the rest, as "
            f"in {EXAMPLE}"
        )
    expression = ""
    for k, part in enumerate(parts):
        if k % 2 == 0:
            expression += re.escape(part)
        elif part == "seed":
            expression += "(?P<seed>[0-9]{1,18})"
        else:
            expression += f"(?P<{part}>.+?)" if part else ".*?"
    return re.compile(expression, re.DOTALL)


def has_seed(name: str) -> bool:
    """Whether a name ends in a seed, such as iql-0 or bc_seed3."""
    return _SEED.search(name) is not None


def labels_by_template(names: Sequence[str], template: str, where: str) -> list[dict[str, str]]:
    """The labels that each name holds by a template; InputError for a name that does not fit.

    Where several ways to divide a name fit, the one whose data set is a card's is taken, and the
    one with the shortest first part otherwise.
    """
    general = pattern_of(template)
    cards = sorted(shipped_cards(), key=len, reverse=True) if "{dataset}" in template else []
    known = general.pattern.replace(
        "(?P<dataset>.+?)", f"(?P<dataset>{'|'.join(map(re.escape, cards))})"
    )
    labels, lacking = [], []
    for name in names:
        short = name if len(name) <= LONGEST else ""
        fit = (cards and re.fullmatch(known, short, re.DOTALL)) or general.fullmatch(short)
        labels.append(fit.groupdict() if fit else {})
        if not fit:
            lacking.append(name)
    if lacking:
        raise InputError(
            f"{where}: the run {lacking[0]!r:.80} does not fit {template!r:.80}"
            f"{f' (nor do {len(lacking) - 1} others)' if lacking[1:] else ''}; give --run-name "
            f"another template, such as '{EXAMPLE}'"
        )
    return labels


def labels_by_cards(names: Sequence[str], wanted: Sequence[str]) -> list[dict[str, str]] | None:
    """The labels of names that hold the id of a card, or of which the algorithm alone is wanted.

    Before the card's id stands the algorithm; a number after it is the seed. None where a name
    gives no algorithm or no data set that is wanted.
    """
    cards = sorted(shipped_cards(), key=len, reverse=True)
    found = []
    for name in names:
        labels = dict[str, str]()
        rest = name
        if "dataset" in wanted:
            dataset = next((card for card in cards if card in name), None)
            if dataset is None:
                return None
            labels["dataset"] = dataset
            rest, _, after = name.partition(dataset)
            if seed := _SEED.search(after):
                labels["seed"] = seed[1]
        elif seed := _SEED.search(name):
            labels["seed"] = seed[1]
            rest = name[: seed.start()]
        if "algorithm" in wanted:
            labels["algorithm"] = rest.strip(_EDGES)
            if not labels["algorithm"]:
                return None
        found.append(labels)
    return found


def no_labels(names: Sequence[str], wanted: Sequence[str], where: str) -> InputError:
    """The error for names from which the labels that are wanted cannot be read."""
    constant = "dataset" if "dataset" in wanted else "algorithm"
    return InputError(
        f"{where}: the names of runs do not say their {' and '.join(wanted)} in a known way "
        f"({first_few([repr(name)[:60] for name in names])}); say how they are made, as in "
        f"--run-name '{EXAMPLE}' (and {{}} for other parts), or give what all of them share, as in "
        f"--fill {constant}=NAME"
    )
