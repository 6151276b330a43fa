"""Policies of runs: what a run's last checkpoint has learned, ready to act.

A run folder holds all that its policy needs, so that no data set is loaded. Folders of earlier
versions lack the sizes and statistics of the data, which their data set then gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.utils._pytree import tree_leaves

from offrl.data.card import Environment, Reference
from offrl.data.dataset import load_dataset
from offrl.errors import Damaged, InputError, unknown
from offrl.files import user_path
from offrl.learning import checkpoint
from offrl.learning.learner import Learner, SingleSeedLearner, find_algorithm
from offrl.learning.meta import making_at_most
from offrl.learning.policy import Policy, StatelessPolicy
from offrl.learning.single import build
from offrl.learning.spec import Spec
from offrl.learning.state import Stateful
from offrl.results.rows import Identity, RunRecord
from offrl.results.store import RunFolder, run_folders
from offrl.running.faults import CheckedPolicy, blaming
from offrl.running.jobs import Job, code_of, configure
from offrl.running.protocol import Evaluation
from offrl.running.task import prepare
from offrl.toml import validate
from offrl.trust import Files, Origin, trusted
from offrl.version import __version__

# What building a learner takes, temporary values included: at most five times the bytes of its
# checkpoint for networks of papers' sizes, and more only for such as have a few kilobytes.
MOST_OVER_STORED = 8
MOST_BESIDES = 2**24  # bytes


@dataclass
class RunPolicy:
    """The policy of a run as it stood at its last checkpoint; `load_policy` makes one.

    A policy with memory acts on whole episodes, many at a time: `begin` says where new ones start,
    `act` takes the observations of all, and `reward` what their actions earned. Without a call of
    `begin`, all episodes begin with the first `act`. Other policies pay no heed to both.

    Attributes:
        run: the run's folder.
        record: its run.json.
        step: the gradient step of the checkpoint.
        ways: the names of all ways to act, that which stands for the run first.
        way: the name of this one.
        spec: sizes and bounds of observations and actions.
        policy: with a replica axis of 1, as evaluations play it.
    """

    run: Path
    record: RunRecord
    step: int
    ways: tuple[str, ...]
    way: str
    spec: Spec
    policy: CheckedPolicy
    _episodes: int | None = field(default=None, repr=False)  # of the last `begin`

    @property
    def title(self) -> str:
        """How messages name the run: data set, algorithm and seed."""
        of = self.record.identity
        way = f": {self.way}" if self.way else ""
        return f"{of.dataset.partition('@')[0]} {of.label}{way} seed {of.seed}"

    @property
    def has_memory(self) -> bool:
        """Whether an action depends on more than the observation."""
        return not isinstance(self.policy.policy, StatelessPolicy)

    @property
    def is_deterministic(self) -> bool:
        """Whether no action is drawn."""
        return self.policy.mode == "deterministic"

    def act(self, observations: ArrayLike | torch.Tensor) -> NDArray[Any]:
        """Actions (E, action_dim), or one (action_dim,), within the bounds of the simulator or not.

        They are float32; discrete ones are int64 (E,), or one without axes.

        Args:
            observations: (E, observation_dim), one a row, or a single one (observation_dim,), as
                the simulator gives them: flattened and not standardised.
        """
        given = _array(observations, np.float32, "observations")
        size = self.spec.observation_dim
        if given.ndim not in (1, 2) or given.shape[-1] != size:
            raise InputError(
                f"observations have shape {given.shape}; expected (episodes, {size}) or ({size},)"
            )
        rows = given.reshape(-1, size)
        if self.has_memory and self._episodes is None:
            self.begin(np.ones(len(rows), dtype=bool))
        self._check_episodes(len(rows), "observations")
        actions = self.policy.act(torch.from_numpy(rows)[None])[0].detach().cpu().numpy()
        dtype = np.float32 if self.spec.action_count is None else np.int64
        return np.array(actions, dtype=dtype).reshape((*given.shape[:-1], *actions.shape[1:]))

    def begin(self, starts: ArrayLike | torch.Tensor) -> None:
        """Says which episodes begin with the next `act`: bool (E,), or one.

        The first call, and one that changes the number of episodes, begins all of them.
        """
        flags = np.atleast_1d(_array(starts, np.bool_, "starts"))
        if flags.ndim != 1:
            raise InputError(f"starts have shape {flags.shape}; expected (episodes,)")
        if len(flags) != self._episodes and not flags.all():
            raise InputError(
                f"{len(flags)} episodes do not all begin, but {self._episodes or 'none'} ran "
                "before; begin all of them first"
            )
        self._episodes = len(flags)
        self.policy.begin(torch.from_numpy(flags)[None])

    def reward(self, rewards: ArrayLike | torch.Tensor) -> None:
        """Says what the last actions earned: (E,), or one number."""
        earned = np.atleast_1d(_array(rewards, np.float32, "rewards"))
        if earned.ndim != 1:
            raise InputError(f"rewards have shape {earned.shape}; expected (episodes,)")
        self._check_episodes(len(earned), "rewards")
        self.policy.reward(torch.from_numpy(earned)[None])

    def _check_episodes(self, count: int, what: str) -> None:
        """Raises InputError where a policy with memory is given another number of episodes."""
        if self.has_memory and count != self._episodes:
            raise InputError(
                f"{what} of {count} episodes, but {self._episodes or 'none'} began; call begin "
                "with a flag for each"
            )

    def environment(self, trust: Files = ()) -> Environment:
        """The simulator that scores the run, as its record names it.

        Code that is no part of offrl or of a plug-in runs only where `trust` has the run's folder.
        """
        if self.record.identity.environment is None:
            raise InputError(
                f"{self.run}: its data have no simulator, so no policy can be played; give a card "
                "with [environment] and train again"
            )
        where = f"{self.run / 'run.json'}: environment"
        found = validate(Environment, self.record.identity.environment or {}, where)
        return found.read_from(Origin(str(self.run), trusted(trust)))

    def reference(self) -> Reference | None:
        """The raw returns that count as 0 and 100; None where the record has none to score by."""
        values = self.record.identity.reference
        if values is None:
            return None
        found = validate(Reference, values, f"{self.run / 'run.json'}: reference")
        return None if found.fault else found


def load_policy(
    run: str | Path, *, way: str = "", algorithm: str | Path | None = None
) -> RunPolicy:
    """The policy of a run as it stood at its last checkpoint, whether the run is done or not.

    Two loads of one run act alike.

    Args:
        run: the folder of one run, which holds its run.json.
        way: to act, for an algorithm that acts in several; by default the one that stands for it.
        algorithm: the Python file that the run trained, where it is one of your own: a record names
            code, but only you can say that it may run. It has to be the very file, unchanged.

    Raises InputError where the folder holds no run, no checkpoint yet, or one that is damaged or of
    another version of offrl or of the algorithm.
    """
    folder = RunFolder(user_path(run).resolve())
    record = _record(folder)
    identity = record.identity
    name = _algorithm(folder, identity, algorithm)
    if not folder.checkpoint.is_file():
        raise InputError(
            f"{folder.path}: the run ({record.status}) has no checkpoint yet; give the same "
            "offrl run again until it has"
        )
    state = checkpoint.load(folder.checkpoint)
    learned, step = state.get("learner"), state.get("step")
    if learned is None or not isinstance(step, int):
        raise Damaged(f"{folder.checkpoint}: expected the checkpoint of a run")
    kind = find_algorithm(name)
    config = configure(name, identity.config, str(folder.record_file))
    try:
        spec = Spec.from_state(state["spec"]) if "spec" in state else _spec_of_data(identity, name)
        if identity.code is None:
            _check_size(folder, kind, spec, config, _bytes(learned))
        learner = _untrained(folder, kind, spec, config, identity.seed)
        with blaming(kind, "load_state_dict"):
            learner.load_state_dict(learned)
    except Damaged as error:
        raise Damaged(
            f"{folder.checkpoint}: {error}; it is of offrl {_version(record)}, and this is "
            f"{__version__}: load it with that version, or train the run again"
        ) from None
    freeze(learner)
    with blaming(kind, "policy", step):
        policies: Mapping[str, Policy] = learner.policies()
    main = next(iter(policies))
    chosen = way or main
    if chosen not in policies:
        raise unknown("way to act", way, policies)
    checked = CheckedPolicy(policies[chosen], kind, "policy", step, spec)
    return RunPolicy(folder.path, record, step, tuple(policies), chosen, spec, checked)


def _record(folder: RunFolder) -> RunRecord:
    """The record of a run. Raises InputError where the folder holds none that can be read."""
    if not folder.record_file.exists():
        below = run_folders(folder.path) if folder.path.is_dir() else []
        example = f"one of the {len(below)} below it, such as {below[0].path}" if below else ""
        what = "no run.json in this folder" if folder.path.is_dir() else "no such folder"
        raise InputError(
            f"{folder.path}: {what}; expected the folder of one run, "
            f"{example or 'RUNS/<protocol>/<data set>/<algorithm>-<config hash>/seed-<k>'}"
        )
    stored = folder.read()
    if stored.record is None:
        raise InputError(str(stored.cause))
    return stored.record


def _algorithm(folder: RunFolder, identity: Identity, given: str | Path | None) -> str:
    """The registered name or the path of a run's algorithm, of the very code that it trained."""
    name = identity.algorithm if given is None else str(user_path(given))
    if given is None and name.endswith(".py"):
        raise InputError(
            f"{folder.path}: the run trained {name}, a file of the user's own, which runs only "
            f"where you give it: --algorithm {name} (from Python: algorithm={name!r})"
        )
    if given is not None and identity.code is None:
        raise InputError(
            f"{folder.path}: the run trained {identity.algorithm}, which ships with offrl; leave "
            f"out the algorithm {name}"
        )
    if (code := code_of(name)) != identity.code:
        raise InputError(
            f"{folder.path}: the run trained {identity.algorithm} with SHA-256 "
            f"{str(identity.code)[:12]}..., but {name} has {str(code)[:12]}...; give the version "
            "that it trained"
        )
    return name


