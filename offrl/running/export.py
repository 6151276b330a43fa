"""Writes the policy of a run as a file of ONNX, which other programs and languages run.

By torch's exporter of traces: its newer one needs two more packages and takes some thirty times
as long for graphs as small as these, which both write alike.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from offrl.errors import InputError
from offrl.files import replacing
from offrl.running.policies import RunPolicy


class _Graph(nn.Module):
    """A policy as a function of observations (E, observation_dim) alone."""

    def __init__(self, policy: RunPolicy):
        super().__init__()
        self.act, self.spec = policy.policy.policy.act, policy.spec

    def forward(self, observations: Tensor) -> Tensor:
        """The simulator's actions (E, action_dim), or discrete (E,)."""
        return self.spec.to_simulator(self.act(observations.unsqueeze(0)).squeeze(0))


def export_onnx(policy: RunPolicy, path: Path) -> None:
    """Writes a policy that is a function of the observation as ONNX, in float32.

    The graph takes `observations` (E, observation_dim), as the simulator gives them, for any E, and
    gives `actions` (E, action_dim), or discrete ones int64 (E,); standardisation and action bounds
    are inside. Its metadata say which run and step it is of.

    Raises InputError for a policy with memory or one that draws its actions, another kind of file,
    and where what exports is not installed.
    """
    if path.suffix != ".onnx":
        raise InputError(f"{path}: expected a name that ends in .onnx")
    if policy.has_memory:
        raise InputError(
            f"{policy.run}: {policy.record.identity.label} acts by the episode so far and not by "
            "the observation alone, which a graph of ONNX cannot; use offrl.load_policy"
        )
    if not policy.is_deterministic:
        raise InputError(
            f"{policy.run}: {policy.record.identity.label} draws its actions, which a graph of "
            "ONNX cannot from the run's generator; use offrl.load_policy"
        )
    try:
        import onnx
    except ImportError:
        raise InputError(
            f"{path}: onnx is not installed, which writes such files; install it by "
            "pip install 'offrl[onnx]'"
        ) from None
    model = onnx.load_model_from_string(_converted(policy))
    of = policy.record.identity
    facts = {
        "protocol": of.protocol,
        "dataset": of.dataset,
        "algorithm": of.label,
        "config": of.config_hash,
        "seed": of.seed,
        "step": policy.step,
        "way": policy.way,
        "max_action": policy.spec.max_action,
        "action_count": policy.spec.action_count,
    }
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=str(value))
    model.producer_name = "offrl"
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _converted(policy: RunPolicy) -> bytes:
    """The model of ONNX. Raises InputError where an algorithm of one's own has no such graph."""
    example = torch.zeros(2, policy.spec.observation_dim)
    file = io.BytesIO()
    write: Any = torch.onnx.export  # whose types have no stream, which this exporter takes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own age, and of sizes that stay what they are
            write(
                _Graph(policy).eval(),
                (example,),
                file,
                input_names=["observations"],
                output_names=["actions"],
                dynamic_axes={"observations": {0: "episodes"}, "actions": {0: "episodes"}},
                dynamo=False,
            )
    except Exception as error:  # of any of the exporter's stages
        text = " ".join(str(error).split())[:200]
        raise InputError(
            f"{policy.run}: act of {policy.record.identity.label} cannot be written as a graph: "
            f"{type(error).__name__}: {text}; use operations of torch alone in it"
        ) from error
    return file.getvalue()
