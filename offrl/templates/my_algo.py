"""my_algo: weighted regression on an in-sample advantage; put your own losses in their place."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import offrl
from offrl.learning.battery import Settings


@dataclass(frozen=True)
class MyAlgoConfig:
    """Every field can be set in a protocol, or by `offrl train --set KEY=VALUE`."""

    batch_size: int = 256
    lr: float = 3e-4
    gamma: float = 0.99
    beta: float = 3.0  # inverse temperature of the weights
    expectile: float = 0.7  # of the values: 0.5 is the mean, towards 1 the maximum


# With these settings the critic estimates the data's own return, so that a chain is solved.
BATTERY = Settings(plain={"expectile": 0.5, "lr": 5e-3})  # for `offrl check algorithm`


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of 128."""
    layers = [nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, outputs))


class MyAlgo(offrl.SingleSeedLearner):
    """One seed, plainly written; networks, optimisers and counters are saved without a word."""

    Config = MyAlgoConfig

    def __init__(self, spec: offrl.Spec, config: MyAlgoConfig, seed: int, device: str = "cpu"):
        self.config, self.max_action = config, spec.max_action
        self.q = mlp(spec.observation_dim + spec.action_dim, 1).to(device)
        self.v = mlp(spec.observation_dim, 1).to(device)
        self.actor = mlp(spec.observation_dim, spec.action_dim).to(device)
        parameters = [p for net in (self.q, self.v, self.actor) for p in net.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=config.lr)

    def update(self, batch: offrl.Batch) -> dict[str, Tensor]:
        states, actions, continues = batch.observations, batch.actions, 1 - batch.terminations
        q = self.q(torch.cat([states, actions], -1)).squeeze(-1)
        v = self.v(states).squeeze(-1)
        with torch.no_grad():
            next_v = self.v(batch.next_observations).squeeze(-1)
            target_q = batch.rewards + self.config.gamma * continues * next_v
            weight = torch.exp(self.config.beta * (q - v)).clamp(max=100)
        critic_loss = (q - target_q).square().mean()
        diff = q.detach() - v
        expectile = torch.where(diff > 0, self.config.expectile, 1 - self.config.expectile)
        value_loss = (expectile * diff.square()).mean()
        actor_loss = (weight * (self.act(states) - actions).square().mean(-1)).mean()
        self.optimizer.zero_grad()
        (critic_loss + value_loss + actor_loss).backward()
        self.optimizer.step()
        losses = {"critic/loss": critic_loss, "value/loss": value_loss, "actor/loss": actor_loss}
        return {**losses, "critic/q": q.mean()}

    def act(self, observations: Tensor) -> Tensor:
        return self.max_action * torch.tanh(self.actor(observations))