def _check_size(
    folder: RunFolder,
    kind: type[Learner] | type[SingleSeedLearner],
    spec: Spec,
    config: Any,
    stored: int,
) -> None:
    """Raises InputError where a config makes far larger networks than a checkpoint has bytes.

    A record may be a stranger's. Nothing is made of it but sizes.
    """
    try:
        with making_at_most(stored * MOST_OVER_STORED + MOST_BESIDES):
            build(kind, spec, config, [0], "meta")
    except MemoryError:
        raise InputError(
            f"{folder.record_file}: its config makes a learner that is many times as large as the "
            f"{stored:,} bytes of its checkpoint; it is of other runs, so restore the file"
        ) from None
    except Exception:  # which the learner itself raises again
        return


def _bytes(state: Any) -> int:
    """The bytes of the tensors in a state."""
    leaves = [leaf for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor)]
    return sum(leaf.nbytes for leaf in leaves)


def _untrained(
    folder: RunFolder,
    kind: type[Learner] | type[SingleSeedLearner],
    spec: Spec,
    config: Any,
    seed: int,
) -> Learner:
    """The run's learner before training. Raises InputError where its record allows none."""
    try:
        with blaming(kind, "__init__"):
            return build(kind, spec, config, [seed])
    except InputError:
        raise
    except Exception as error:  # of a config that anybody may have written
        text = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder.record_file}: its learner cannot be built: {type(error).__name__}: {text}; "
            "restore the file, or train the run again"
        ) from error


