"""Counter-based numbers against Random123's answers, Python's integers and their distributions."""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from offrl.errors import Damaged
from offrl.learning import philox
from offrl.learning.streams import Streams

# Random123, tests/kat_vectors, "philox4x32 10": counter, key, output.
KNOWN = [
    ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def plain(counter: list[int], key: list[int]) -> list[int]:
    """The paper's rounds in Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        low, high = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [
            (high >> 32) ^ c[1] ^ k[0],
            high & 0xFFFFFFFF,
            (low >> 32) ^ c[3] ^ k[1],
            low & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def ours(counter: list[int], key: list[int]) -> list[int]:
    words = [torch.tensor(word) for word in (*counter, *key)]
    drawn = philox.philox(tuple(words[:4]), (words[4], words[5]))
    return [int(word) for word in drawn]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter: str, key: str, output: str) -> None:
    assert ours(numbers(counter), numbers(key)) == numbers(output)


def test_words_are_those_of_python_integers() -> None:
    """The counter is (block, draw, draw >> 32, 0), the key numpy's for a seed and a purpose."""
    rng = random.Random(0)
    for _ in range(50):
        counter, key = ([rng.getrandbits(32) for _ in range(n)] for n in (4, 2))
        assert ours(counter, key) == plain(counter, key)
    draw = 5 * 2**32 + 7
    drawn = philox.words(philox.keys([3, 11], "noise"), torch.tensor(draw), 10)
    for r, seed in enumerate((3, 11)):
        sequence = np.random.SeedSequence(seed, spawn_key=tuple(b"noise"))
        key = [int(word) for word in sequence.generate_state(2)]
        blocks = [plain([block, 7, 5, 0], key) for block in range(3)]
        assert drawn[r].tolist() == [*itertools.chain(*blocks)][:10]


def counted(seeds: list[int], purpose: str = "noise", draws: int = 0) -> Streams:
    """Streams that draw on the CPU what they would on a GPU."""
    streams = Streams(seeds, purpose)
    streams.load_state_dict({"draws": torch.tensor(draws)})
    return streams


def drawn(streams: Streams) -> list[Tensor]:
    return [
        streams.normal(5, 3),
        streams.uniform(7),
        streams.integers(1000, 9),
        streams.bernoulli(0.5, 3, 11),
        streams.normal(5, 3),
    ]


def test_a_replica_draws_the_same_numbers_alone_or_among_others() -> None:
    together = drawn(counted([4, 0, 9]))
    for r, seed in enumerate((4, 0, 9)):
        for a, b in zip(together, drawn(counted([seed])), strict=True):
            assert torch.equal(a[r], b[0])


def test_no_two_draws_purposes_or_replicas_agree() -> None:
    first = drawn(counted([4, 5]))
    assert not torch.equal(first[0], first[4])
    assert not torch.equal(first[0][0], first[0][1])
    assert not torch.equal(first[0], drawn(counted([4, 5], "batches"))[0])


def test_the_state_is_the_number_of_draws() -> None:
    streams = counted([4, 5])
    drawn(streams)
    state = streams.state_dict()
    assert state["draws"].item() == 5
    assert state.keys() == {"draws"}
    expected = drawn(streams)
    for a, b in zip(drawn(counted([4, 5], draws=5)), expected, strict=True):
        assert torch.equal(a, b)
    generators = Streams([4, 5], "noise").state_dict()
    streams.load_state_dict(generators)
    assert torch.equal(streams.normal(3), Streams([4, 5], "noise").normal(3))
    with pytest.raises(Damaged, match="no state of 2 generators"):
        streams.load_state_dict({"0": generators["0"]})
    with pytest.raises(Damaged, match="no state of 2 generators"):
        streams.load_state_dict({"draws": torch.zeros(2)})


def test_shapes_and_types_are_those_of_generators() -> None:
    for a, b in zip(drawn(counted([1, 2])), drawn(Streams([1, 2], "noise")), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype


def test_numbers_are_distributed_as_they_should_be() -> None:
    """Moments within five standard errors, and chi-square below its quantile of 99.9 %."""
    streams, n = counted([0, 1]), 200_000
    z = streams.normal(n).double().numpy().ravel()
    count = z.size
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / count)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5 / math.sqrt(count)
    share = np.mean(z > 1.6448536269514722)
    assert abs(share - 0.05) < 5 * math.sqrt(0.05 * 0.95 / count)
    u = streams.uniform(n)
    assert 0 <= u.min() < u.max() < 1
    cells = np.bincount((u.numpy().ravel() * 16).astype(int), minlength=16)
    assert ((cells - count / 16) ** 2 / (count / 16)).sum() < 37.7
    whole = np.bincount(streams.integers(10, n).numpy().ravel(), minlength=10)
    assert len(whole) == 10
    assert ((whole - count / 10) ** 2 / (count / 10)).sum() < 27.9
    for p in (0.9, 0.25):
        mean = streams.bernoulli(p, n).double().mean().item()
        assert abs(mean - p) < 5 * math.sqrt(p * (1 - p) / count)
    assert streams.bernoulli(1.0, 1000).mean() > 0.99


def test_each_replica_has_its_own_bound() -> None:
    high = torch.tensor([[3], [1000]])
    for streams in (counted([0, 1]), Streams([0, 1], "noise")):
        values = streams.integers(high, 2000)
        assert set(values[0].tolist()) == {0, 1, 2}
        assert 900 < values[1].max() < 1000
    alone = Streams([1], "noise").integers(1000, 50)
    assert torch.equal(Streams([0, 1], "noise").integers(high, 50)[1], alone[0])


def test_another_device_draws_by_counting_and_starts_from_the_same_weights() -> None:
    streams = Streams([0, 1], "noise", "meta")
    assert streams.state_dict().keys() == {"draws"}
    assert streams.normal(2, 3).device.type == "meta"
    assert streams.generators[0].device.type == "cpu"
    assert torch.equal(
        streams.generators[1].get_state(), Streams([1], "noise").generators[0].get_state()
    )
