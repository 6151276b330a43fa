"""offrl: a benchmark and evaluation harness for offline reinforcement learning.

Names below are loaded on first use, so that `import offrl` costs neither torch nor matplotlib.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offrl.version import __version__ as __version__

# A wheel carries datasets/, algorithms/, protocols/ and reports/ inside this package; in a checkout
# they stand beside it, so the folder above joins the package's path.
if not (Path(__file__).parent / "algorithms").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from offrl.data.card import Card as Card
    from offrl.data.dataset import Dataset as Dataset
    from offrl.data.dataset import load_dataset as load_dataset
    from offrl.errors import InputError as InputError
    from offrl.learning.batch import Batch as Batch
    from offrl.learning.learner import Learner as Learner
    from offrl.learning.learner import SingleSeedLearner as SingleSeedLearner
    from offrl.learning.spec import Spec as Spec
    from offrl.reporting.report import report as report
    from offrl.results.collect import read_runs as read_runs
    from offrl.results.files import read_scores as read_scores
    from offrl.results.reading import Reading as Reading
    from offrl.results.table import ScoreTable as ScoreTable
    from offrl.running.policies import load_policy as load_policy
    from offrl.running.protocol import Protocol as Protocol
    from offrl.running.runner import run as run
    from offrl.running.runner import train as train
    from offrl.running.tally import Tally as Tally
    from offrl.statistics.comparison import compare as compare

_HOME = {
    "Batch": "offrl.learning.batch",
    "Card": "offrl.data.card",
    "Dataset": "offrl.data.dataset",
    "InputError": "offrl.errors",
    "Learner": "offrl.learning.learner",
    "Protocol": "offrl.running.protocol",
    "Reading": "offrl.results.reading",
    "ScoreTable": "offrl.results.table",
    "SingleSeedLearner": "offrl.learning.learner",
    "Spec": "offrl.learning.spec",
    "Tally": "offrl.running.tally",
    "compare": "offrl.statistics.comparison",
    "load_dataset": "offrl.data.dataset",
    "load_policy": "offrl.running.policies",
    "read_runs": "offrl.results.collect",
    "read_scores": "offrl.results.files",
    "report": "offrl.reporting.report",
    "run": "offrl.running.runner",
    "train": "offrl.running.runner",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "runner":  # `from offrl import runner`, as scripts wrote before there were wings
        return importlib.import_module("offrl.running.runner")
    if name not in _HOME:
        raise AttributeError(f"module 'offrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
