"""Random streams: one generator per replica, spawned from the replica's seed and a purpose.

Seed 3 therefore draws the same numbers alone or among ten, and asking for more noise in one place
leaves every other place as it was. Nothing here touches torch's global generator.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def spawn_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 32-bit seed for one purpose of one run, by numpy's SeedSequence."""
    key = (*purpose.encode(), *indices)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


class Streams:
    """R generators that draw tensors with a leading replica axis.

    Args:
        seeds: one seed per replica.
        purpose: names the use, for example "batches"; two purposes never share numbers.
        device: where the drawn tensors live.
    """

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.generators = [
            torch.Generator(self.device).manual_seed(spawn_seed(seed, purpose)) for seed in seeds
        ]

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal draws of shape (R, *shape)."""
        return torch.stack(
            [
                torch.randn(shape, generator=generator, device=self.device, dtype=dtype)
                for generator in self.generators
            ]
        )

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform draws from 0..high-1 of shape (R, *shape), int64."""
        return torch.stack(
            [
                torch.randint(high, shape, generator=generator, device=self.device)
                for generator in self.generators
            ]
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The generators' states, so that a run carries on with the numbers it would have drawn."""
        return {str(r): generator.get_state() for r, generator in enumerate(self.generators)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state_dict` gave."""
        for r, generator in enumerate(self.generators):
            generator.set_state(state[str(r)].cpu())
