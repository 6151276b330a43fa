"""Steps of gym's Ant-v2 on MuJoCo 2.1.0, which `tests/datasets/ant_mujoco210.npz` holds.

    pip download --no-deps --python-version 3.8 --only-binary=:all: free-mujoco-py==2.1.6
    python benchmarks/mujoco210.py free_mujoco_py-2.1.6-py3-none-any.whl steps.npz

The wheel has the library and headers of MuJoCo 2.1.0, around which a C compiler (`cc`) builds a
small program. The model is Gymnasium's ant.xml, which is gym's byte for byte. States come from
episodes of uniform and of smooth actions, every seventh step of each; a recorded step starts from
such a state without a warm start of the solver, as `set_state` after a reset does.
"""

import argparse
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gymnasium.envs.mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SUBSTEPS = 5
PROGRAM = r"""
#include "mujoco.h"
#include <stdio.h>
static void put(const mjtNum* numbers, int count) { fwrite(numbers, 8, count, stdout); }
int main(int argc, char** argv) {
  char error[1000] = "";
  mjModel* m = mj_loadXML(argv[1], 0, error, sizeof error);
  if (!m) { fprintf(stderr, "%s\n", error); return 1; }
  mjData* d = mj_makeData(m);
  mjtNum counts[4] = {m->nq, m->nv, m->nu, m->nbody};
  put(counts, 4);
  put(m->qpos0, m->nq);
  put(m->body_mass, m->nbody);
  put(m->body_inertia, 3 * m->nbody);
  put(m->body_ipos, 3 * m->nbody);
  put(m->body_iquat, 4 * m->nbody);
  for (int what; fflush(stdout), (what = getchar()) != EOF;) {
    if (what == 'r') {
      mj_resetData(m, d);
      if (fread(d->qpos, 8, m->nq, stdin) + fread(d->qvel, 8, m->nv, stdin) != m->nq + m->nv)
        return 1;
      mj_forward(m, d);
    } else {
      if (fread(d->ctrl, 8, m->nu, stdin) != m->nu) return 1;
      for (int i = 0; i < SUBSTEPS; i++) mj_step(m, d);
    }
    mjtNum force = 0;
    for (int i = 0; i < 6 * m->nbody; i++) force = mju_max(force, mju_abs(d->cfrc_ext[i]));
    put(d->qpos, m->nq);
    put(d->qvel, m->nv);
    put(d->xpos + 3, 3);
    put(&force, 1);
  }
}
"""


class OldAnt:
    """The ant in MuJoCo 2.1.0, in a process of its own."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if "/linux/mujoco210/include/" in name or name.endswith("/libmujoco210nogl.so"):
                    (folder / Path(name).name).write_bytes(archive.read(name))
        (folder / "steps.c").write_text(PROGRAM.replace("SUBSTEPS", str(SUBSTEPS)))
        compiler = ["cc", "-O1", "-I.", "steps.c", "-o", "steps", "-L.", "-lmujoco210nogl"]
        subprocess.run([*compiler, "-Wl,-rpath,$ORIGIN"], cwd=folder, check=True)
        assets = Path(gymnasium.envs.mujoco.__file__).parent / "assets"
        self._process = subprocess.Popen(
            [folder / "steps", assets / "ant.xml"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.nq, self.nv, self.nu, bodies = self._read(4).astype(int)
        self.start = self._read(self.nq)
        self.body_mass = self._read(bodies)
        self.body_inertia = self._read(3 * bodies).reshape(-1, 3)
        self.body_ipos = self._read(3 * bodies).reshape(-1, 3)
        self.body_iquat = self._read(4 * bodies).reshape(-1, 4)

    def reset(self, qpos: Array, qvel: Array) -> None:
        """Puts the ant into a state; `qpos`, `qvel`, `torso` and `force` are of it then."""
        self._tell(b"r", qpos, qvel)

    def step(self, action: Array) -> None:
        """One step of an action."""
        self._tell(b"s", action)

    def _tell(self, what: bytes, *numbers: Array) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(what + b"".join(part.astype("<f8").tobytes() for part in numbers))
        self._process.stdin.flush()
        self.qpos, self.qvel = self._read(self.nq), self._read(self.nv)
        self.torso, (self.force,) = self._read(3), self._read(1)

    def _read(self, count: int) -> Array:
        assert self._process.stdout is not None
        return np.frombuffer(self._process.stdout.read(8 * count), "<f8")


def states(ant: OldAnt, rng: np.random.Generator, smooth: bool) -> list[tuple[Array, Array, Array]]:
    """State and action of every seventh of 140 steps."""
    start = ant.start + rng.uniform(-0.1, 0.1, ant.nq)
    ant.reset(start, 0.1 * rng.standard_normal(ant.nv))
    found, action = [], np.zeros(ant.nu)
    for number in range(140):
        noise = rng.uniform(-1, 1, ant.nu)
        action = (0.9 * action + 0.4 * noise).clip(-1, 1) if smooth else noise
        if number % 7 == 6:
            found.append((ant.qpos, ant.qvel, action))
        ant.step(action)
    return found


def main() -> None:
    """Writes the steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("steps", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        ant = OldAnt(options.wheel, Path(folder))
        rows: dict[str, list[Array]] = {}
        for smooth in (False, True):
            for qpos, qvel, action in states(ant, rng, smooth):
                ant.reset(qpos, qvel)
                before = ant.torso[0]
                ant.step(action)
                row = {"qpos": qpos, "qvel": qvel, "action": action, "next_qpos": ant.qpos}
                row |= {"next_qvel": ant.qvel, "moved": ant.torso[0] - before, "force": ant.force}
                for key, value in row.items():
                    rows.setdefault(key, []).append(value)
        bodies = {key: value for key, value in vars(ant).items() if key.startswith("body_")}
    columns = {key: np.array(value) for key, value in rows.items()}
    everything: dict[str, Any] = columns | bodies
    np.savez_compressed(options.steps, **everything)


if __name__ == "__main__":
    main()
