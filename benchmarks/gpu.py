"""What offrl's learners do on a GPU: agreement with the CPU, equality of runs, rates and bounds.

    python benchmarks/gpu.py --out results                       # under eight minutes
    python benchmarks/gpu.py --device cpu --tiny --out results   # every stage, with tiny sizes
    python benchmarks/gpu.py --corl CORL/algorithms/offline      # beside CORL's loop

Stages, each algorithm of each in a process of its own, because an error of CUDA spoils the process:

    card        the card, its driver, the versions
    streams     random words against those of the CPU, and how many normal numbers are equal
    eager       one update on the device; host synchronisations in an update; save, load, carry on
    ceilings    copies, batched products of 256 x 256 matrices, small kernels in a CUDA graph
    agreement   100 updates on the same batches and noise against float64 on the CPU; bit equality
    capture     updates as a CUDA graph against single ones; two runs; saved, loaded, captured anew
    rates       updates per second as a CUDA graph, beside the bounds of the ceilings
    corl        updates per second of CORL's own files on the same device, one seed; with --corl
    profile     the kernels of TD3+BC

Every result is a line of `results.jsonl` in the folder `--out` (or in $OUT), which names the card;
what processes print goes to `log.txt` there; a table comes last. Where a capture fails, updates go
on one by one, and the line says why. The data are random numbers in the shape of D4RL's
HalfCheetah: 17 observations, 6 actions. Configs are the defaults, but CQL's, which is that of
protocols/corl.toml.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import updates
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from offrl.data.transitions import Transitions
from offrl.learning import philox
from offrl.learning.graphs import Captured, CudaRecorder
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.precision import set_precision
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams

ROOT = Path(__file__).resolve().parent.parent
ALGORITHMS = (
    "bc",
    "percent_bc",
    "td3_bc",
    "iql",
    "awac",
    "rebrac",
    "cql",
    "sac_n",
    "edac",
    "decision_transformer",
)
RATED = ("td3_bc", "iql", "bc", "cql", "edac", "decision_transformer")
PRODUCTS = {"float32": "ieee", "tf32": "tf32", "bfloat16": "bf16"}  # which ceiling bounds them
GRID = 90  # runs: nine data sets and ten seeds
UPDATES = {"decision_transformer": 100_000}  # of a run; of others a million
TOLERANCE = 3.0  # the device's error over that of the CPU in float32
FLOOR = 6e-8  # half a unit in float32's last place; no error of the CPU counts for less


@dataclass(frozen=True)
class Sizes:
    """How much a stage does."""

    rows: int  # of the data
    replicas: tuple[int, ...]  # whose rates are taken
    window: float  # seconds of each of three timings
    updates: int  # compared with the CPU
    matrices: int  # in a batched product
    copied: int  # bytes
    small: dict[str, Any]  # changes to configs, where a config has the field


FULL = Sizes(1_000_000, (1, 2, 5, 10, 30, 90), 0.25, 100, 180, 2**30, {})
TINY = Sizes(
    5_000,
    (1, 2),
    0.02,
    10,
    4,
    2**20,
    {
        "hidden": (16, 16),
        "actor_hidden": (16, 16),
        "critic_hidden": (16, 16),
        "embedding": 16,
        "batch_size": 8,
        "context": 4,
    },
)


def with_few_rows(sizes: Sizes) -> Sizes:
    """For stages that take no rates."""
    return replace(sizes, rows=min(sizes.rows, 20_000))


@dataclass(frozen=True)
class Job:
    """One stage on one algorithm, in this process."""

    stage: str
    algorithm: str
    device: torch.device
    sizes: Sizes
    out: Path
    corl: Path | None = None  # the folder of CORL's files

    def record(self, **values: Any) -> None:
        """Appends a line to the results."""
        card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        line = {"stage": self.stage, "algorithm": self.algorithm, "card": card} | values
        with (self.out / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


# ---- learners


@functools.cache
def random_data(rows: int) -> Transitions:
    """Random transitions in episodes of 1,000 steps."""
    rng = np.random.default_rng(0)
    return Transitions(
        observations=rng.standard_normal((rows, 17), dtype=np.float32),
        actions=rng.uniform(-1, 1, (rows, 6)).astype(np.float32),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 17), dtype=np.float32),
        terminations=np.zeros(rows, dtype=np.float32),
        truncations=(np.arange(rows) % 1000 == 999).astype(np.float32),
    )


def prepared(
    name: str,
    replicas: int,
    device: torch.device | str,
    sizes: Sizes,
    steps: int = 1_000_000,
    **changes: Any,
) -> tuple[Learner, Sampler, int]:
    """A learner, its sampler, and the number of updates after which its work repeats."""
    algorithm = find_algorithm(name)
    settings = dict(changes)
    if name == "cql":
        protocol = tomllib.loads((ROOT / "protocols" / "corl.toml").read_text())
        settings |= protocol["algorithms"]["cql"]["config"]
    if name == "decision_transformer":
        settings["target_returns"] = (1.0,)
    fields = {field.name for field in dataclasses.fields(algorithm.Config)}
    settings |= {key: value for key, value in sizes.small.items() if key in fields}
    config = algorithm.Config(**settings)
    data = algorithm.prepare(random_data(sizes.rows), config)
    spec = Spec(17, 6, 1.0, steps, np.zeros(17), np.ones(17))
    seeds = range(replicas)
    learner = build(algorithm, spec, config, seeds, device)
    sampler = algorithm.sampler(data, config, seeds, device)
    return learner, sampler, getattr(config, "policy_delay", 1)


def tensors(learner: Learner) -> Iterator[Tensor]:
    """Parameters, buffers and other tensors of a learner, in a fixed order."""
    for value in vars(learner).values():
        if isinstance(value, nn.Module):
            yield from value.parameters()
            yield from value.buffers()
        elif isinstance(value, Tensor):
            yield value


def weights(learner: Learner) -> Tensor:
    """All of a learner's real numbers in one float64 vector on the CPU."""
    parts = [t.detach() for t in tensors(learner) if t.is_floating_point()]
    return torch.cat([part.to("cpu", torch.float64).flatten() for part in parts])


