"""Random numbers as functions of a key and a counter: Philox4x32-10.

Salmon, Moraes, Dror & Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. A number
depends on its replica's key, the number of its draw and its place in it, and on nothing else: all
replicas draw in one pass, on any device, and the state is the count of draws.

Words and what is made of them by exact operations are the same on every device. Normal numbers are
computed in float64 and rounded, and may differ in their last bit on another device.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF


def keys(seeds: Sequence[int], purpose: str) -> Tensor:
    """Two words for each replica's draws for a purpose, (R, 2), by numpy's SeedSequence."""
    key = tuple(purpose.encode())
    words = [np.random.SeedSequence(seed, spawn_key=key).generate_state(2) for seed in seeds]
    return torch.from_numpy(np.stack(words).astype(np.int64))


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words of a counter of four and a key of two: int64 below 2^32, broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # modulo 2^64
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0,  # the shift keeps the sign
            p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + INCREMENTS[0]) & MASK, (k1 + INCREMENTS[1]) & MASK
    return c0, c1, c2, c3


def words(keys: Tensor, draw: Tensor, count: int) -> Tensor:
    """`count` words for each replica, (R, count), int64 in 0..2^32-1.

    Args:
        keys: shape (R, 2).
        draw: its number, int64 without axes.
        count: of words.
    """
    block = torch.arange(-(-count // 4), device=keys.device).unsqueeze(0)
    zero = torch.zeros_like(block)
    counter = (block, zero + (draw & MASK), zero + (draw >> 32), zero)
    four = philox(counter, (keys[:, :1], keys[:, 1:]))
    return torch.stack(four, -1).flatten(1)[:, :count]


def normal(keys: Tensor, draw: Tensor, count: int) -> Tensor:
    """Standard normal numbers (R, count), float32, by Box and Muller's transform."""
    drawn = words(keys, draw, 2 * -(-count // 2))
    radius = torch.sqrt(-2 * torch.log(((drawn[:, 0::2] >> 8) + 1).to(torch.float64) * 2.0**-24))
    angle = (2 * math.pi * 2.0**-24) * (drawn[:, 1::2] >> 8).to(torch.float64)
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], -1)
    return pairs.flatten(1)[:, :count].to(torch.float32)


def uniform(keys: Tensor, draw: Tensor, count: int) -> Tensor:
    """Numbers from U(0, 1), of 24 bits, (R, count), float32."""
    return (words(keys, draw, count) >> 8).to(torch.float32) * 2.0**-24


def integers(keys: Tensor, draw: Tensor, count: int, high: int | Tensor) -> Tensor:
    """Numbers in 0..high-1, (R, count), int64; each has its share to within high / 2^32.

    `high` is of all replicas, or of each (R, 1).
    """
    return (words(keys, draw, count) * high) >> 32


def bernoulli(keys: Tensor, draw: Tensor, count: int, limit: int) -> Tensor:
    """1 with probability limit / 2^16, else 0, (R, count), float32."""
    drawn = words(keys, draw, -(-count // 2))
    halves = torch.stack([drawn & 0xFFFF, drawn >> 16], -1).flatten(1)[:, :count]
    return (halves < limit).to(torch.float32)
