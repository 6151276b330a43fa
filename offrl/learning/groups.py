"""Which runs can train as the replicas of one batch, and what their learner is built from.

Runs of one algorithm share a batch whatever their seeds. Their data may differ, of equal widths,
and their configs in the fields that the algorithm names in `varying` and `preparing`.
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch

from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.learner import Algorithm, Learner, SingleSeedLearner
from offrl.learning.sampler import Sampler, Stacked
from offrl.learning.spec import Device, Seeds, Spec

Kind = type[Learner] | type[SingleSeedLearner]
SHARED = (  # of the replicas' specs
    "observation_dim",
    "action_dim",
    "max_action",
    "steps",
    "action_count",
    "action_low",
    "action_high",
)


def group_key(algorithm: Kind, config: Any, spec: Spec, steps: int) -> Hashable:
    """Equal for runs that can train as one batch, for `steps` updates.

    An algorithm that is written for one seed has a key of its own for each run.
    """
    if not issubclass(algorithm, Learner):
        return object()
    fixed = tuple((name, repr(getattr(config, name))) for name in _fixed(algorithm, config))
    return algorithm, fixed, *(getattr(spec, name) for name in SHARED), steps


def grouped(algorithm: Kind, configs: Sequence[Any], specs: Sequence[Spec]) -> tuple[Any, Spec]:
    """The config and the spec with which one learner trains these runs, in this order.

    Values that are equal stay as they are. Numbers that differ become a float32 tensor (R, 1), and
    means and deviations of observations that differ arrays (R, 1, observation_dim). Of fields that
    `prepare` alone reads, which are not numbers, the first run's stand in the config.

    Raises InputError, with the reason, where the runs cannot train as one batch.
    """
    if len(configs) == 1:
        return configs[0], specs[0]
    name = algorithm.__module__.rpartition(".")[2]
    if not issubclass(algorithm, Learner):
        raise InputError(
            f"{name}: its runs cannot train as one batch, because it is written for one seed "
            "(offrl.SingleSeedLearner); train them one at a time"
        )
    for field in _fixed(algorithm, configs[0]):
        _check_equal(name, field, [getattr(config, field) for config in configs])
    for field in SHARED:
        _check_equal(name, field, [getattr(spec, field) for spec in specs])
    return _config(algorithm, configs), _spec(specs)


def build_sampler(
    algorithm: Kind, data: Sequence[Transitions], config: Any, seeds: Seeds, device: Device
) -> Sampler:
    """The algorithm's sampler for one prepared data set a replica.

    Data sets that are one object are held once. An algorithm's own `sampler` is called for each
    replica by itself where data sets differ, unless `samples_many` says that it takes them all.
    """
    if all(one is data[0] for one in data):
        return algorithm.sampler(data[0], config, seeds, device)
    own = algorithm.sampler.__func__ is not Algorithm.sampler.__func__  # type: ignore[attr-defined]
    if algorithm.samples_many or not own:
        return algorithm.sampler(data, config, seeds, device)
    pairs = zip(data, seeds, strict=True)
    return Stacked([algorithm.sampler(one, config, [seed], device) for one, seed in pairs])


def _fixed(algorithm: type[Learner], config: Any) -> list[str]:
    """Fields in which the replicas of a batch may not differ."""
    varying = {name for name in algorithm.varying if is_number(getattr(config, name))}
    names = [field.name for field in dataclasses.fields(config)]
    return [name for name in names if name not in varying | algorithm.preparing]


def is_number(value: Any) -> bool:
    """Whether replicas may differ in a value of the config, where its field may vary."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_equal(name: str, field: str, values: Sequence[Any]) -> None:
    for value in values:
        if repr(value) != repr(values[0]):
            raise InputError(
                f"{name}: {field} is {values[0]!r:.60} in one run and {value!r:.60} in another; "
                "runs that train as one batch have to agree in it"
            )


def _config(algorithm: type[Learner], configs: Sequence[Any]) -> Any:
    changes = {}
    for name in sorted(algorithm.varying):
        values = [getattr(config, name) for config in configs]
        if all(map(is_number, values)) and len(set(values)) > 1:
            changes[name] = torch.tensor(values, dtype=torch.float32).unsqueeze(1)
    return dataclasses.replace(configs[0], **changes)


def _spec(specs: Sequence[Spec]) -> Spec:
    changes: dict[str, Any] = {}
    for name in ("observation_mean", "observation_std"):
        values = [getattr(spec, name) for spec in specs]
        if not all(np.array_equal(value, values[0]) for value in values):
            changes[name] = np.stack(values)[:, None]
    return dataclasses.replace(specs[0], **changes)
