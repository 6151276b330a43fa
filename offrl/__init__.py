"""offrl: a benchmark and evaluation harness for offline reinforcement learning.

Names below are loaded on first use, so that `import offrl` costs neither torch nor matplotlib.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# A wheel carries datasets/, algorithms/, protocols/ and reports/ inside this package; in a checkout
# they stand beside it, so the folder above joins the package's path.
if not (Path(__file__).parent / "algorithms").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from offrl.batch import Batch as Batch
    from offrl.card import Card as Card
    from offrl.comparison import compare as compare
    from offrl.dataset import Dataset as Dataset
    from offrl.dataset import load_dataset as load_dataset
    from offrl.errors import InputError as InputError
    from offrl.learner import Learner as Learner
    from offrl.learner import SingleSeedLearner as SingleSeedLearner
    from offrl.learner import Spec as Spec
    from offrl.protocol import Protocol as Protocol
    from offrl.reporting import report as report
    from offrl.runner import run as run
    from offrl.runner import train as train
    from offrl.runs import read_runs as read_runs
    from offrl.scores import ScoreTable as ScoreTable
    from offrl.scores import read_scores as read_scores

_HOME = {
    "Batch": "offrl.batch",
    "Card": "offrl.card",
    "Dataset": "offrl.dataset",
    "InputError": "offrl.errors",
    "Learner": "offrl.learner",
    "Protocol": "offrl.protocol",
    "ScoreTable": "offrl.scores",
    "SingleSeedLearner": "offrl.learner",
    "Spec": "offrl.learner",
    "compare": "offrl.comparison",
    "load_dataset": "offrl.dataset",
    "read_runs": "offrl.runs",
    "read_scores": "offrl.scores",
    "report": "offrl.reporting",
    "run": "offrl.runner",
    "train": "offrl.runner",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'offrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