def by_replica(learner: Learner, replicas: int) -> list[Tensor]:
    """The same for each replica, of the tensors that have an axis for it."""
    parts = [t.detach().to("cpu", torch.float64) for t in tensors(learner)]
    parts = [part for part in parts if part.dim() > 1 and len(part) == replicas]
    return [torch.cat([part[r].flatten() for part in parts]) for r in range(replicas)]


def optimizers(learner: Learner) -> list[torch.optim.Optimizer]:
    """A learner's optimisers, in a fixed order."""
    return [v for v in vars(learner).values() if isinstance(v, torch.optim.Optimizer)]


def trained_parameters(learner: Learner) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Each trained parameter with its optimiser's state."""
    return [
        (parameter, optimizer.state[parameter])
        for optimizer in optimizers(learner)
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def gradients(learner: Learner) -> Tensor:
    """All gradients of the last update in one float64 vector on the CPU."""
    parts = [p.grad for p, _ in trained_parameters(learner) if p.grad is not None]
    return torch.cat([part.to("cpu", torch.float64).flatten() for part in parts])


def copy_state(source: Learner, target: Learner) -> None:
    """Copies weights and optimisers' states into a learner that has made as many updates."""
    for a, b in zip(tensors(source), tensors(target), strict=True):
        b.data.copy_(a.data)
    pairs = zip(trained_parameters(source), trained_parameters(target), strict=True)
    for (_, state), (_, other) in pairs:
        for key, value in other.items():
            value.copy_(state[key])


def relative_error(a: Tensor, b: Tensor) -> float:
    """The norm of a - b over the norm of b; infinite where a is not finite."""
    error = ((a - b).norm() / b.norm()).item()
    return error if math.isfinite(error) else math.inf


class HostStreams:
    """Streams that draw on the CPU, so that every device and dtype sees the same numbers."""

    def __init__(self, drawn: Streams, device: torch.device, dtype: torch.dtype):
        self.drawn, self.device, self.dtype = drawn, device, dtype

    def normal(self, *shape: int) -> Tensor:
        """As of Streams."""
        return self.drawn.normal(*shape).to(self.device, self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        """As of Streams."""
        return self.drawn.uniform(*shape).to(self.device, self.dtype)

    def bernoulli(self, probability: float, *shape: int) -> Tensor:
        """As of Streams."""
        return self.drawn.bernoulli(probability, *shape).to(self.device, self.dtype)


def move(learner: Learner, device: torch.device, dtype: torch.dtype) -> None:
    """Moves a learner that was built on the CPU, whose streams go on drawing there."""
    for tensor in tensors(learner):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(device, dtype)
    for name, value in vars(learner).items():
        if isinstance(value, Streams):
            setattr(learner, name, HostStreams(value, device, dtype))


def moved(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A batch on another device, its real numbers in another dtype."""
    columns = {}
    for name, value in vars(batch).items():
        if value is not None:
            value = value.to(device, dtype if value.is_floating_point() else value.dtype)
        columns[name] = value
    return type(batch)(**columns)


@contextlib.contextmanager
def warned() -> Iterator[list[str]]:
    """What offrl logs meanwhile, such as why updates cannot be captured."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    keeper = Keeper()
    logging.getLogger("offrl").addHandler(keeper)
    try:
        yield lines
    finally:
        logging.getLogger("offrl").removeHandler(keeper)


# ---- measuring


def synchronise(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], Any], device: torch.device, window: float) -> tuple[float, float]:
    """Seconds of one call: the median of three windows, and their spread over it."""
    for _ in range(2):
        run()
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    count = max(1, int(window / (time.perf_counter() - start)))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(count):
            run()
        synchronise(device)
        times.append((time.perf_counter() - start) / count)
    middle = statistics.median(times)
    return middle, (max(times) - min(times)) / middle


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, with 4 for a real number."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__:
            self.bytes += self._size((args, kwargs))
            if not func._schema.is_mutable:
                self.bytes += self._size(out)
            else:
                for argument, value in zip(func._schema.arguments, args, strict=False):
                    if argument.alias_info is not None and argument.alias_info.is_write:
                        self.bytes += self._size(value)
        return out

    @staticmethod
    def _size(tree: Any) -> int:
        leaves = [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]
        return sum(
            leaf.numel() * (4 if leaf.is_floating_point() else leaf.element_size())
            for leaf in leaves
        )


def work(name: str, sizes: Sizes) -> tuple[float, float]:
    """Floating-point operations of the products, and bytes, of one replica's update.

    The mean of four updates in float64 on the CPU, which take the path of a GPU.
    """
    cpu = torch.device("cpu")
    learner, sampler, _ = prepared(name, 1, cpu, sizes)
    batches = [moved(sampler.sample(), cpu, torch.float64) for _ in range(4)]
    move(learner, cpu, torch.float64)
    with FlopCounterMode(display=False) as products, Traffic() as traffic:
        for batch in batches:
            learner.update(batch)
    return products.get_total_flops() / 4, traffic.bytes / 4


def one_line(error: BaseException) -> str:
    """An exception's name and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def first_cause(error: BaseException) -> BaseException:
    """The exception during whose handling the others came."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def source_line(error: BaseException) -> str:
    """The last line of offrl in an exception's traceback."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        if path.is_relative_to(ROOT) and path != Path(__file__).resolve():
            return f"{path.relative_to(ROOT)}:{frame.lineno}: {frame.line}"
    return ""


def repeated(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What repeats some work: a CUDA graph, or a call on a CPU."""
    if device.type != "cuda":
        return work
    recorder = CudaRecorder(device)
    recorder.warm_up(work)
    return recorder.record(work)


# ---- stages


def card(job: Job) -> None:
    """The card, its driver and the versions."""
    facts = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__}
    facts["cores"] = str(os.cpu_count())
    if job.device.type == "cuda":
        properties = torch.cuda.get_device_properties(job.device)
        facts["memory"] = f"{properties.total_memory / 2**30:.1f} GiB"
        facts["processors"] = str(properties.multi_processor_count)
        command = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm", "--format=csv"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        facts["driver"] = answer.stdout.strip().splitlines()[-1] if answer.stdout else "unknown"
        facts["cuda"] = str(torch.version.cuda)
    job.record(**facts)


