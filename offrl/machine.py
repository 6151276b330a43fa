"""The machine that computes: what the last bits of floating-point numbers depend on."""

import functools
import platform
from pathlib import Path


@functools.cache
def processor() -> str:
    """The model of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import torch

        return torch.backends.cpu.get_cpu_capability()
    named = ("vendor_id", "cpu family", "model", "model name")
    wanted = dict(line.split(":", 1) for line in lines[:30] if ":" in line)
    return " ".join(v.strip() for k, v in wanted.items() if k.strip() in named)


def mathematics() -> str:
    """The C library, whose sines and exponentials compiled packages use: "glibc 2.36"."""
    return " ".join(part for part in platform.libc_ver() if part) or platform.system()
