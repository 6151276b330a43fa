"""The compact letter display, against its definition."""

import itertools
import random
import time

import pytest

from offrl.statistics.letters import letters


def apart_of(*pairs: str) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in pairs}


def test_none_apart_is_one_letter_and_all_apart_one_each():
    assert letters("ABC", ()) == dict.fromkeys("ABC", "a")
    every = apart_of("AB", "AC", "BC")
    assert letters("ABC", every) == {"A": "a", "B": "b", "C": "c"}
    assert letters("A", ()) == {"A": "a"}
    assert letters("", ()) == {}


def test_the_one_between_shares_with_both_of_its_neighbours():
    assert letters("ABC", apart_of("AC")) == {"A": "a", "B": "a b", "C": "b"}


def shares(shown: dict[str, str]) -> set[tuple[str, str]]:
    """The pairs with a letter in common."""
    return {
        (x, y)
        for x, y in itertools.combinations(shown, 2)
        if {*shown[x].split()} & {*shown[y].split()}
    }


def not_apart(names: str, apart: set[frozenset[str]]) -> set[tuple[str, str]]:
    return {two for two in itertools.combinations(names, 2) if frozenset(two) not in apart}


@pytest.mark.parametrize("size", range(2, 6))
def test_every_relation_is_shown_exactly_and_no_letter_is_idle(size):
    """All relations of up to four names, and of five."""
    names = "ABCDE"[:size]
    pairs = list(itertools.combinations(names, 2))
    for chosen in itertools.product((False, True), repeat=len(pairs)):
        apart = {frozenset(two) for two, told in zip(pairs, chosen, strict=True) if told}
        shown = letters(names, apart)
        assert shares(shown) == not_apart(names, apart)
        members: dict[str, set[str]] = {}
        for name, signs in shown.items():
            assert signs
            for sign in signs.split():
                members.setdefault(sign, set()).add(name)
        for one, two in itertools.permutations(members.values(), 2):
            assert not one <= two
        for group in members.values():  # no other name would fit in
            for name in set(names) - group:
                assert any(frozenset((name, other)) in apart for other in group)


def test_many_names_in_any_relation_are_shown_exactly_and_soon():
    draw = random.Random(0)
    names = [f"n{k}" for k in range(50)]
    pairs = list(itertools.combinations(names, 2))
    apart = {frozenset(two) for two in pairs if draw.random() < 0.5}
    began = time.process_time()
    shown = letters(names, apart)
    assert time.process_time() - began < 5
    assert shares(shown) == {two for two in pairs if frozenset(two) not in apart}