def streams(job: Job) -> None:
    """Words and numbers of the device, which it may have compiled, against those of the CPU."""
    keys = philox.keys(range(4), "noise")
    draw, count = torch.tensor(2**32 + 3), 100_000
    there = keys.to(job.device), draw.to(job.device)
    words = torch.equal(philox.words(*there, count).cpu(), philox.words(keys, draw, count))
    with warned() as lines:
        device, host = Streams(range(4), "noise", job.device), Streams(range(4), "noise")
        for drawing in (device, host):
            drawing.load_state_dict({"draws": torch.tensor(0)})  # by counting, on a CPU too
        result: dict[str, Any] = {"words_equal": words}
        for name, arguments in (
            ("normal", (count,)),
            ("uniform", (count,)),
            ("integers", (1_000_000, count)),
            ("bernoulli", (0.9, count)),
        ):
            a, b = getattr(device, name)(*arguments).cpu(), getattr(host, name)(*arguments)
            result[name] = (a == b).double().mean().item()
            result[f"{name}_apart"] = (a - b).abs().max().item()
        synchronise(job.device)
        for name, size in (("small", 256 * 6), ("large", 3_300_000)):
            draws = functools.partial(device.normal, size)
            result[f"seconds_{name}"], _ = timed(draws, job.device, job.sizes.window)
    job.record(**result, warnings=lines)


