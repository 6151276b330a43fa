"""The battery: what every algorithm has to hold to, a function each, whose docstring says what."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offrl.errors import InputError
from offrl.learning import checkpoint
from offrl.learning.battery import (
    Subject,
    chain,
    data,
    named_parameters,
    parameters,
    spec_of,
    watched,
)
from offrl.learning.learner import Learner
from offrl.learning.meta import staying_on
from offrl.learning.sampler import whole
from offrl.learning.single import build, schedule_of
from offrl.learning.spec import WatchedSpec
from offrl.learning.state import join, split

Check = Callable[[Subject], None]
AXIS = ("actor", "critic", "value", "alpha", "validation")  # what a metric is about
KEEP = "keep all that training changes in attributes of the learner"


class Failed(InputError):
    """An algorithm does not hold to a check: what was seen, what was expected, what to do."""


class NotApplicable(InputError):
    """A check says nothing about this algorithm; the message is why."""


def repeats(subject: Subject) -> None:
    """Two runs of a seed are bit-equal, and those of two seeds are not."""
    first, again, other = (subject.trained(data(), [seed], 20)[0] for seed in (3, 3, 4))
    if name := difference(first, again):
        raise Failed(
            f"{name} differs after 20 updates of one seed; expected the same bits; draw from "
            "torch's global generator, or from streams of the seed, and from nothing else"
        )
    if not difference(first, other):
        raise Failed("seeds 3 and 4 are equal after 20 updates; expected others; use the seed")


def replicas_agree(subject: Subject) -> None:
    """Seeds that train together match the same seeds alone."""
    seeds = [3, 0, 11]
    together, _ = subject.trained(data(), seeds, 30)
    observations = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1))
    actions = acted(together, observations)
    for r, seed in enumerate(seeds):
        alone, _ = subject.trained(data(), [seed], 30)
        if issubclass(subject.algorithm, Learner):
            _expect_near(together, r, alone, rtol=1e-3, atol=1e-5)
        own = acted(alone, observations[r : r + 1])[0]
        if not torch.allclose(actions[r].double(), own.double(), rtol=1e-3, atol=1e-4):
            raise Failed(
                f"actions of seed {seed} differ by {_gap(actions[r], own):.2g}, alone and among "
                "three seeds; expected the same to rounding; keep the replicas' numbers apart"
            )


def carries_on(subject: Subject) -> None:
    """Save, load and go on gives, bit for bit, what not stopping gives."""
    straight, _ = subject.trained(data(), [5, 6], 41)
    learner, sampler = subject.trained(data(), [5, 6], 20)
    resumed, resumed_sampler = subject.untrained(data(), [5, 6])
    if not difference(resumed, learner):
        raise Failed("20 updates changed nothing that is saved; expected trained networks; " + KEEP)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        checkpoint.save(path, {"learner": learner.state_dict(), "sampler": sampler.state_dict()})
        state = checkpoint.load(path)
    resumed.load_state_dict(state["learner"])
    resumed_sampler.load_state_dict(state["sampler"])
    if name := difference(resumed, learner):
        raise Failed(f"{name} is another after save and load; expected the same bits; {KEEP}")
    for _ in range(21):
        resumed.update(resumed_sampler.sample())
    if name := difference(resumed, straight):
        raise Failed(
            f"{name} differs from a run that never stopped; expected the same bits; {KEEP}"
        )


def parts_and_joins(subject: Subject) -> None:
    """Replicas part and join without a trace."""
    if not issubclass(subject.algorithm, Learner):
        raise NotApplicable("it trains one seed at a time")
    seeds = [5, 6, 7]
    together, sampler = subject.trained(data(), seeds, 11)
    learned, drawn = split(together, 3), split(sampler, 3)
    apart = [subject.untrained(data(), [seed]) for seed in seeds]
    for r, (learner, own_sampler) in enumerate(apart):
        learner.load_state_dict(learned[r])
        own_sampler.load_state_dict(drawn[r])
    joined, joined_sampler = subject.untrained(data(), seeds)
    joined.load_state_dict(join([learner for learner, _ in apart]))
    joined_sampler.load_state_dict(join([sampler for _, sampler in apart]))
    advice = "expected the same bits; give every tensor that training changes a replica axis"
    if name := difference(joined, together):
        raise Failed(f"{name} is another after parting and joining; {advice}")
    for _ in range(3):
        together.update(sampler.sample())
        joined.update(joined_sampler.sample())
    if name := difference(joined, together):
        raise Failed(f"{name} differs three updates after parting and joining; {advice}")
    for r, (learner, own_sampler) in enumerate(apart):
        for _ in range(3):
            learner.update(own_sampler.sample())
        _expect_near(joined, r, learner, rtol=1e-4, atol=1e-6)


def states_its_schedule(subject: Subject) -> None:
    """The number of steps changes updates by a stated schedule alone."""
    config = subject.config()
    prepared = subject.algorithm.prepare(subject.suited(data()), config)
    ended, schedules = [], set()
    for steps in (8, 1000):
        spec = WatchedSpec.of(dataclasses.replace(spec_of(prepared), steps=steps))
        learner = build(subject.algorithm, spec, config, [3])
        schedules.add(schedule_of(subject.algorithm, learner, spec))
        sampler = subject.algorithm.sampler(prepared, config, [3], "cpu")
        for _ in range(6):
            learner.update(sampler.sample())
        ended.append(learner)
    stated = subject.algorithm.schedule
    if schedules != {stated}:
        raise Failed(
            f"{', '.join(schedules - {stated})} depends on the number of steps; expected that the "
            'class says so; write `schedule = "the cosine decay of lr"`, or what it is, into it'
        )
    if (difference(*ended) == "") != (stated == ""):
        raise Failed(
            f"six of 8 and of 1,000 steps {'are equal' if stated else 'differ'}, and `schedule` of "
            f"the class is {stated!r}; expected that one follows from the other; correct it"
        )


def trains_every_parameter(subject: Subject) -> None:
    """Every parameter is trained."""
    before = named_parameters(subject.untrained(data(), [0])[0])
    after = named_parameters(subject.trained(data(), [0], 4)[0])
    if not after:
        raise Failed(f"no parameters; expected networks as attributes of the learner; {KEEP}")
    for name, old in before.items():
        changed = old != after[name]
        matrices = changed.flatten(0, -3) if old.dim() > 2 else changed.unsqueeze(0)
        if not matrices.flatten(1).any(1).all():  # of each member of an ensemble
            raise Failed(
                f"{name.removeprefix('learners[0].')} is unchanged after 4 updates; expected a "
                "gradient, or an update of its target; optimise it, or delete it; what changes at "
                "longer intervals needs BATTERY = Settings(small=...) with shorter ones"
            )


def reads_its_config(subject: Subject) -> None:
    """Every field of the config is read."""
    read: set[str] = set()
    for way in subject.ways():
        learner, sampler = way.untrained(data(), [0], watched(way.config(), read))
        for _ in range(2):
            learner.update(sampler.sample())
        acted(learner, _observations(data()))
    for field in dataclasses.fields(subject.algorithm.Config):
        if field.name not in read:
            raise Failed(
                f"{field.name} is never read; expected that it changes something; use it, delete "
                "it, or state settings that use it in BATTERY = Settings(variants=...)"
            )


def names_metrics(subject: Subject) -> None:
    """Metrics have standard names and one finite value a seed."""
    learner, sampler = subject.untrained(data(), [0, 1])
    metrics = [learner.update(sampler.sample()) for _ in range(2)][-1]
    advice = "expected such as actor/loss or critic/loss; rename them"
    if not {"actor/loss", "critic/loss"} & metrics.keys():
        raise Failed(f"update returned {', '.join(metrics) or 'no metrics'}; {advice}")
    for key, value in metrics.items():
        if key.split("/")[0] not in AXIS:
            raise Failed(f"metric {key!r} is about none of {', '.join(AXIS)}; {advice}")
        if value.shape != (2,):
            raise Failed(f"{key} has shape {tuple(value.shape)}; expected (2,): one value a seed")
        if value.requires_grad:
            raise Failed(f"{key} carries a gradient; expected a number; return {key}.detach()")
        if not torch.isfinite(value).all():
            raise Failed(f"{key} is {value.tolist()} on random data; expected finite numbers")


def shows_what_is_not_finite(subject: Subject) -> None:
    """A number that is not finite shows in the metrics, where a run looks for it, and stops."""
    learner, sampler = subject.untrained(data(), [0])
    for _ in range(2):
        batch = sampler.sample()
        column = batch.actions if batch.actions.is_floating_point() else batch.observations
        column[...] = torch.nan
        metrics = learner.update(batch)
        if any(not torch.isfinite(value).all() for value in metrics.values()):
            return
    raise Failed(
        f"two updates on actions that are NaN, and {', '.join(metrics)} are finite; expected one "
        "that is not; return the losses that depend on the actions"
    )


def imitates(subject: Subject) -> None:
    """A data set with one action is imitated."""
    imitating = subject.settings.imitating
    if imitating is None:
        raise NotApplicable("nothing in its losses pulls towards the data's actions")
    config = subject.config(**{"actor_lr": 3e-3, "lr": 3e-3, **imitating})
    advice = (
        "; correct the actor's loss, or state what makes it clone in BATTERY = "
        "Settings(imitating=...), None where nothing does"
    )
    if subject.discrete:
        only = dataclasses.replace(subject.suited(data()), actions=np.full(400, 2))
        learner, _ = subject.trained(only, [0], 300, config)
        share = (acted(learner, _observations(only)) == 2).double().mean().item()
        if share < 1:
            raise Failed(f"acts as the data in {share:.0%} of states; expected all{advice}")
        return
    action = np.array([1.0, -0.6, 0.2], np.float32)
    only = dataclasses.replace(
        data(), actions=np.tile(action, (400, 1)), rewards=np.ones(400, np.float32)
    )
    learner, _ = subject.trained(only, [0], 500, config)
    error = (acted(learner, _observations(only))[0] - torch.as_tensor(action)).abs().mean().item()
    if not error < 0.05 * 4:  # of the range of actions
        raise Failed(
            f"actions are {error:.2g} off the one action of the data, in [-2, 2]; expected less "
            f"than 0.2{advice}"
        )


def learns_from_single_rows(subject: Subject) -> None:
    """Single rows, episodes of length 1, constant rewards and observations are data enough."""
    for rows in (1, 3):
        flat = dataclasses.replace(
            data(rows),
            observations=np.full((rows, 5), 0.5, np.float32),
            next_observations=np.full((rows, 5), 0.5, np.float32),
            rewards=np.ones(rows, np.float32),
            terminations=np.ones(rows, np.float32),
            truncations=np.zeros(rows, np.float32),
        )
        try:
            learner, sampler = subject.untrained(flat, [0])
        except InputError:  # one that says what it lacks is as good: ReBRAC needs a next action
            if rows > 1:
                raise
            continue
        for _ in range(3):
            metrics = learner.update(sampler.sample())
        for name, value in metrics.items():
            if not torch.isfinite(value).all():
                raise Failed(
                    f"{name} is {value.tolist()} with {rows} equal rows; expected a finite number; "
                    "guard what divides by a deviation or a range"
                )


def bears_actions_beyond_the_bounds(subject: Subject) -> None:
    """Actions at and beyond the bounds leave every parameter finite."""
    edges = np.tile(np.array([2.0, -2.0, 2.8], np.float32), (400, 1))
    learner, _ = subject.trained(dataclasses.replace(data(), actions=edges), [0], 20)
    for name, parameter in named_parameters(learner).items():
        if not torch.isfinite(parameter).all():
            raise Failed(
                f"{name.removeprefix('learners[0].')} is not finite after 20 updates on actions of "
                "2, -2 and 2.8, bound 2; expected finite numbers; clip actions before atanh or log"
            )


def solves_the_chain(subject: Subject) -> None:
    """A chain of known value is solved: a termination stops, a truncation bootstraps."""
    learner, sampler = subject.untrained(data(), [0])
    if "critic/q" not in learner.update(sampler.sample()):
        raise NotApplicable("its metrics have no critic/q, the mean of Q over the batch")
    if subject.settings.plain is None:
        raise NotApplicable(
            "BATTERY = Settings(plain=...) does not say with which settings the critic estimates "
            "the plain return of the data's actions"
        )
    rates = {"critic_lr": 1e-2, "tau": 0.2, "gamma": 0.5}
    config = subject.config(**{**rates, **subject.settings.plain})
    for termination, last in ((1.0, 1.0), (0.0, 1 / (1 - 0.25))):
        transitions = chain(termination)
        learner, sampler = subject.untrained(transitions, [0], config)
        if hasattr(learner, "log_alpha"):  # no bonus for entropy
            learner.log_alpha.data.fill_(-20)
        for _ in range(400):
            learner.update(sampler.sample())
        prepared = subject.algorithm.prepare(subject.suited(transitions), config)
        for state, value in ((0, 0.5 * last), (1, last)):
            rows = np.flatnonzero(prepared.observations[:, state] == 1)[:32]
            batch = whole(prepared.rows(rows))
            found = learner.update(batch)["critic/q"].item()  # from before the step
            if not abs(found - value) < 0.05:
                ends = "ends" if termination else "is cut off and goes on"
                raise Failed(
                    f"critic/q of state {state} of a chain that {ends} is {found:.3f}; expected "
                    f"{value:.3f} within 0.05; bootstrap by 1 - terminations alone, with `gamma`"
                )


def keeps_episodes_apart(subject: Subject) -> None:
    """What follows an episode never reaches it."""
    rows = 60
    ends = (np.arange(rows) % 30 == 29).astype(np.float32)
    two = dataclasses.replace(data(rows), terminations=ends, truncations=np.zeros_like(ends))
    samples = []
    for lower in (100, 200):  # lower, so that a filter by return keeps the first in both
        rewards = two.rewards - np.float32(lower) * (np.arange(rows) >= 30)
        _, sampler = subject.untrained(dataclasses.replace(two, rewards=rewards), [0])
        samples.append([sampler.sample() for _ in range(20)])
    first = set(map(tuple, two.observations[:30].tolist()))
    met = 0
    for before, after in zip(*samples, strict=True):
        for b, kept in enumerate(before.observations.flatten(0, 1).flatten(1)[:, :5].tolist()):
            if tuple(kept) not in first:
                continue
            met += 1
            for field, column in vars(before).items():
                other = None if column is None else getattr(after, field).flatten(0, 1)[b]
                if other is not None and not torch.equal(column.flatten(0, 1)[b], other):
                    raise Failed(
                        f"{field} of the first episode changed with the rewards of the second; "
                        "expected that they do not; end sums and windows where an episode ends"
                    )
    if met <= 100:
        raise NotApplicable("its batches hold too few rows as they are in the data")


def stays_on_its_device(subject: Subject) -> None:
    """Updates read nothing on the host and keep their tensors on one device."""
    if not issubclass(subject.algorithm, Learner):
        raise NotApplicable("it trains one seed at a time")
    seeds = [3, 0, 11]
    learner, sampler = subject.untrained(data(), seeds, device="meta")
    if learner.period is None:
        raise NotApplicable("it states no `period`, so that no update is recorded as a graph")
    with staying_on("meta"):
        for _ in range(learner.period + 1):
            metrics = learner.update(sampler.sample())
    elsewhere = [name for name, value in metrics.items() if value.device.type != "meta"]
    elsewhere += [k for k, p in named_parameters(learner).items() if p.device.type != "meta"]
    if elsewhere:
        raise Failed(
            f"{elsewhere[0]} left its device; expected that all stay there; make tensors on the "
            "device of those that they meet"
        )


# In the order in which they say most. Those of the first group hold in every way of an algorithm.
IN_EVERY_WAY: tuple[Check, ...] = (
    replicas_agree,
    carries_on,
    parts_and_joins,
    states_its_schedule,
    stays_on_its_device,
)
CHECKS: tuple[Check, ...] = (
    names_metrics,
    repeats,
    trains_every_parameter,
    reads_its_config,
    shows_what_is_not_finite,
    imitates,
    solves_the_chain,
    keeps_episodes_apart,
    learns_from_single_rows,
    bears_actions_beyond_the_bounds,
    *IN_EVERY_WAY,
)


def title(check: Check) -> str:
    """What a check says of an algorithm."""
    return (check.__doc__ or "").strip().removesuffix(".")


def tensors(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a nested state dict, in order, with the keys that lead to them."""
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, (dict, list)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from tensors(value, f"{name}.{key}" if name else str(key))


