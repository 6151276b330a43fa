"""Decision Transformer: its loss by hand, what each token may see, and how its policy acts."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from battery import Settings
from torch import Tensor

from offrl.algorithms.decision_transformer import (
    LAST_STATE_TOKEN,
    STATE_TOKENS,
    DecisionTransformer,
    DecisionTransformerConfig,
    cloning_loss,
)
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.batch import Windows
from offrl.learning.networks import Linear
from offrl.learning.optim import clip
from offrl.learning.policy import Policy
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams

BATTERY = Settings(
    small={
        "target_returns": (10.0, 5.0),
        "return_scale": 10.0,
        "context": 4,
        "embedding": 16,
        "layers": 1,
        "warmup": 10,
        "batch_size": 16,
    },
    variants=({"padding": "right", "average_over": "all steps"},),
)
SPEC = Spec(3, 2, 2.0, 1000, np.full(3, 0.5, np.float32), np.full(3, 2.0, np.float32))
SMALL: dict[str, Any] = {
    "target_returns": (20.0, 40.0),
    "return_scale": 10.0,
    "context": 4,
    "max_episode_steps": 12,
    "embedding": 16,
    "layers": 2,
    "heads": 2,
}


def learner(seeds: tuple[int, ...] = (0,), **changes: Any) -> DecisionTransformer:
    config = DecisionTransformerConfig(**{**SMALL, **changes})
    made = DecisionTransformer(SPEC, config, seeds)
    with torch.no_grad():  # the authors' initial weights are too small for attention to tell
        for block in made.transformer.blocks.parameters():
            block.mul_(10)
    return made


def predict(of: DecisionTransformer, windows: Windows, at: slice = STATE_TOKENS) -> Tensor:
    with torch.no_grad():
        return of.predict(windows, lambda x: x, at)


def windows(replicas: int = 1, batch: int = 5, steps: int = 4) -> Windows:
    """Full windows of random numbers."""
    generator = torch.Generator().manual_seed(0)
    shape = (replicas, batch, steps)

    def normal(*more: int) -> Tensor:
        return torch.randn(*shape, *more, generator=generator)

    return Windows(
        observations=normal(3),
        actions=normal(2).tanh(),
        rewards=normal(),
        returns_to_go=10 * normal(),
        timesteps=torch.arange(steps).expand(shape) + 2,
        mask=torch.ones(shape),
    )


def rolled(full: Windows, places: int, filler: float) -> Windows:
    """The windows without their last steps, moved to the right and filled up on the left."""

    def roll(column: Tensor) -> Tensor:
        moved = column.roll(places, 2).clone()
        moved[:, :, :places] = filler if column.is_floating_point() else 0
        return moved

    moved = Windows(**{name: roll(value) for name, value in vars(full).items()})
    moved.mask[:, :, :places] = 0
    return moved


def test_loss_is_the_mean_over_real_steps_or_over_all() -> None:
    """Three of four steps are real, with squared errors (1 + 9) / 2, 4 and 0 per dimension."""
    actions = torch.zeros(1, 2, 2, 2)
    predictions = torch.tensor([[[[1.0, 3.0], [2.0, -2.0]], [[0.0, 0.0], [100.0, 7.0]]]])
    mask = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    assert cloning_loss(predictions, actions, mask).item() == pytest.approx((5 + 4 + 0) / 3)
    loss = cloning_loss(predictions, actions, mask, "all steps")
    assert loss.item() == pytest.approx((5 + 4 + 0) / 4)


@pytest.mark.parametrize("column", ["observations", "actions", "returns_to_go"])
def test_an_action_depends_on_what_was_before_it_alone(column: str) -> None:
    """On states and returns up to its own step, and on earlier actions, its own not included."""
    model, full = learner(), windows()
    changed = getattr(full, column).clone()
    changed[:, :, 2] += 1
    before = predict(model, full)
    after = predict(model, dataclasses.replace(full, **{column: changed}))
    same = (before == after).all(-1).all(1)[0]
    first = 3 if column == "actions" else 2
    assert same[:first].all()
    assert not same[first:].any()


def test_the_timestep_and_the_history_count() -> None:
    model, full = learner(), windows()
    later = dataclasses.replace(full, timesteps=full.timesteps + 1)
    assert (predict(model, full) != predict(model, later)).any()
    forgotten = dataclasses.replace(full, mask=(torch.arange(4) > 1).float().expand(1, 5, 4))
    assert (predict(model, full)[:, :, -1] != predict(model, forgotten)[:, :, -1]).all()


@pytest.mark.parametrize("filler", [0.0, -10.0, 1e3])
def test_padding_on_either_side_and_of_any_content_is_not_seen(filler: float) -> None:
    """Loss and parameters after an update on the same steps, filled up on the left or right."""
    full = windows()
    real = torch.arange(4) < 3
    right = dataclasses.replace(full, mask=real.float().expand(1, 5, 4))
    left = rolled(full, 1, filler)
    models = [learner(dropout=0.0, warmup=1) for _ in range(2)]
    losses = [
        model.update(batch)["actor/loss"]
        for model, batch in zip(models, (left, right), strict=True)
    ]
    torch.testing.assert_close(*losses)
    a, b = (dict(model.transformer.named_parameters()) for model in models)
    for name, value in a.items():
        if not name.endswith("key.bias"):  # it has no effect, and rounding for a gradient
            torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-6)


def play(policy: Policy, observations: Tensor, rewards: Tensor, restarts: dict[int, int]) -> Tensor:
    """Actions (steps, E, action_dim) where slot `restarts[t]` begins an episode before step t."""
    steps, slots = rewards.shape
    policy.begin(torch.ones(1, slots, dtype=torch.bool))
    actions = []
    for t in range(steps):
        if t in restarts:
            policy.begin(torch.arange(slots).eq(restarts[t]).unsqueeze(0))
        actions.append(policy.act(observations[None, t])[0])
        policy.reward(rewards[None, t])
    return torch.stack(actions)


def test_the_policy_acts_as_the_model_on_the_window_of_its_last_steps() -> None:
    """Its returns-to-go start at the target and lose each reward; earlier steps are forgotten."""
    model = learner()
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(9, 1, 3, generator=generator)
    rewards = torch.randn(9, 1, generator=generator)
    actions = play(model.policy(), observations, rewards, {})
    to_go = 40 - torch.cat([torch.zeros(1), rewards[:, 0].cumsum(0)])[:9]
    for t in range(9):
        last = slice(max(t - 3, 0), t + 1)
        count = t + 1 - last.start
        window = Windows(
            observations=observations[last, 0].view(1, 1, count, 3),
            actions=actions[last, 0].view(1, 1, count, 2)
            * (torch.arange(count) < count - 1)[:, None],
            rewards=rewards[last].view(1, 1, count),
            returns_to_go=to_go[last].view(1, 1, count),
            timesteps=torch.arange(9)[last].view(1, 1, count),
            mask=torch.ones(1, 1, count),
        )
        expected = predict(model, window, LAST_STATE_TOKEN)[0, 0]
        torch.testing.assert_close(actions[t], expected, rtol=1e-4, atol=1e-5)
        in_training = predict(model, window)[0, 0, -1:]
        torch.testing.assert_close(expected, in_training, rtol=1e-4, atol=1e-5)


def test_only_the_slot_whose_episode_begins_starts_anew() -> None:
    model = learner()
    generator = torch.Generator().manual_seed(2)
    observations = torch.randn(8, 2, 3, generator=generator)
    rewards = torch.randn(8, 2, generator=generator)
    restarted = play(model.policy(), observations, rewards, {3: 1})
    straight = play(model.policy(), observations, rewards, {})
    fresh = play(model.policy(), observations[3:], rewards[3:], {})
    torch.testing.assert_close(restarted[:, 0], straight[:, 0])
    torch.testing.assert_close(restarted[:3, 1], straight[:3, 1])
    torch.testing.assert_close(restarted[3:, 1], fresh[:, 1])
    assert (restarted[3:, 1] != straight[3:, 1]).any()


def test_steps_beyond_the_timestep_table_share_its_last_row() -> None:
    model = learner()
    observations = torch.randn(30, 1, 3, generator=torch.Generator().manual_seed(3))
    actions = play(model.policy(), observations, torch.zeros(30, 1), {})
    window = Windows(
        observations=observations[None, -4:, 0].unsqueeze(0),
        actions=actions[None, -4:, 0].unsqueeze(0),
        rewards=torch.zeros(1, 1, 4),
        returns_to_go=torch.full((1, 1, 4), 40.0),
        timesteps=torch.full((1, 1, 4), SMALL["max_episode_steps"] - 1),
        mask=torch.ones(1, 1, 4),
    )
    expected = predict(model, window)[0, :, -1]
    torch.testing.assert_close(actions[-1], expected, rtol=1e-4, atol=1e-5)


def test_every_target_has_a_policy_and_the_highest_stands_for_the_run() -> None:
    model = learner(target_returns=(6000.0, 12000.0, 0.5))
    policies = model.policies()
    assert list(policies) == ["", "target 2", "target 3"]
    observations, rewards = torch.ones(1, 1, 3), torch.zeros(1, 1)
    actions = {name: play(policy, observations, rewards, {}) for name, policy in policies.items()}
    alone = learner(target_returns=(12000.0,)).policy()
    assert torch.equal(actions[""], play(alone, observations, rewards, {}))
    assert not torch.equal(actions[""], actions["target 3"])


def episodes(lengths: tuple[int, ...], rewards: Any = 1.0) -> Transitions:
    rows = sum(lengths)
    ends = np.zeros(rows, np.float32)
    ends[np.cumsum(lengths) - 1] = 1
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((rows, 3), dtype=np.float32)
    return Transitions(
        observations=observations,
        actions=rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rewards=np.broadcast_to(np.float32(rewards), (rows,)),
        next_observations=observations,
        terminations=np.zeros(rows, np.float32),
        truncations=ends,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_returns": (5.0, 5.0)}, r"target_returns = \[5.0, 5.0\] names a return twice"),
        ({"target_returns": ()}, r"target_returns is empty.* \[7, 3\.5\]"),
        ({"max_episode_steps": 6}, "has 7 steps, but max_episode_steps = 6; raise it"),
        ({"heads": 3}, "embedding = 16 cannot be shared among heads = 3"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    data = episodes((3, 7))
    DecisionTransformer.prepare(data, DecisionTransformerConfig(**SMALL))
    with pytest.raises(InputError, match=message):
        DecisionTransformer.prepare(data, DecisionTransformerConfig(**{**SMALL, **changes}))


def test_a_window_longer_than_any_episode_is_refused() -> None:
    """A policy keeps a window of so many steps, however small its weights are."""
    with pytest.raises(InputError, match="context = 13 is longer than any episode, max_episode"):
        learner(context=13)
    assert learner(context=12).config.context == 12


def test_the_target_decides_between_two_behaviours() -> None:
    """Episodes of return 10 act +0.5 and those of return 0 act -0.5, in the same states."""
    data = episodes((5,) * 40)
    good = np.repeat(np.arange(40) % 2, 5).astype(np.float32)
    data = dataclasses.replace(
        data,
        actions=np.repeat((good - 0.5)[:, None], 2, 1),
        rewards=2 * good,
    )
    config = DecisionTransformerConfig(
        **{**SMALL, "target_returns": (10.0, 0.0), "actor_lr": 3e-3, "warmup": 20}
    )
    model = DecisionTransformer(SPEC, config, [0])
    sampler = model.sampler(data, config, [0], "cpu")
    for _ in range(250):
        model.update(sampler.sample())
    starts = torch.as_tensor(data.observations[::5]).unsqueeze(0)
    for name, expected in (("", 0.5), ("target 2", -0.5)):
        policy = model.policies()[name]
        policy.begin(torch.ones(1, 40, dtype=torch.bool))
        assert (policy.act(starts) - expected).abs().mean() < 0.1


def test_the_learning_rate_rises_over_the_warm_up() -> None:
    model = learner(actor_lr=1e-3, warmup=4)
    rates = []
    for _ in range(6):
        model.update(windows())
        rates.append(model.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])


def test_first_weights_are_those_of_either_code() -> None:
    """N(0, 0.02) in GPT-2's blocks; CORL's queries are uniform in sqrt(6 / (4 * 128))."""
    wide = {"embedding": 128, "heads": 1}
    ours, corl = (
        dict(
            DecisionTransformer(
                SPEC, DecisionTransformerConfig(**{**SMALL, **wide, "initialisation": choice}), [0]
            ).transformer.named_parameters()
        )
        for choice in ("authors", "corl")
    )
    in_blocks = [ours[f"blocks.0.{layer}.weight"] for layer in ("query", "out", "expand")]
    in_blocks += [corl[f"blocks.0.{layer}.weight"] for layer in ("out", "contract")]
    for weight in in_blocks:
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert not any(ours[f"blocks.0.{layer}.bias"].any() for layer in ("query", "out", "expand"))
    assert ours["timesteps"].std().item() == pytest.approx(1, rel=0.1)
    assert corl["timesteps"].std().item() == pytest.approx(0.02, rel=0.1)
    assert 0.9 < ours["embed_state.weight"].abs().max().item() * 3**0.5 <= 1
    assert ours["embed_state.bias"].any()
    assert not corl["embed_state.bias"].any()
    bound = (6 / 512) ** 0.5
    assert 0.99 < corl["blocks.0.key.weight"].abs().max().item() / bound <= 1
    assert corl["blocks.0.value.weight"].std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_each_replica_has_its_gradient_clipped_by_its_own_norm() -> None:
    """As torch.nn.utils.clip_grad_norm_ does for one network; a short gradient stays."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([3.0, 0.01])
    gradients = [
        torch.randn(2, *shape, generator=generator) * size.view(2, *[1] * len(shape))
        for shape in ((4, 5), (1, 5), (3,))
    ]
    expected = []
    for r in range(2):
        parameters = [torch.nn.Parameter(torch.zeros(g.shape[1:])) for g in gradients]
        own = [gradient[r].clone() for gradient in gradients]
        for parameter, gradient in zip(parameters, own, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters, 0.25)  # in place
        expected.append(own)
    before = [g.clone() for g in gradients]
    clip(gradients, 0.25)
    for k, gradient in enumerate(gradients):
        torch.testing.assert_close(gradient, torch.stack([row[k] for row in expected]))
        assert torch.equal(gradient[1], before[k][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("relu", [True, False])
def test_a_layer_and_its_gradients_are_those_of_torch(dtype: torch.dtype, relu: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Linear(2, 3, 4, "cpu").to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    x = torch.randn(2, 5, 9, 3, generator=generator, dtype=dtype).requires_grad_()
    weights = torch.randn(2, 5, 3, 4, generator=generator, dtype=dtype)
    inputs = [x, *layer.parameters()]
    out = layer(x[:, :, 1::3], relu)
    found = torch.autograd.grad((out * weights).sum(), inputs)
    plain = x[:, :, 1::3] @ layer.weight.unsqueeze(1) + layer.bias.unsqueeze(1)
    plain = plain.relu() if relu else plain
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(found, torch.autograd.grad((plain * weights).sum(), inputs))


def test_bernoulli_draws_have_the_probability_and_know_nothing_of_one_another() -> None:
    """Sixteen bits of one random word decide each of four draws: none may lean on its neighbour."""
    draws = Streams([3], "dropout").bernoulli(0.9, 1000, 401)
    assert draws.unique().tolist() == [0, 1]
    flat = draws.flatten().double() - 0.9
    assert flat.mean().abs() < 5 * 0.3 / 401_000**0.5
    for lag in (1, 2, 3, 4):
        correlation = (flat[lag:] * flat[:-lag]).mean() / 0.09
        assert correlation.abs() < 5 / 401_000**0.5
    together = Streams([1, 3], "dropout").bernoulli(0.9, 1000, 401)
    assert torch.equal(together[1], draws[0])
    assert not torch.equal(together[0], draws[0])


def test_dropout_is_for_training_alone() -> None:
    model = learner(dropout=0.5)
    first, second = (model.predict(windows(), model._drop, STATE_TOKENS) for _ in range(2))
    assert (first != second).any()
    assert torch.equal(predict(model, windows()), predict(model, windows()))
    x = torch.ones(1, 100, 100)
    dropped = model._drop(x)
    assert dropped.unique().tolist() == [0, 2]
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
