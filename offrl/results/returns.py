"""Raw returns on the scale of scores, by the reference returns of data sets' cards."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from offrl.data.card import Card, read_card, shipped_cards
from offrl.errors import InputError, unknown
from offrl.results.checks import first_few, label_text, score_column

AUTO = "auto"  # in place of a card: the shipped one of each data set's name


def normalised(
    frame: pd.DataFrame, where: str, cards: Sequence[str], scale: float
) -> tuple[pd.DataFrame, str]:
    """Rows with scores made from their returns, and a note that says by which cards.

    Args:
        frame: rows with a column `return`, which stays, and data sets.
        where: what messages name.
        cards: AUTO, ids of shipped cards, and paths of cards. One that is given for a table of one
            data set is that data set's, whatever its name.
        scale: 100 or 1, the score of the reference's upper end.
    """
    shipped = shipped_cards()
    given: dict[str, Card] = {}
    for name in cards:
        if name == AUTO:
            given = {**shipped, **given}
        elif name in shipped:
            given[name] = shipped[name]
        elif name.endswith(".toml"):
            card = read_card(Path(name))
            given[card.id] = card
        else:
            raise unknown("data set", name, shipped, "or give the path of a card (.toml)")
    names = frame["dataset"].map(label_text)
    datasets = list(dict.fromkeys(names))
    if AUTO not in cards and len(datasets) == len(given) == 1:
        given = {datasets[0]: next(iter(given.values()))}
    missing = [name for name in datasets if name not in given]
    if missing:
        raise InputError(
            f"{where}: returns on {first_few([repr(name)[:60] for name in missing])} have no card "
            "that normalises them; give --normalise CARD.toml, the name that a card has (--rename "
            f"{missing[0]:.60}=ID), or --columns score=NAME where returns are to be compared as "
            "they are"
        )
    # No value of a stranger is a number before it is checked as one.
    returns = score_column(frame.rename(columns={"return": "score"}), where)
    references = {name: _reference(given[name]) for name in datasets}
    low = names.map(lambda name: references[name][0]).to_numpy(float)
    high = names.map(lambda name: references[name][1]).to_numpy(float)
    used = first_few([f"{given[name].id}@{given[name].version}" for name in datasets])
    scores = scale * (returns - low) / (high - low)
    return frame.assign(score=scores), f"returns of {where} are normalised by the cards {used}"


def _reference(card: Card) -> tuple[float, float]:
    """The returns that count as 0 and as the scale's upper end; InputError where it has none."""
    if card.reference is None or card.reference.fault:
        fault = card.reference.fault if card.reference else "its card has no [reference]"
        raise InputError(f"data set {card.id}: {fault}, so no return on it becomes a score")
    return card.reference.min, card.reference.max
