"""Windows against plain loops over episodes."""

from typing import Literal

import numpy as np
import pytest
import torch

from offrl.data.transitions import Transitions
from offrl.learning.batch import Windows
from offrl.learning.sampler import WindowSampler

LENGTHS = (1, 4, 9, 1, 3)  # of the episodes; the third terminates, the last has no flag at its end
ROWS = sum(LENGTHS)
EPISODE = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
STEP = np.concatenate([np.arange(length) for length in LENGTHS])


def data() -> Transitions:
    """Observations (episode, step), actions 10 * episode + step, random rewards."""
    ends = np.cumsum(LENGTHS) - 1
    truncations = np.zeros(ROWS, np.float32)
    truncations[ends[[0, 1, 3]]] = 1
    terminations = np.zeros(ROWS, np.float32)
    terminations[ends[2]] = 1
    observations = np.stack([EPISODE, STEP], 1).astype(np.float32)
    return Transitions(
        observations=observations,
        actions=(10 * EPISODE + STEP).astype(np.float32)[:, None],
        rewards=np.random.default_rng(0).standard_normal(ROWS, dtype=np.float32),
        next_observations=observations,
        terminations=terminations,
        truncations=truncations,
    )


def windows(
    length: int,
    padding: Literal["left", "right"] = "left",
    seeds: tuple[int, ...] = (0,),
    batch_size: int = 200,
) -> Windows:
    return WindowSampler(data(), batch_size, length, padding, seeds).sample()


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("length", [1, 3, 5, 20])
def test_a_window_is_a_stretch_of_one_episode_and_zeros(
    length: int, padding: Literal["left", "right"]
) -> None:
    """Twenty steps are more than any episode has."""
    rewards = data().rewards.astype(np.float64)
    batch = windows(length, padding)
    seen = set()
    for b in range(200):
        window = batch.replica(0)
        real = np.flatnonzero(window.mask[b])
        assert list(real) == list(range(real[0], real[-1] + 1))
        if len(real) < length:
            assert real[-1] == length - 1 if padding == "left" else real[0] == 0
        episode, first = window.observations[b, real[0]].int().tolist()
        seen.add((episode, first))
        assert len(real) == min(length, LENGTHS[episode] - first)
        for k in range(length):
            if k not in real:
                for name in ("observations", "actions", "rewards", "returns_to_go", "timesteps"):
                    assert not getattr(window, name)[b, k].any()
                continue
            step = first + k - real[0]
            row = sum(LENGTHS[:episode]) + step
            to_go = sum(rewards[i] for i in range(row, sum(LENGTHS[: episode + 1])))
            assert window.observations[b, k].tolist() == [episode, step]
            assert window.actions[b, k].item() == 10 * episode + step
            assert window.rewards[b, k].item() == rewards[row]
            assert window.timesteps[b, k].item() == step
            assert window.returns_to_go[b, k].item() == pytest.approx(to_go, abs=1e-6)
    assert len(seen) == ROWS  # every step of every episode starts a window now and then


def test_first_steps_are_uniform_over_the_data() -> None:
    """An episode is drawn in proportion to its length: chi-square over all rows, 17 degrees."""
    batch = windows(1, batch_size=18_000)
    episode, step = batch.observations[0, :, 0].int().numpy().T
    counts = np.bincount(np.cumsum((0, *LENGTHS))[episode] + step, minlength=ROWS)
    assert counts.sum() == 18_000
    assert ((counts - 1000) ** 2 / 1000).sum() < 40.8  # the quantile of 99.9 %


def test_both_paddings_hold_the_same_steps() -> None:
    left, right = windows(4, "left"), windows(4, "right")
    assert (left.mask.sum(-1) < 4).any()
    for name in ("observations", "actions", "rewards", "returns_to_go", "timesteps"):
        a, b = getattr(left, name), getattr(right, name)
        assert torch.equal(a[left.mask > 0], b[right.mask > 0])


def test_a_replica_draws_the_same_windows_alone_or_among_others() -> None:
    together, alone = windows(4, seeds=(3, 7)), windows(4, seeds=(7,))
    assert torch.equal(together.observations[1], alone.observations[0])
    assert not torch.equal(together.observations[0], together.observations[1])


def test_resuming_draws_the_windows_that_would_have_come() -> None:
    straight = WindowSampler(data(), 8, 4, "left", (0, 1))
    straight.sample()
    state = straight.state_dict()
    expected = straight.sample()
    resumed = WindowSampler(data(), 8, 4, "left", (0, 1))
    resumed.load_state_dict(state)
    found = resumed.sample()
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value), name