def _spec_of_data(identity: Identity, algorithm: str) -> Spec:
    """What a learner is built from, by the data set of a run whose checkpoint lacks it."""
    name = identity.dataset.partition("@")[0]
    why = "the checkpoint is of an earlier offrl, without the sizes and statistics of its data"
    try:
        dataset = load_dataset(name, view=identity.view)
    except InputError as error:
        raise InputError(f"{why}, and data set {identity.dataset} has a fault: {error}") from None
    if dataset.checksum != identity.data_sha256:
        raise InputError(
            f"{why}, and {dataset.card.id}@{dataset.card.version} is not the data set that the run "
            f"was trained on, {identity.dataset}; load it with the version of offrl that has that"
        )
    every = identity.evaluation.get("every") or 1
    job = Job(
        protocol=identity.protocol,
        dataset=name,
        label=identity.label,
        algorithm=algorithm,
        config=identity.config,
        code=identity.code,
        view=identity.view,
        steps=identity.steps,
        evaluation=Evaluation(every=every, episodes=identity.evaluation.get("episodes") or 1),
        seed=identity.seed,
    )
    return prepare(job, dataset).spec


def freeze(value: Any) -> None:
    """Lets nothing that a learner holds be trained any more: a policy acts and has no gradients."""
    if isinstance(value, nn.Module) or (isinstance(value, torch.Tensor) and value.is_leaf):
        value.requires_grad_(False)
    elif isinstance(value, Stateful):
        freeze(list(vars(value).values()))
    elif isinstance(value, list | tuple):
        for item in value:
            freeze(item)
    elif isinstance(value, dict):
        freeze(list(value.values()))


def _version(record: RunRecord) -> str:
    """The version of offrl that worked on a run last."""
    return record.sessions[-1].versions.get("offrl", "?") if record.sessions else "?"


def _array(values: Any, dtype: Any, what: str) -> NDArray[Any]:
    """Numbers as an array of their own. Raises InputError for what holds none."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.array(values, dtype=dtype)
    except (TypeError, ValueError):
        raise InputError(
            f"{what} are a {type(values).__name__} that is no array of numbers; expected one"
        ) from None