def eager(job: Job) -> None:
    """One update; host synchronisations in a period of updates; save, load and carry on."""
    make = functools.partial(prepared, job.algorithm, 3, job.device, with_few_rows(job.sizes))
    learner, sampler, period = make()
    learner.update(sampler.sample())
    synchronise(job.device)
    result: dict[str, Any] = {"update": "yes"}
    lines: list[str] = []
    planted = torch.ones(1, device=job.device)
    if job.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(period):
                learner.update(sampler.sample())
            planted.item()  # which has to be in the list
        torch.cuda.set_sync_debug_mode("default")
        lines = [
            f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)
        ]
    result["synchronisations"] = sorted(set(lines))
    try:
        state = learner.state_dict(), sampler.state_dict()
        other, other_sampler, _ = make()
        other.load_state_dict(state[0])
        other_sampler.load_state_dict(state[1])
        for _ in range(2 * period):
            learner.update(sampler.sample())
            other.update(other_sampler.sample())
        equal = torch.equal(weights(learner), weights(other))
        result["resume"] = "equal" if equal else "differs"
    except Exception as error:
        result["resume"] = one_line(error)
    job.record(**result)


def ceilings(job: Job) -> None:
    """Bandwidth of copies, speed of batched products, cost of a small kernel in a graph."""
    device, sizes = job.device, job.sizes
    source = torch.randn(sizes.copied // 4, device=device)
    target = torch.empty_like(source)
    seconds, spread = timed(lambda: target.copy_(source), device, sizes.window)
    job.record(what="copy", value=2 * sizes.copied / seconds, unit="B/s", spread=spread)
    for what in ("ieee", "tf32", "bf16"):
        torch.set_float32_matmul_precision("high" if what == "tf32" else "highest")
        dtype = torch.bfloat16 if what == "bf16" else torch.float32
        a, b = torch.randn(2, sizes.matrices, 256, 256, device=device).to(dtype)
        out = torch.empty_like(a)
        multiply = functools.partial(torch.bmm, a, b, out=out)
        seconds, spread = timed(multiply, device, sizes.window)
        speed = sizes.matrices * 2 * 256**3 / seconds
        job.record(what=what, value=speed, unit="FLOP/s", spread=spread)
    small, medium = torch.zeros(1, device=device), torch.randn(2**19, device=device)

    def adds() -> None:
        for _ in range(1000):
            small.add_(1)

    def relus() -> None:
        for _ in range(1000):
            medium.relu_()

    for what, run in (("1-element add", adds), ("relu of 2 MiB", relus)):
        for how, call in (("eager", run), ("graph", repeated(run, device))):
            seconds, spread = timed(call, device, sizes.window)
            job.record(what=f"{what}, {how}", value=seconds / 1000, unit="s", spread=spread)


def agreement(job: Job) -> None:
    """The device's errors against float64 on the CPU, beside those of the CPU in float32.

    Errors of gradients and losses are medians over updates that start from the float64 run's state.
    Left to themselves, runs that agree to rounding come apart where a rounding error switches a
    unit on or off, in some replicas and not in others: of those, each replica's error is recorded.
    """
    cpu, exactly, single = torch.device("cpu"), torch.float64, torch.float32
    small = 8 if job.algorithm == "decision_transformer" else 32
    sizes = with_few_rows(job.sizes)
    make = functools.partial(prepared, job.algorithm, 4, sizes=sizes, batch_size=small)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def learner(device: torch.device, dtype: torch.dtype) -> Learner:
        made, drawing = make(device=device)[0], make(device=cpu)[0]
        for name, value in vars(drawing).items():
            if isinstance(value, Streams):
                setattr(made, name, value)  # which draws on the CPU
        move(made, device, dtype)
        return made

    sampler = make(device=cpu)[1]
    batches = [sampler.sample() for _ in range(sizes.updates)]
    exact = learner(cpu, exactly)
    places = {"cpu": cpu, "device": job.device}
    forced = {name: learner(place, single) for name, place in places.items()}
    free = {name: learner(place, single) for name, place in places.items()}
    errors: dict[str, dict[str, list[float]]] = {name: {} for name in places}
    for batch in batches:
        for other in forced.values():
            copy_state(exact, other)
        losses = exact.update(moved(batch, cpu, exactly))
        gradient = gradients(exact)
        for name, place in places.items():
            there = moved(batch, place, single)
            for key, value in forced[name].update(there).items():
                if "loss" in key:
                    error = relative_error(value.to(cpu, exactly), losses[key])
                    errors[name].setdefault(key, []).append(error)
            error = relative_error(gradients(forced[name]), gradient)
            errors[name].setdefault("gradients", []).append(error)
            free[name].update(there)
    medians = {
        name: {key: statistics.median(values) for key, values in of.items()}
        for name, of in errors.items()
    }
    ratios = {
        key: value / max(medians["cpu"][key], FLOOR) for key, value in medians["device"].items()
    }
    apart = {
        name: [
            relative_error(a, b)
            for a, b in zip(by_replica(run, 4), by_replica(exact, 4), strict=True)
        ]
        for name, run in free.items()
    }
    result: dict[str, Any] = {"medians": medians, "ratios": ratios, "apart": apart}
    result["within"] = max(ratios.values()) <= TOLERANCE

    def trained(deterministic: bool = False, tf32: bool = False) -> Tensor:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        run = learner(job.device, single)
        for batch in batches:
            run.update(moved(batch, job.device, single))
        return weights(run)

    plain = weights(free["device"])
    result["equal_plain"] = torch.equal(plain, trained())
    result["weights_tf32"] = relative_error(trained(tf32=True), weights(exact))
    try:
        first = trained(deterministic=True)
        result["equal_deterministic"] = torch.equal(first, trained(deterministic=True))
        result["deterministic_as_plain"] = torch.equal(first, plain)
    except Exception as error:
        result["equal_deterministic"] = one_line(error)
    job.record(**result)


def capturing(job: Job) -> None:
    """Graphs of three replicas' updates against single ones, against another run, and resumed."""
    sizes = with_few_rows(job.sizes)
    # Schedules over 100 steps, so that a learning rate frozen in the graph shows.
    make = functools.partial(prepared, job.algorithm, 3, job.device, sizes, steps=100)

    def advanced(count: int) -> Captured:
        learner, sampler, _ = make()
        captured = Captured(learner, sampler, job.device)
        captured.advance(count)
        return captured

    with warned() as lines:
        first = advanced(0)
        count = 3 * first.size
        first.advance(count)
        synchronise(job.device)
        graph = weights(first.learner)
        result: dict[str, Any] = {"captured": first.graph is not None, "updates": count}
        result["equal_runs"] = torch.equal(graph, weights(advanced(count).learner))
        twin, twin_sampler, _ = make()
        for _ in range(count):
            twin.update(twin_sampler.sample())
        single = weights(twin)
        result["equal_eager"] = torch.equal(graph, single)
        result["difference"] = relative_error(graph, single)
        state = first.learner.state_dict(), first.sampler.state_dict()
        learner, sampler, _ = make()
        learner.load_state_dict(state[0])
        sampler.load_state_dict(state[1])
        resumed = Captured(learner, sampler, job.device, made=count)
        resumed.advance(2 * first.size)
        first.advance(2 * first.size)
        result["equal_resumed"] = torch.equal(weights(learner), weights(first.learner))
        result["moves"] = not torch.equal(graph, weights(learner))
    job.record(**result, warnings=lines)


def rates(job: Job) -> None:
    """Seconds an update, by replicas and precision, captured where that works."""
    lines = read_results(job.out)
    measured = {line["what"]: line["value"] for line in lines if "what" in line}
    operations, traffic = work(job.algorithm, job.sizes)
    precisions = ("tf32", "bfloat16") if job.device.type == "cuda" else ("float32",)

    def rate(replicas: int, precision: str, how: str = "graph") -> None:
        if job.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(job.device)
        start = time.perf_counter()
        learner, sampler, period = prepared(job.algorithm, replicas, job.device, job.sizes)
        set_precision(learner, precision, job.device)
        captured = Captured(learner, sampler, job.device)
        count = captured.size if how == "graph" else period
        if how == "eager":
            captured.recorder = None
        with warned() as why:
            captured.advance(count)
            synchronise(job.device)
            built = time.perf_counter() - start
            seconds, spread = timed(
                functools.partial(captured.advance, count), job.device, job.sizes.window
            )
        peak = 0
        if job.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(job.device)
        finite = all(bool(value.isfinite().all()) for value in captured.metrics.values())
        bounds = {}
        if measured:
            bounds["bytes_bound"] = replicas * traffic / measured["copy"]
            bounds["products_bound"] = replicas * operations / measured[PRODUCTS[precision]]
        job.record(
            replicas=replicas,
            how="graph" if captured.graph else "eager",
            precision=precision,
            seconds=seconds / count,
            spread=spread,
            peak=peak,
            built=built,
            finite=finite,
            operations=operations,
            traffic=traffic,
            warnings=why,
            **bounds,
        )

    def attempt(wanted: int, precision: str, how: str = "graph") -> None:
        replicas = wanted
        while replicas:
            try:
                return rate(replicas, precision, how)
            except torch.OutOfMemoryError as error:
                job.record(replicas=replicas, precision=precision, error=one_line(error))
            replicas //= 2
        return None

    for replicas in sorted(job.sizes.replicas, key=lambda r: (r not in (1, 90), r)):
        for precision in precisions:
            attempt(replicas, precision)
    attempt(1, precisions[0], "eager")


def of_corl(job: Job) -> None:
    """Seconds an update of CORL's own file, eager as it is, in float32 and in TF32."""
    if job.corl is None or not (job.corl / f"{job.algorithm}.py").is_file():
        return
    update = updates.of_corl(job.corl, job.algorithm, str(job.device))
    for precision in ("float32", "tf32") if job.device.type == "cuda" else ("float32",):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        seconds, spread = timed(update, job.device, job.sizes.window)
        job.record(precision=precision, seconds=seconds, spread=spread)


def profile(job: Job) -> None:
    """The kernels that take the longest, eager and captured, into a file."""
    from torch.profiler import ProfilerActivity

    replicas = job.sizes.replicas[-1]
    torch.set_float32_matmul_precision("high")
    learner, sampler, period = prepared(job.algorithm, replicas, job.device, job.sizes)

    def advance() -> None:
        for _ in range(period):
            learner.update(sampler.sample())

    on_device = job.device.type == "cuda"
    activities = [ProfilerActivity.CUDA if on_device else ProfilerActivity.CPU]
    kind = "CUDA" if on_device else "CPU"
    repeats = 10

    def look(how: str, run: Callable[[], None]) -> None:
        seconds, _ = timed(run, job.device, job.sizes.window)
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(repeats):
                run()
            synchronise(job.device)
        rows = []
        for event in profiler.key_averages():
            if event.device_type.name == kind:
                spent = event.self_device_time_total if on_device else event.self_cpu_time_total
                rows.append((spent / repeats / period, event.count / repeats / period, event.key))
        rows.sort(reverse=True)
        busy, count = sum(row[0] for row in rows) / 1e6, sum(row[1] for row in rows)
        with (job.out / "profile.txt").open("a") as file:
            title = f"{job.algorithm}, R = {replicas}, tf32, {how}"
            print(f"{title}: {count:.0f} kernels, {busy * 1e3:.3f} ms an update", file=file)
            for spent, number, key in rows[:25]:
                print(f"{spent:10.1f} us {number:7.1f} x  {key[:150]}", file=file)
        job.record(replicas=replicas, how=how, kernels=count, busy=busy, seconds=seconds / period)

    look("eager", advance)
    look("graph", repeated(advance, job.device))


STAGES: dict[str, Callable[[Job], None]] = {
    "card": card,
    "streams": streams,
    "eager": eager,
    "ceilings": ceilings,
    "agreement": agreement,
    "capture": capturing,
    "rates": rates,
    "corl": of_corl,
    "profile": profile,
}


# ---- the whole


def read_results(out: Path) -> list[dict[str, Any]]:
    """All lines so far."""
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Parent:
    """Runs jobs in processes until the time is over."""

    def __init__(self, arguments: argparse.Namespace, out: Path):
        self.arguments, self.out = arguments, out
        self.end = time.monotonic() + arguments.seconds

    def run(self, stage: str, algorithm: str, limit: float, threads: int) -> int:
        """One job's exit status, after at most `limit` seconds."""
        left = min(limit, self.end - time.monotonic())
        if left < 5:
            self._record(stage, algorithm, "left out: the time is over")
            return 1
        command = [sys.executable, __file__, "--stage", stage, "--algorithm", algorithm]
        command += ["--out", str(self.out), "--threads", str(threads)]
        command += ["--device", self.arguments.device, *["--tiny"] * self.arguments.tiny]
        if self.arguments.corl:
            command += ["--corl", str(self.arguments.corl)]
        environment = dict(os.environ)
        if stage in ("agreement", "capture"):
            environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        with (self.out / "log.txt").open("a") as log:
            try:
                status = subprocess.run(
                    command, stdout=log, stderr=log, timeout=left, env=environment, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                self._record(stage, algorithm, f"stopped after {left:.0f} s")
                return 1
        if status not in (0, 2):  # 2 has left a line itself
            self._record(stage, algorithm, f"exit status {status}")
        return status

    def _record(self, stage: str, algorithm: str, error: str) -> None:
        with (self.out / "results.jsonl").open("a") as file:
            file.write(json.dumps({"stage": stage, "algorithm": algorithm, "error": error}) + "\n")

    def run_all(self) -> None:
        """All the stages, or those asked for."""
        cores = os.cpu_count() or 1
        workers = min(len(ALGORITHMS), max(1, cores // 2)) if not self.arguments.tiny else 1

        with ThreadPoolExecutor(workers) as pool:
            for stage in self.arguments.stages.split(","):
                start = time.monotonic()
                if stage == "eager":
                    [*pool.map(lambda name: self.run("eager", name, 60, 1), ALGORITHMS)]
                elif stage == "agreement":
                    [*pool.map(lambda name: self.run("agreement", name, 100, 2), ALGORITHMS)]
                elif stage == "capture":
                    [*pool.map(lambda name: self.run("capture", name, 90, 1), ALGORITHMS)]
                elif stage == "rates":
                    for name in RATED:
                        self.run("rates", name, 65, min(8, cores))
                elif stage == "corl":
                    for name in updates.TRAINERS if self.arguments.corl else ():
                        self.run("corl", name, 30, 1)
                else:
                    self.run(stage, "td3_bc", 120, 1)
                print(f"{stage}: {time.monotonic() - start:.0f} s", flush=True)


def table(out: Path) -> None:
    """Prints the results."""
    lines = read_results(out)

    def of(stage: str) -> list[dict[str, Any]]:
        return [line for line in lines if line["stage"] == stage]

    for line in of("card"):
        print(", ".join(f"{k} {v}" for k, v in line.items() if k not in ("stage", "algorithm")))
    print("\neager: update | resume | lines that synchronise, one of them planted in gpu.py")
    for line in of("eager"):
        if "error" not in line:
            where = " ".join(line["synchronisations"]) or "none"
            print(f"{line['algorithm']:22s} {line['update']} | {line['resume']} | {where}")
    print()
    for line in of("ceilings"):
        if "what" in line:
            print(f"{line['what']:24s} {line['value']:.4g} {line['unit']}  +-{line['spread']:.0%}")
    print("\nagreement with float64: median error of gradients and worst loss, device, CPU, ratio;")
    print("weights after free runs, by replica, device, CPU; the same in tf32; are runs equal")
    for line in of("agreement"):
        if "within" in line:
            medians, ratios = line["medians"], line["ratios"]
            worst = max(ratios.keys() - {"gradients"}, key=lambda key: ratios[key])
            errors = [
                f"{key} {medians['device'][key]:.1e} {medians['cpu'][key]:.1e} {ratios[key]:.2f}"
                for key in ("gradients", worst)
            ]
            free = [" ".join(f"{e:.0e}" for e in line["apart"][k]) for k in ("device", "cpu")]
            print(
                f"{line['algorithm']:22s} {'within' if line['within'] else 'BEYOND'} "
                f"{TOLERANCE:g}x | {' | '.join(errors + free)} | {line['weights_tf32']:.0e} | "
                f"plain {line['equal_plain']}, deterministic {line['equal_deterministic']}"
            )
    for line in of("streams"):
        if "words_equal" in line:
            equal = {k: line[k] for k in ("normal", "uniform", "integers", "bernoulli")}
            print(f"\nstreams: words equal {line['words_equal']}, shares of equal numbers {equal}")
            print(f"seconds: {line['seconds_small']:.2e} {line['seconds_large']:.2e}")
    print("\ncapture, R = 3: equal to single updates | of two runs | of one saved and resumed")
    for line in of("capture"):
        if "captured" in line:
            print(
                f"{line['algorithm']:22s} captured {line['captured']} | {line['equal_eager']} "
                f"({line['difference']:.1e}) | {line['equal_runs']} | {line['equal_resumed']}"
            )
        for text in line.get("warnings", []):
            print(f"    {text[:220]}")
    print("\nrates: R, how, updates a second and seed, ms an update (bounds: bytes, products), GiB")
    for line in of("rates"):
        if "seconds" in line:
            bounds = [line.get(k, math.nan) * 1e3 for k in ("bytes_bound", "products_bound")]
            print(
                f"{line['algorithm']:22s} {line['replicas']:3d} {line['precision']:8s} "
                f"{line['how']:5s} {1 / line['seconds']:8.1f} {line['seconds'] * 1e3:8.3f} "
                f"({bounds[0]:7.3f} {bounds[1]:7.3f}) {line['peak'] / 2**30:6.2f} "
                f"+-{line['spread']:.0%}{'' if line['finite'] else ' NOT FINITE'}"
            )
    grid(of("rates"))
    for line in of("corl"):
        if "seconds" in line:
            print(
                f"CORL's {line['algorithm']}, {line['precision']}: {1 / line['seconds']:.1f} "
                f"updates a second, {line['seconds'] * 1e3:.3f} ms, +-{line['spread']:.0%}"
            )
    for line in of("profile"):
        if "kernels" in line:
            print(
                f"profile R = {line['replicas']}, {line['how']}: {line['kernels']:.0f} kernels, "
                f"{line['busy'] * 1e3:.3f} ms busy of {line['seconds'] * 1e3:.3f}"
            )
    for line in lines:
        if "error" in line:
            print(f"{line['stage']} {line['algorithm']}: {line['error']}")


def grid(lines: list[dict[str, Any]]) -> None:
    """Prints how long nine data sets with ten seeds each take, by the largest batch measured."""
    rated = {
        (line["algorithm"], line["precision"], line["replicas"]): line
        for line in lines
        if "seconds" in line and line["how"] == "graph"
    }
    print(f"\nminutes of {GRID} runs, extrapolated from a stretch (by bytes, by products alone);")
    print("time of ten seeds over that of one")
    for name in RATED:
        for precision in PRODUCTS:
            sizes = [r for n, p, r in rated if (n, p) == (name, precision)]
            if not sizes:
                continue
            replicas = max(sizes)
            line = rated[name, precision, replicas]
            runs = UPDATES.get(name, 1_000_000) * GRID / replicas / 60
            bounds = [line.get(k, math.nan) * runs for k in ("bytes_bound", "products_bound")]
            ratio = math.nan
            if {1, 10} <= {*sizes}:
                one, ten = (rated[name, precision, r]["seconds"] for r in (1, 10))
                ratio = ten / one
            print(
                f"{name:22s} {precision:8s} R = {replicas:3d} {line['seconds'] * runs:8.1f} "
                f"({bounds[0]:7.1f} {bounds[1]:7.1f}) {ratio:6.2f}x"
            )


def main() -> None:
    """Runs all stages in processes, or one of them in this one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    parser.add_argument("--seconds", type=float, default=420, help="until the last process ends")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of them, with commas")
    parser.add_argument("--corl", type=Path, help="the folder of CORL's algorithms/offline")
    for hidden in ("--stage", "--algorithm"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.stage is None:
        try:
            Parent(arguments, arguments.out).run_all()
        finally:
            table(arguments.out)
        return
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    sizes = TINY if arguments.tiny else FULL
    job = Job(arguments.stage, arguments.algorithm, device, sizes, arguments.out, arguments.corl)
    try:
        STAGES[arguments.stage](job)
    except Exception as error:
        traceback.print_exc()
        job.record(error=one_line(first_cause(error)), line=source_line(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
