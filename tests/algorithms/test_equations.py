"""Each algorithm against a plain restatement of its paper's equations, in float64.

Same initial weights, same batches, same noise, a few updates: all parameters and targets agree to
1e-9. The restatements know no replica axis, use torch's own layers and one optimiser per network,
and share no code with the algorithms.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from offrl.algorithms import bc, iql, td3_bc
from offrl.learning.batch import Batch
from offrl.learning.learner import Learner
from offrl.learning.networks import MLP
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams

SPEC = Spec(
    observation_dim=4,
    action_dim=2,
    max_action=1.0,
    steps=10,  # so that the cosine decay shows within a few updates
    observation_mean=np.array([0.1, -0.2, 0.3, 0.0], np.float32),
    observation_std=np.array([1.0, 2.0, 0.5, 1.5], np.float32),
)
SEED, UPDATES, SIZE = 3, 6, 8
Net = list[tuple[Tensor, Tensor]]


def in_float64(learner: Learner) -> Learner:
    """The same learner in double precision."""
    for value in vars(learner).values():
        if isinstance(value, torch.nn.Module):
            value.double()
        elif isinstance(value, Tensor) and value.is_floating_point():
            value.data = value.data.double()
    return learner


def copied(mlp: MLP, member: int | None = None) -> Net:
    """A network's weights as leaves of their own, in torch's layout (out, in)."""
    layers = []
    for weight, bias in zip(mlp.weights, mlp.biases, strict=True):
        w, b = (weight[0], bias[0]) if member is None else (weight[0, member], bias[0, member])
        layers.append(
            (w.detach().T.clone().requires_grad_(), b.detach()[0].clone().requires_grad_())
        )
    return layers


def forward(net: Net, x: Tensor, activation: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
    for weight, bias in net[:-1]:
        x = activation(F.linear(x, weight, bias))
    return F.linear(x, *net[-1])


def optimizer(net: Net, lr: float, *more: Tensor) -> torch.optim.Adam:
    return torch.optim.Adam([*(p for layer in net for p in layer), *more], lr=lr)


def descend(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()
    adam.step()


def mix(target: Net, source: Net, tau: float) -> None:
    with torch.no_grad():
        for old, new in zip(target, source, strict=True):
            for t, s in zip(old, new, strict=True):
                t.copy_(tau * s + (1 - tau) * t)


def batches() -> list[Batch]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((1, SIZE, *shape)))

    return [
        Batch(
            observations=normal(4),
            actions=torch.from_numpy(rng.uniform(-1, 1, (1, SIZE, 2))),
            rewards=normal(),
            next_observations=normal(4),
            terminations=torch.from_numpy((rng.random((1, SIZE)) < 0.3).astype(float)),
        )
        for _ in range(UPDATES)
    ]


def agree(found: MLP, expected: Net, member: int | None = None) -> None:
    for (w, b), (v, c) in zip(copied(found, member), expected, strict=True):
        torch.testing.assert_close(w, v, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(b, c, rtol=1e-9, atol=1e-12)


def standardised(x: Tensor) -> Tensor:
    mean, std = (torch.from_numpy(v) for v in (SPEC.observation_mean, SPEC.observation_std))
    # The learner keeps 1 / (std + 1e-3) in float32, as its training does.
    return (x - mean.double()) * (1 / (std + 1e-3)).double()


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation": "leaky_relu", "output": "linear", "normalize": False}],
    ids=["corl", "neorl2"],
)
def test_bc(changes: dict[str, Any]) -> None:
    config = bc.BCConfig(hidden=(8, 8), **changes)
    learner = in_float64(bc.BC(SPEC, config, [SEED]))
    assert isinstance(learner, bc.BC)
    actor = copied(learner.actor)
    adam = optimizer(actor, 3e-4)
    for batch in batches():
        learner.update(batch)
        if changes:
            out = forward(actor, batch.observations[0], lambda x: F.leaky_relu(x, 0.1))
        else:
            out = torch.tanh(forward(actor, standardised(batch.observations[0])))
        descend(adam, F.mse_loss(out, batch.actions[0]))
    agree(learner.actor, actor)


@pytest.mark.parametrize("normalize", ["all", "actor"])
def test_td3_bc(normalize: Any) -> None:
    config = td3_bc.TD3BCConfig(actor_hidden=(8, 8), critic_hidden=(8, 8), normalize=normalize)
    learner = in_float64(td3_bc.TD3BC(SPEC, config, [SEED]))
    assert isinstance(learner, td3_bc.TD3BC)
    noise = Streams([SEED], "policy noise")
    for_critic = standardised if normalize == "all" else lambda x: x

    actor, target_actor = copied(learner.actor), copied(learner.actor)
    q1, q2 = copied(learner.critic, 0), copied(learner.critic, 1)
    target_q1, target_q2 = copied(learner.critic, 0), copied(learner.critic, 1)
    adams = [optimizer(net, 3e-4) for net in (actor, q1, q2)]
    for t, batch in enumerate(batches(), 1):
        learner.update(batch)
        o, a, next_o = batch.observations[0], batch.actions[0], batch.next_observations[0]
        with torch.no_grad():
            eps = (0.2 * noise.normal(SIZE, 2)[0]).clamp(-0.5, 0.5)
            next_a = (torch.tanh(forward(target_actor, standardised(next_o))) + eps).clamp(-1, 1)
            x = torch.cat([for_critic(next_o), next_a], 1)
            smaller = torch.min(forward(target_q1, x), forward(target_q2, x))[:, 0]
            y = batch.rewards[0] + 0.99 * (1 - batch.terminations[0]) * smaller
        x = torch.cat([for_critic(o), a], 1)
        descend(adams[1], F.mse_loss(forward(q1, x)[:, 0], y))
        descend(adams[2], F.mse_loss(forward(q2, x)[:, 0], y))
        if t % 2 == 0:
            pi = torch.tanh(forward(actor, standardised(o)))
            q = forward(q1, torch.cat([for_critic(o), pi], 1))
            scale = 2.5 / q.abs().mean().detach()
            descend(adams[0], -scale * q.mean() + F.mse_loss(pi, a))
            for target, net in ((target_actor, actor), (target_q1, q1), (target_q2, q2)):
                mix(target, net, 0.005)
    agree(learner.actor, actor)
    agree(learner.target_actor, target_actor)
    for member, (critic, target) in enumerate([(q1, target_q1), (q2, target_q2)]):
        agree(learner.critic, critic, member)
        agree(learner.target_critic, target, member)


@pytest.mark.parametrize("normalize", [False, True])
def test_iql(normalize: bool) -> None:
    config = iql.IQLConfig(hidden=(8, 8), normalize=normalize)
    learner = in_float64(iql.IQL(SPEC, config, [SEED]))
    assert isinstance(learner, iql.IQL)
    seen = standardised if normalize else lambda x: x

    v, actor = copied(learner.vf), copied(learner.actor)
    q1, q2 = copied(learner.critic, 0), copied(learner.critic, 1)
    target_q1, target_q2 = copied(learner.critic, 0), copied(learner.critic, 1)
    log_std = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    v_adam, q1_adam, q2_adam = (optimizer(net, 3e-4) for net in (v, q1, q2))
    actor_adam = optimizer(actor, 3e-4, log_std)
    weights = []
    for t, batch in enumerate(batches()):
        learner.update(batch)
        s, next_s, a = (
            seen(batch.observations[0]),
            seen(batch.next_observations[0]),
            batch.actions[0],
        )
        x = torch.cat([s, a], 1)
        with torch.no_grad():
            target = torch.min(forward(target_q1, x), forward(target_q2, x))[:, 0]
        u = target - forward(v, s)[:, 0]
        descend(v_adam, ((0.7 - (u < 0).double()).abs() * u**2).mean())
        with torch.no_grad():
            weight = torch.exp(3 * (target - forward(v, s)[:, 0])).clamp(max=100)
            y = batch.rewards[0] + 0.99 * (1 - batch.terminations[0]) * forward(v, next_s)[:, 0]
        weights.append(weight)
        policy = torch.distributions.Normal(torch.tanh(forward(actor, s)), log_std.exp())
        actor_adam.param_groups[0]["lr"] = 3e-4 * (1 + math.cos(math.pi * t / SPEC.steps)) / 2
        descend(actor_adam, -(weight * policy.log_prob(a).sum(1)).mean())
        descend(q1_adam, F.mse_loss(forward(q1, x)[:, 0], y))
        descend(q2_adam, F.mse_loss(forward(q2, x)[:, 0], y))
        mix(target_q1, q1, 0.005)
        mix(target_q2, q2, 0.005)
    assert torch.cat(weights).std() > 0.1  # else the weights would go untested
    agree(learner.vf, v)
    agree(learner.actor, actor)
    torch.testing.assert_close(learner.log_std.detach()[0, 0], log_std.detach(), rtol=1e-9, atol=0)
    for member, (q, target_q) in enumerate([(q1, target_q1), (q2, target_q2)]):
        agree(learner.critic, q, member)
        agree(learner.target_critic, target_q, member)


def test_iql_clips_actions_to_the_bound_of_the_environment() -> None:
    """At a bound of 2 an action of 1.5 is data, and one of 2 is moved inside by a hair."""
    spec = dataclasses.replace(SPEC, max_action=2.0)

    def critic_after(action: float) -> Tensor:
        learner = iql.IQL(spec, iql.IQLConfig(hidden=(8, 8)), [SEED])
        batch = batches()[0]
        actions = torch.full_like(batch.actions, action)
        columns = vars(batch).items()
        single: dict[str, Any] = {k: v if v is None else v.float() for k, v in columns}
        learner.update(Batch(**{**single, "actions": actions.float()}))
        weights: Tensor = learner.critic.weights[0].detach()
        return weights

    assert not torch.equal(critic_after(1.5), critic_after(1.0))
    assert torch.equal(critic_after(2.0), critic_after(2.5))
