"""Random streams: numbers of each replica's own, spawned from its seed and a purpose.

Seed 3 therefore draws the same numbers alone or among ten, and asking for more noise in one place
leaves every other place as it was. Nothing here touches torch's global generator.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offrl.errors import Damaged
from offrl.learning import philox

log = logging.getLogger(__name__)

BLOCK = 8  # the most numbers that one counter gives


def spawn_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 32-bit seed for one purpose of one run, by numpy's SeedSequence."""
    key = (*purpose.encode(), *indices)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


class Streams:
    """Draws tensors with a leading replica axis.

    On a CPU each replica has a generator. On another device numbers are functions of the seed, the
    purpose and the count of draws, for all replicas in one pass, and a CUDA graph that holds a draw
    draws anew at each replay.

    Args:
        seeds: one seed per replica.
        purpose: names the use, for example "batches". Two purposes have seeds of their own, which
            are of 32 bits and so agree for one pair in four thousand million.
        device: where the drawn tensors live.

    Attributes:
        generators: of each replica, on the CPU, which draw initial weights for every device.
    """

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.generators = [
            torch.Generator().manual_seed(spawn_seed(seed, purpose)) for seed in seeds
        ]
        self._keys = philox.keys(seeds, purpose).to(self.device)
        self._draws: Tensor | None = None  # made so far, where they are counted
        if self.device.type != "cpu":
            self._draws = torch.zeros((), dtype=torch.int64, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws of shape (R, *shape)."""
        if self._draws is not None:
            return self._counted(philox.normal, shape)
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])

    def uniform(self, *shape: int) -> Tensor:
        """Draws from U(0, 1) of shape (R, *shape), float32."""
        if self._draws is not None:
            return self._counted(philox.uniform, shape)
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators])

    def integers(self, high: int | Tensor, *shape: int) -> Tensor:
        """Uniform draws from 0..high-1 of shape (R, *shape), int64; or with a bound (R, 1) each."""
        if self._draws is not None:
            return self._counted(philox.integers, shape, high)
        replicas = len(self.generators)
        highs = high.flatten().tolist() if isinstance(high, Tensor) else [high] * replicas
        pairs = zip(highs, self.generators, strict=True)
        return torch.stack([torch.randint(bound, shape, generator=g) for bound, g in pairs])

    def bernoulli(self, probability: float, *shape: int) -> Tensor:
        """1 with this probability, to within 2^-16, and else 0: float32 of shape (R, *shape)."""
        # Sixteen random bits decide each; drawing a float for each takes five times as long.
        limit = min(round(probability * 2**16), 2**16 - 1)
        if self._draws is not None:
            return self._counted(philox.bernoulli, shape, limit)
        count = math.prod(shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64)
        draws = [
            words.random_(-(2**63), None, generator=g).view(torch.int16)[:count] < limit - 2**15
            for g in self.generators
        ]
        return torch.stack(draws).view(-1, *shape).to(torch.float32)

    def _counted(self, draw: Callable[..., Tensor], shape: tuple[int, ...], *more: Any) -> Tensor:
        assert self._draws is not None
        # Whole blocks, without gradients: a compiled function is compiled anew for what differs.
        count = math.prod(shape)
        with torch.no_grad():
            numbers = _fast(draw, self._keys, self._draws, -(-count // BLOCK) * BLOCK, *more)
        self._draws += 1
        return numbers[:, :count].reshape(-1, *shape)

    def held(self) -> dict[str, Tensor]:
        """The tensors, by name, that stay from draw to draw and are changed in place."""
        return {} if self._draws is None else {"draws": self._draws}

    def state_dict(self) -> dict[str, Tensor]:
        """What drawing changes, so that a run carries on with the numbers it would have drawn.

        The generators' states by replica; or `draws`, the count of them.
        """
        if self._draws is not None:
            return {"draws": self._draws.clone()}
        return {str(r): generator.get_state() for r, generator in enumerate(self.generators)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores what `state_dict` returned; that of a GPU carries on the same on a CPU.

        Where generators drew on a CPU and another device carries on, its first draws follow.
        Raises Damaged for anything else.
        """
        try:
            if "draws" in state:
                draws = state["draws"].to(self.device, torch.int64).view(())
                self._draws = draws.clone() if self._draws is None else self._draws.copy_(draws)
                return
            self._draws = None if self.device.type == "cpu" else torch.zeros_like(self._keys[0, 0])
            for r, generator in enumerate(self.generators):
                generator.set_state(state[str(r)].cpu())
        except (LookupError, AttributeError, TypeError, RuntimeError) as error:
            raise Damaged(f"no state of {len(self.generators)} generators: {error!s:.80}") from None

    def split_state(self) -> list[dict[str, Tensor]]:
        """The state of each replica's stream alone."""
        if self._draws is not None:
            return [self.state_dict() for _ in self.generators]
        return [{"0": generator.get_state()} for generator in self.generators]

    def join_states(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The state of the streams of R replicas, made of those of each alone.

        Raises ValueError where they have drawn different numbers of times, or in different ways.
        """
        if all("0" in state for state in states):
            return {str(r): state["0"] for r, state in enumerate(states)}
        draws = {int(state["draws"]) if "draws" in state else None for state in states}
        if len(draws) > 1:
            raise ValueError("replicas differ in how often they have drawn")
        return {"draws": states[0]["draws"].clone()}


_compiled: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}


def _fast(function: Callable[..., Tensor], keys: Tensor, *arguments: Any) -> Tensor:
    """The function's value, on a GPU as one kernel where torch can compile it."""
    if keys.device.type != "cuda":
        return function(keys, *arguments)
    if function not in _compiled:
        _compiled[function] = torch.compile(function, dynamic=True)
    try:
        return _compiled[function](keys, *arguments)
    except Exception as error:  # no compiler, or one that fails: torch has no one kind for these
        reason = " ".join(str(error).split())
        log.warning("random numbers are drawn uncompiled, which is slower: %.200s", reason)
        _compiled[function] = function
        return function(keys, *arguments)
