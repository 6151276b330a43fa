"""Trains behaviours for the recipes, with Stable-Baselines3's PPO.

    python benchmarks/behaviours.py Hopper --out FOLDER --minutes 30

A development tool (dependency group `behaviours`), from whose snapshots `benchmarks/recipes.py`
chooses what ships. The body is D4RL's (`offrl.datasets.d4rl_locomotion`). The policy has two layers
of 64 units and is Gaussian before a tanh, so that actions lie in (-1, 1); running means and
deviations, by which training divides observations, are folded into the first layer. Every `--every`
rounds it keeps the policy as `FOLDER/BODY/snapshots/STEPS.npz`, with the returns of its mean
actions and of sampled ones. The same command carries on where it stopped, and may change `--lr`:
the hopper's is 2e-4 after 2,252,800 steps.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

import offrl.datasets.d4rl_locomotion  # noqa: F401  registers the bodies

Array = np.ndarray[Any, Any]
ROUND = 256  # steps of each row between updates
DISCOUNTS = {"Hopper": 0.99, "HalfCheetah": 0.98, "Walker2d": 0.99}


class Rows(VecEnv):  # type: ignore[misc]
    """A lockstep simulator in the terms of Stable-Baselines3, with actions before their tanh."""

    def __init__(self, body: str, rows: int) -> None:
        self.rows = gymnasium.make_vec(f"offrl/{body}-D4RL-v2", num_envs=rows)
        space = self.rows.single_action_space
        observations = self.rows.single_observation_space
        wide = Box(-9, 9, space.shape, np.float32)  # it asks for bounds; tanh(9) is 1 - 3e-8
        super().__init__(rows, Box(-np.inf, np.inf, observations.shape, np.float32), wide)

    def reset(self) -> Array:
        """First observations."""
        return np.asarray(self.rows.reset(seed=self._seeds[0])[0], np.float32)

    def step_async(self, actions: Array) -> None:
        """Keeps what `step_wait` plays."""
        self.actions = np.tanh(actions.astype(np.float64))

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """A step, after which episodes that are over start anew."""
        observations, rewards, ended, cut, _ = self.rows.step(self.actions)
        over = ended | cut
        infos: list[dict[str, Any]] = [{} for _ in over]
        for row in np.flatnonzero(over):
            infos[row]["terminal_observation"] = observations[row].astype(np.float32)
            infos[row]["TimeLimit.truncated"] = bool(cut[row] and not ended[row])
        if over.any():
            observations, _ = self.rows.reset(options={"reset_mask": over})
        return observations.astype(np.float32), rewards.astype(np.float32), over, infos

    def close(self) -> None:
        """Closes the simulator."""
        self.rows.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ARG002
        """Rows have no attributes but for pictures, of which there are none."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing asks for it."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Nothing asks for it."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        """No row is wrapped."""
        return [False] * self.num_envs


def policy_of(model: PPO, normal: VecNormalize) -> dict[str, Array]:
    """The policy's weights (in, out) and biases, for observations as they are."""
    first, second = (
        model.policy.mlp_extractor.policy_net[0],
        model.policy.mlp_extractor.policy_net[2],
    )
    layers = {"first": first, "second": second, "mean": model.policy.action_net}
    found = {}
    for name, layer in layers.items():
        found[f"{name}.weight"] = layer.weight.detach().numpy().T.astype(np.float64)
        found[f"{name}.bias"] = layer.bias.detach().numpy().astype(np.float64)
    deviation = np.sqrt(normal.obs_rms.var + normal.epsilon)
    found["first.weight"] /= deviation[:, None]
    found["first.bias"] -= normal.obs_rms.mean @ found["first.weight"]
    found["log_std"] = model.policy.log_std.detach().numpy()
    return {name: values.astype(np.float32) for name, values in found.items()}


def play(policy: dict[str, Array], body: str, noise: float, episodes: int = 10) -> Array:
    """Returns of the first episode of each row."""
    envs = gymnasium.make_vec(f"offrl/{body}-D4RL-v2", num_envs=episodes)
    rng = np.random.default_rng(0)
    observations, _ = envs.reset(seed=10_000)
    totals, alive = np.zeros(episodes), np.ones(episodes, np.bool_)
    while alive.any():
        hidden = observations
        for name in ("first", "second"):
            hidden = np.maximum(hidden @ policy[f"{name}.weight"] + policy[f"{name}.bias"], 0)
        means = hidden @ policy["mean.weight"] + policy["mean.bias"]
        means += noise * np.exp(policy["log_std"]) * rng.standard_normal(means.shape)
        observations, rewards, terminations, truncations, _ = envs.step(np.tanh(means))
        totals += rewards * alive
        over = terminations | truncations
        alive &= ~over
        if over.any():
            observations, _ = envs.reset(options={"reset_mask": over})
    envs.close()
    return totals


def build(args: argparse.Namespace, folder: Path) -> tuple[PPO, VecNormalize]:
    """The model as it stopped, or a new one."""
    rows = VecMonitor(Rows(args.body, args.rows))
    if (folder / "model.zip").exists():
        normal = VecNormalize.load(str(folder / "normal.pkl"), rows)
        model = PPO.load(folder / "model.zip", env=normal, device="cpu", learning_rate=args.lr)
        return model, normal
    gamma = DISCOUNTS[args.body]
    normal = VecNormalize(rows, gamma=gamma, clip_obs=1e9)
    model = PPO(
        "MlpPolicy",
        normal,
        learning_rate=args.lr,
        n_steps=ROUND,
        batch_size=args.batch,
        n_epochs=args.epochs,
        gamma=gamma,
        gae_lambda=0.95,
        max_grad_norm=0.5,
        policy_kwargs={
            "net_arch": {"pi": [64, 64], "vf": [64, 64]},
            "activation_fn": torch.nn.ReLU,
            "log_std_init": -0.5,
            "optimizer_kwargs": {"fused": True, "eps": 1e-5},
        },
        seed=args.seed,
        device="cpu",
    )
    return model, normal


def main() -> None:
    """Trains for a time and keeps snapshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("body", choices=sorted(DISCOUNTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=int, default=25, help="rounds between snapshots")
    parser.add_argument(
        "--stop-at", type=float, default=np.inf, help="a mean return that is enough"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=4e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.out / args.body
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    model, normal = build(args, folder)
    began, size = time.monotonic(), args.every * ROUND * args.rows
    while time.monotonic() - began < 60 * args.minutes:
        before, cpu = time.monotonic(), time.process_time()
        model.learn(size, reset_num_timesteps=False)
        seconds, cpu = time.monotonic() - before, time.process_time() - cpu
        policy: dict[str, Any] = policy_of(model, normal)
        sampled, mean = play(policy, args.body, 1.0), play(policy, args.body, 0.0)
        steps = model.num_timesteps
        np.savez(folder / "snapshots" / f"{steps:09d}.npz", **policy, sampled=sampled, best=mean)
        row = {"steps": steps, "sampled": sampled.mean(), "mean": mean.mean()}
        row |= {"std": np.exp(policy["log_std"]).mean()}
        row |= {"steps_per_s": size / seconds, "steps_per_cpu_s": size / cpu}
        with (folder / "returns.jsonl").open("a") as file:
            file.write(json.dumps({k: round(float(v), 2) for k, v in row.items()}) + "\n")
        normal.save(str(folder / "normal-new.pkl"))
        model.save(folder / "model-new.zip")
        (folder / "normal-new.pkl").replace(folder / "normal.pkl")
        (folder / "model-new.zip").replace(folder / "model.zip")
        if sampled.mean() >= args.stop_at:
            break


if __name__ == "__main__":
    main()