def difference(a: Learner, b: Learner) -> str:
    """The first tensor in which two learners are not equal bit for bit, "" where there is none."""
    left, right = dict(tensors(a.state_dict())), dict(tensors(b.state_dict()))
    if not left:
        raise Failed(f"the learner saves no tensors; expected networks; {KEEP}")
    for name in left | right:
        if name not in left or name not in right or not torch.equal(left[name], right[name]):
            return name.removeprefix("learners.0.")
    return ""


def acted(learner: Learner, observations: torch.Tensor) -> torch.Tensor:
    """What the policy does in the first step of an episode, (R, E, action_dim)."""
    policy = learner.policy()
    policy.begin(torch.ones(observations.shape[:2], dtype=torch.bool))
    return policy.act(observations)


def _observations(of: Any) -> torch.Tensor:
    return torch.as_tensor(of.observations).unsqueeze(0)


def _gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


def _expect_near(together: Learner, r: int, alone: Learner, rtol: float, atol: float) -> None:
    """Raises Failed where a parameter of replica `r` is not, to rounding, that of one alone."""
    own = parameters(alone)
    for (name, parameter), value in zip(named_parameters(together).items(), own, strict=True):
        if not torch.allclose(parameter[r], value[0], rtol=rtol, atol=atol):
            raise Failed(
                f"{name} of a seed differs by {_gap(parameter[r], value[0]):.2g}, alone and among "
                "three; expected the same to rounding; reduce over the batch, not over replicas"
            )
