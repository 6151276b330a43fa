"""Random streams: one generator per replica, spawned from the replica's seed and a purpose.

Seed 3 therefore draws the same numbers alone or among ten, and asking for more noise in one place
leaves every other place as it was. Nothing here touches torch's global generator.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from offrl.errors import Damaged


def spawn_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 32-bit seed for one purpose of one run, by numpy's SeedSequence."""
    key = (*purpose.encode(), *indices)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


class Streams:
    """R generators that draw tensors with a leading replica axis.

    Args:
        seeds: one seed per replica.
        purpose: names the use, for example "batches". Two purposes have seeds of their own, which
            are of 32 bits and so agree for one pair in four thousand million.
        device: where the drawn tensors live.
    """

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.seeds = list(seeds)
        self.generators = [
            torch.Generator(self.device).manual_seed(spawn_seed(seed, purpose)) for seed in seeds
        ]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws of shape (R, *shape)."""
        return torch.stack(
            [
                torch.randn(shape, generator=generator, device=self.device)
                for generator in self.generators
            ]
        )

    def uniform(self, *shape: int) -> Tensor:
        """Draws from U(0, 1) of shape (R, *shape), float32."""
        return torch.stack(
            [
                torch.rand(shape, generator=generator, device=self.device)
                for generator in self.generators
            ]
        )

    def integers(self, high: int | Tensor, *shape: int) -> Tensor:
        """Uniform draws from 0..high-1 of shape (R, *shape), int64; or with a bound (R, 1) each."""
        highs = high.flatten().tolist() if isinstance(high, Tensor) else [high] * len(self.seeds)
        return torch.stack(
            [
                torch.randint(bound, shape, generator=generator, device=self.device)
                for bound, generator in zip(highs, self.generators, strict=True)
            ]
        )

    def bernoulli(self, probability: float, *shape: int) -> Tensor:
        """1 with this probability, to within 2^-16, and else 0: float32 of shape (R, *shape)."""
        # Sixteen random bits decide each; drawing a float for each takes five times as long.
        count = math.prod(shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=self.device)
        limit = min(round(probability * 2**16), 2**16 - 1) - 2**15
        draws = [
            words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count] < limit
            for generator in self.generators
        ]
        return torch.stack(draws).view(-1, *shape).to(torch.float32)

    def state_dict(self) -> dict[str, Tensor]:
        """The generators' states, so that a run carries on with the numbers it would have drawn."""
        return {str(r): generator.get_state() for r, generator in enumerate(self.generators)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned. Raises Damaged for anything else."""
        try:
            for r, generator in enumerate(self.generators):
                generator.set_state(state[str(r)].cpu())
        except (LookupError, AttributeError, TypeError, RuntimeError) as error:
            raise Damaged(f"no state of {len(self.generators)} generators: {error!s:.80}") from None

    def split_state(self) -> list[dict[str, Tensor]]:
        """The state of each replica's stream alone."""
        return [{"0": generator.get_state()} for generator in self.generators]

    def join_states(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The state of the streams of R replicas, made of those of each alone."""
        return {str(r): state["0"] for r, state in enumerate(states)}
