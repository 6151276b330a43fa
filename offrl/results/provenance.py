"""What a score depends on besides its run: code, versions, hardware."""

import functools
import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from offrl import machine, registry
from offrl.results.rows import Numerics
from offrl.version import __version__

SIMULATORS = ("gymnasium", "gymnasium-robotics", "mujoco")  # noted with every score
PACKAGES = ("numpy", "torch", *SIMULATORS, "minari")  # noted with every session of a run
# Simulators that a score table has a column for: what they are called, and what it is for.
POOLED = {"mujoco": ("MuJoCo", "from 3.5 on Hopper, Ant and Humanoid move differently")}


def commit() -> str | None:
    """The git commit of the checkout that offrl runs from, `-dirty` if changed; None in a wheel."""
    root = registry.folder("algorithms").parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git("-C", root, "rev-parse", "HEAD")
        changed = _git("-C", root, "status", "--porcelain", "--", "offrl", *registry.CONTENT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head


def _git(*words: str | Path) -> str:
    """What git says, without a lock of its own, on which a user's command would fail."""
    command = ["git", "--no-optional-locks", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def hardware() -> dict[str, Any]:
    """The machine: its name, and what a score's last digits depend on."""
    import torch

    return {
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "host": platform.node(),
    }


@functools.cache
def processor(device: str = "cpu") -> str:
    """The model of this machine's processor, or of a GPU; empty for a GPU that is not here."""
    if device != "cpu":
        import torch

        try:
            return torch.cuda.get_device_name(device) if torch.cuda.is_available() else ""
        except (AssertionError, RuntimeError, ValueError):
            return ""
    return machine.processor()


def numerics(step: int, replicas: int, group: str | None, device: str, precision: str) -> Numerics:
    """How this process computes R replicas of a group of runs, from a step on."""
    import torch

    from offrl.learning import kernels

    return Numerics(
        step=step,
        replicas=replicas,
        group=group,
        kernel=kernels.current(),
        dtype=precision,
        threads=torch.get_num_threads(),
        device=device,
    )


def versions() -> dict[str, str]:
    """Versions of what a score depends on, by distribution name."""
    return {
        "offrl": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def simulator_versions(named: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what plays episodes, by distribution name.

    Args:
        named: further distributions, such as those of a card's `valid_with`; one that is not
            installed is left out.
    """
    found = {name: version(name) for name in SIMULATORS} | {"offrl": __version__}
    for name in named:
        with suppress(PackageNotFoundError, ValueError):
            found.setdefault(name, version(name))
    return found
