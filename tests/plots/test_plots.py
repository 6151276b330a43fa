"""The figures, as drawn: where their texts lie, and whether they show the numbers given."""

import itertools
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from offrl import plots, statistics
from offrl.errors import InputError
from offrl.plots.layout import axes_size, figure_of, new_axes, text_width, wrap_names
from offrl.plots.style import REST, distinct_styles
from offrl.results.table import ScoreTable
from offrl.statistics.comparison import compare
from offrl.statistics.resampling import Resampling
from offrl.statistics.tuning_budget import online_performance

SHORT = ["BC", "IQL", "TD3+BC", "CQL", "mine"]
LONG = [f"{'a name of many words, ' * 3}{k:02d}"[-60:] for k in range(17)]


def summary(names: list[str], spread: float = 1.0) -> pd.DataFrame:
    methods = {"percentile": 2.0, "expanded percentile": 3.0, "studentized": 4.0}
    return pd.DataFrame(
        [
            (name, "iqm", 50 + spread * k, 50 + spread * (k - w), 50 + spread * (k + w), method)
            for k, name in enumerate(names)
            for method, w in methods.items()
        ],
        columns=["algorithm", "metric", "estimate", "ci_low", "ci_high", "ci_method"],
    )


def lines(names: list[str], x: str, y: str, at: Any, spread: float = 1.0) -> pd.DataFrame:
    """One line per algorithm with both bands."""
    parts = []
    for k, name in enumerate(names):
        value = 0.3 + spread * (0.01 * k + np.linspace(0, 0.1, len(at)))
        ends = {"ci_low": -0.02, "ci_high": 0.02, "band_low": -0.03, "band_high": 0.03}
        bands = {column: value + spread * off for column, off in ends.items()}
        parts.append(pd.DataFrame({"algorithm": name, x: at, y: value, **bands}))
    return pd.concat(parts, ignore_index=True)


def pairs(names: list[str], spread: float = 1.0, told: Any = ()) -> pd.DataFrame:
    """All pairs; those of `told`, given as tuples of names, are told apart."""
    rows = []
    for (i, x), (j, y) in itertools.combinations(enumerate(names), 2):
        chance = 0.5 + spread * 0.45 * (j - i) / len(names)
        p = 0.01 if (x, y) in told or (y, x) in told else 0.8
        rows.append((x, y, chance, chance - 0.04, chance + 0.04, p))
    ends = ["probability_low", "probability_high"]
    return pd.DataFrame(rows, columns=["x", "y", "probability", *ends, "p_adjusted"])


def ranks(names: list[str], means: Any = None) -> pd.DataFrame:
    n = len(names)
    chances = np.exp(-0.5 * np.subtract.outer(np.arange(n), np.arange(n)) ** 2)
    frame = pd.DataFrame(chances / chances.sum(1, keepdims=True))
    frame.columns = [f"rank_{k + 1}" for k in range(n)]
    frame.insert(0, "mean_rank", np.arange(1.0, n + 1) if means is None else means)
    frame.insert(0, "algorithm", names)
    return frame


def draw(names: list[str], spread: float = 1.0) -> dict[str, Axes]:
    """Every kind of figure; with no spread every value is the same."""
    middle = None if spread else [(len(names) + 1) / 2] * len(names)
    both = pairs(names, spread)
    budgets = lines(names, "budget", "value", range(1, 13), spread)
    return {
        "interval": plots.interval_plot(summary(names, spread)),
        "profile": plots.profile_plot(lines(names, "tau", "share", np.arange(101.0), spread)),
        "curve": plots.curve_plot(
            lines(names, "step", "iqm", range(0, 10**6, 10**4), spread), title="all"
        ),
        "online": plots.online_plot(budgets.drop(columns=["band_low", "band_high"])),
        "improvement": plots.improvement_plot(both),
        "baseline": plots.improvement_plot(both, baseline=names[-1]),
        "matrix": plots.improvement_matrix_plot(both),
        "critical difference": plots.critical_difference_plot(ranks(names, middle), both),
        "rank": plots.rank_plot(ranks(names, middle)),
    }


def test_a_panel_shows_the_lines_and_puts_the_grey_ones_behind():
    names = [f"n{k:02d}" for k in range(10)]
    data = lines(names, "step", "iqm", range(0, 10_000, 100))
    with plots.style(looks=plots.assigned_styles(names, {})):
        ax = plots.panel_plot(data, "step", "iqm", x_name="steps", y_name="IQM")
    drawn = {line.get_color(): line for line in ax.get_lines()}
    assert len(ax.get_lines()) == 10
    assert len(drawn) == 9  # eight colours, and grey twice
    assert not ax.collections  # no bands of so many
    coloured = [line for line in ax.get_lines() if line.get_color() != REST]
    grey = [line for line in ax.get_lines() if line.get_color() == REST]
    assert max(line.get_zorder() for line in grey) < min(line.get_zorder() for line in coloured)
    assert len({line.get_marker() for line in coloured}) > 1
    for name, line in zip(names, ax.get_lines(), strict=True):
        values = np.asarray(line.get_ydata())
        assert (values == data.loc[data["algorithm"] == name, "iqm"].to_numpy()).all()
    few = data[data["algorithm"].isin(names[:6])]
    with plots.style():
        ax = plots.panel_plot(few, "step", "iqm", x_name="steps", y_name="IQM")
    assert len(ax.collections) == 6
    words, extents = boxes(ax.get_figure())
    assert touching(words, extents) == []
    assert (extents[:, :2] >= -0.5).all()


def test_the_legend_of_panels_names_every_algorithm():
    names = ["IQL", "$100", "a name of many words " * 3]
    with plots.style():
        legend = plots.legend_plot(names, {"IQL": "Ours"}).get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == ["Ours", r"\$100"]
    assert [line.get_color() for line in legend.get_lines()] == [
        plots.line_style(name)["color"] for name in names
    ]


CASES = {
    "two": (SHORT[:2], 1.0),
    "five": (SHORT, 1.0),
    "five equal": (SHORT, 0.0),
    "two long": (LONG[:2], 1.0),
    "twenty": ([*LONG, "W" * 60, "$100", "Ünï"], 1.0),
    "twenty equal": ([*LONG, "W" * 60, "$100", "Ünï"], 0.0),
}


@pytest.fixture(scope="module", params=CASES)
def drawn(request):
    with plots.style():
        return draw(*CASES[request.param])


def ticks(axis: Any) -> list[Text]:
    """The tick labels within an axis' range; matplotlib keeps some beyond it, undrawn."""
    low, high = sorted(axis.get_view_interval())
    both = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [label for at, label in both if low <= at <= high]


def boxes(figure: Any) -> tuple[list[str], Any]:
    """Every text that a figure shows, and left, bottom, right, top of each, shape (texts, 4)."""
    found: list[Text] = []
    renderer = FigureCanvasAgg(figure).get_renderer()
    with plots.style():  # which sets the size of texts when they are drawn
        figure.draw_without_rendering()
        for ax in figure.axes:
            for axis in (ax.xaxis, ax.yaxis):
                if axis.get_visible():
                    found += [*ticks(axis), axis.label, axis.get_offset_text()]
            found += [child for child in ax.get_children() if isinstance(child, Text)]
            if (legend := ax.get_legend()) is not None:
                found += legend.get_texts()
        found = [text for text in found if text.get_text() and text.get_visible()]
        extents = np.array([text.get_window_extent(renderer).extents for text in found])
        return [text.get_text() for text in found], extents


def touching(words: list[str], extents: Any) -> list[tuple[str, str]]:
    """The pairs of texts whose boxes overlap by more than a pixel."""
    low, high = extents[:, None, :2], extents[:, None, 2:]
    shared = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))
    one, two = np.nonzero(np.triu((shared > 1).all(-1), 1))
    return [(words[i], words[j]) for i, j in zip(one, two, strict=True)]


def test_no_two_texts_touch_and_none_leaves_the_figure(drawn):
    for kind, ax in drawn.items():
        figure = ax.get_figure()
        words, extents = boxes(figure)
        assert len(words) > 6
        assert touching(words, extents) == [], kind
        assert (extents[:, :2] >= figure.bbox.min - 0.5).all(), kind
        assert (extents[:, 2:] <= figure.bbox.max + 0.5).all(), kind


def test_texts_that_touch_would_be_found():
    ax = Figure().subplots()
    for x, word in ((0.5, "one"), (0.51, "two"), (0.9, "three")):
        ax.text(x, 0.5, word)
    assert touching(*boxes(ax.get_figure())) == [("one", "two")]


def test_every_axis_has_a_name_and_its_unit(drawn):
    names = {kind: (ax.get_xlabel(), ax.get_ylabel()) for kind, ax in drawn.items()}
    improvement = "probability of improvement P(X > Y), 0–1"
    assert names == {
        "interval": ("IQM of the score, 0–100", "algorithm"),
        "profile": ("threshold τ on the score, 0–100", "share of runs with score > τ"),
        "curve": ("gradient steps", "IQM of the score, 0–100"),
        "online": ("policies evaluated online", "expected online performance, 0–100"),
        "improvement": (improvement, "algorithm X"),
        "baseline": (improvement, "algorithm X"),
        "matrix": ("algorithm Y", "algorithm X"),
        "critical difference": ("mean rank over data sets (1 is best)", ""),
        "rank": ("probability of the rank on a data set (1 is best), 0–1", "algorithm"),
    }
    others = [a for a in drawn["improvement"].get_figure().axes if a is not drawn["improvement"]]
    assert [ax.get_ylabel() for ax in others] == ["algorithm Y"]
    bar = drawn["matrix"].get_figure().axes[1]
    assert bar.get_ylabel() == "probability of improvement\nP(X > Y), 0–1"


def test_scores_between_0_and_1_are_named_so():
    at = range(3)
    assert "0–1" in plots.interval_plot(summary(SHORT), scale=1).get_xlabel()
    assert (
        plots.online_plot(lines(SHORT, "budget", "value", at), scale=1).get_ylabel()[-3:] == "0–1"
    )


def test_plots_draw_into_the_axes_they_are_given_and_touch_no_global_state():
    before = dict(matplotlib.rcParams)
    mine = Figure(figsize=(12, 8)).subplots(2, 3).ravel()
    both, rank = pairs(SHORT), ranks(SHORT)
    assert plots.improvement_plot(both, ax=mine[0]) is mine[0]
    assert plots.improvement_matrix_plot(both, ax=mine[1]) is mine[1]
    assert plots.critical_difference_plot(rank, both, ax=mine[2]) is mine[2]
    assert plots.rank_plot(rank, ax=mine[3]) is mine[3]
    budgets = lines(SHORT, "budget", "value", range(1, 5))
    assert plots.online_plot(budgets, ax=mine[4]) is mine[4]
    assert dict(matplotlib.rcParams) == before


def segments(ax: Axes) -> list[tuple[Any, ...]]:
    """The x of every line drawn."""
    return [tuple(np.asarray(line.get_xdata(), dtype=float)) for line in ax.get_lines()]


def bands(ax: Axes) -> list[tuple[str, float, float]]:
    """Colour, lowest and highest y of every area drawn."""
    found = []
    for area in ax.collections:
        assert isinstance(area, PolyCollection)
        paths: Any = area.get_paths()
        faces: Any = area.get_facecolor()
        ys = np.concatenate([path.vertices[:, 1] for path in paths])
        colour = matplotlib.colors.to_hex(faces[0])
        found.append((colour.upper(), ys.min(), ys.max()))
    return found


def texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_interval_plot_shows_the_methods_that_there_are(count):
    frame = summary(SHORT)
    methods = list(dict.fromkeys(frame["ci_method"]))[:count]
    ax = plots.interval_plot(frame[frame["ci_method"].isin(methods)])
    assert texts(ax) == [f"95 % {method}" for method in methods]
    first = {xs for xs in segments(ax) if sum(xs) == 100}  # of the first algorithm, at 50
    assert first == set([(48.0, 52.0), (47.0, 53.0), (46.0, 54.0)][:count])
    frame.loc[:, ["ci_low", "ci_high"]] = np.nan
    ax = plots.interval_plot(frame[frame["ci_method"].isin(methods)])
    assert texts(ax) == ["no interval"]
    assert [x for x, _ in hollow(ax)] == [50, 51, 52, 53, 54]


def test_an_infinite_end_is_an_arrow_at_the_edge():
    frame = summary(SHORT[:2])
    frame.loc[2, "ci_low"] = -np.inf
    ax = plots.interval_plot(frame)
    left, right = ax.get_xlim()
    assert 40 < left < right < 60
    assert (left, 54.0) in segments(ax)
    arrows: list[Any] = [line for line in ax.get_lines() if line.get_marker() in ("<", ">")]
    assert [(line.get_marker(), *line.get_xdata()) for line in arrows] == [("<", left)]


@pytest.mark.parametrize("kind", ["profile", "curve"])
def test_both_bands_are_drawn_and_named(kind):
    x, y = {"profile": ("tau", "share"), "curve": ("step", "iqm")}[kind]
    frame = lines(SHORT[:2], x, y, range(0, 100, 10))
    plot: Any = {"profile": plots.profile_plot, "curve": plots.curve_plot}[kind]
    ax = plot(frame)
    expected = []
    for name in SHORT[:2]:
        part = frame[frame["algorithm"] == name]
        colour = plots.line_style(name)["color"].upper()
        expected.append((colour, part["ci_low"].min(), part["ci_high"].max()))
        expected.append((colour, part["band_low"].min(), part["band_high"].max()))
    assert bands(ax) == expected
    # The simultaneous band, which is the wider one, is the lighter.
    assert ax.collections[0].get_alpha() > ax.collections[1].get_alpha()
    assert texts(ax) == [*SHORT[:2], "95 % pointwise", "95 % simultaneous"]


def test_legends_name_the_level_that_was_computed():
    rng = np.random.default_rng(0)
    resampling = Resampling(100, level=0.9)
    table = ScoreTable.from_arrays(
        {name: rng.normal(size=(3, 2, 2)) for name in SHORT[:3]}, ["x", "y"], steps=[1, 2]
    )
    grid = table.final().frame.drop(columns="step")
    grid = pd.concat(
        [grid.assign(setting=lr, score=grid["score"] + k) for k, lr in enumerate("ab")]
    )
    comparison = compare(table, permutations=100, resampling=resampling).pairs
    drawn = [
        plots.interval_plot(statistics.summarise(table, resampling=resampling)),
        plots.profile_plot(statistics.profile(table, resampling=resampling)),
        plots.curve_plot(statistics.curve(table, resampling=resampling)),
        plots.improvement_plot(comparison),
        plots.improvement_plot(comparison, baseline=SHORT[0]),
        plots.online_plot(online_performance(ScoreTable.from_frame(grid), resampling=resampling)),
    ]
    for ax in drawn:
        levels = [text for text in texts(ax) if "%" in text]
        assert levels
        assert all(text.startswith("90 % ") for text in levels)


def hollow(ax: Axes) -> list[tuple[float, float]]:
    """Where hollow points are drawn."""
    found: list[tuple[float, float]] = []
    for line in ax.get_lines():
        if line.get_markerfacecolor() == "none" and line.get_markevery() != []:
            found += zip(*(np.asarray(d, float) for d in line.get_data()), strict=True)
    return found


def test_a_point_without_an_interval_is_hollow():
    frame = lines(SHORT[:2], "budget", "value", range(1, 5)).drop(columns=["band_low", "band_high"])
    assert hollow(plots.online_plot(frame)) == []
    assert texts(plots.online_plot(frame)) == [*SHORT[:2], "95 % pointwise"]
    frame.loc[[3, 7], ["ci_low", "ci_high"]] = np.nan
    ax = plots.online_plot(frame)
    assert hollow(ax) == [(4.0, frame["value"][3]), (4.0, frame["value"][7])]
    assert ax.get_lines()[0].get_markevery() == [0, 1, 2], "filled at the others alone"
    assert texts(ax)[-1] == "no interval"
    frame.loc[:3, ["ci_low", "ci_high"]] = np.nan
    ax = plots.online_plot(frame)
    assert hollow(ax)[:4] == [(float(k + 1), frame["value"][k]) for k in range(4)]

    both = pairs(SHORT[:3])
    assert hollow(plots.improvement_plot(both)) == []
    both.loc[1, ["probability_low", "probability_high"]] = np.nan
    ax = plots.improvement_plot(both)
    assert [x for x, _ in hollow(ax)] == [both["probability"][1]]
    assert texts(ax) == ["no difference", "95 % interval", "no interval"]
    both.loc[1, "probability"] = np.nan
    ax = plots.improvement_plot(both)
    assert hollow(ax) == []
    assert [text.get_text() for text in ax.texts] == ["not computed"]


def test_online_performance_has_whole_budgets_on_a_linear_or_logarithmic_axis():
    few = plots.online_plot(lines(SHORT[:2], "budget", "value", range(1, 8)))
    many = plots.online_plot(lines(SHORT[:2], "budget", "value", [1, 2, 5, 10, 31]))
    assert (few.get_xscale(), many.get_xscale()) == ("linear", "log")
    for ax in (few, many):
        words, _ = boxes(ax.get_figure())
        labels = [text.get_text() for text in ticks(ax.xaxis)]
        assert set(labels) <= set(words)
        assert len(labels) >= 4
        assert all(label.isdigit() for label in labels)
    assert [text.get_text() for text in ticks(many.xaxis)] == ["1", "2", "5", "10", "20"]


def rows(ax: Any) -> dict[tuple[str, str], tuple[Any, ...]]:
    """(X, Y) -> the line in that row of an improvement plot."""
    other = next(a for a in ax.get_figure().axes if a is not ax)
    left, right = ([t.get_text() for t in a.get_yticklabels()] for a in (ax, other))
    assert list(other.get_yticks()) == list(ax.get_yticks())
    assert other.get_ylim() == ax.get_ylim()
    found = {}
    for x, y, at in zip(left, right, ax.get_yticks(), strict=True):
        (ends,) = (
            tuple(line.get_xdata())
            for line in ax.get_lines()
            if len(line.get_xdata()) == 2 and list(line.get_ydata()) == [at, at]
        )
        found[x, y] = ends
    return found


def test_an_improvement_plot_shows_the_pairs_as_given():
    both = pairs(SHORT[:3])
    ax = plots.improvement_plot(both)
    low, high = both["probability_low"], both["probability_high"]
    found = rows(ax)
    assert list(found) == [("BC", "IQL"), ("BC", "TD3+BC"), ("IQL", "TD3+BC")]
    assert list(found.values()) == list(zip(low, high, strict=True))
    assert ax.get_xlim()[0] <= 0
    assert ax.get_xlim()[1] >= 1
    reference = [xs for xs in segments(ax) if set(xs) == {0.5}]
    assert len(reference) == 1


def test_against_a_baseline_pairs_are_turned_so_that_it_is_y():
    # P(BC > IQL) = 0.7 in [0.6, 0.9], so P(IQL > BC) = 0.3 in [0.1, 0.4].
    columns = ["x", "y", "probability", "probability_low", "probability_high", "p_adjusted"]
    both = pd.DataFrame(
        [
            ("BC", "IQL", 0.7, 0.6, 0.9, 0.5),
            ("BC", "CQL", 0.5, 0.5, 0.5, 0.5),
            ("CQL", "IQL", 0.2, 0.1, 0.3, 0.5),
        ],
        columns=columns,
    )
    of_bc, of_iql = (rows(plots.improvement_plot(both, baseline=b)) for b in ("BC", "IQL"))
    assert of_bc == {
        ("IQL", "BC"): pytest.approx((0.1, 0.4)),
        ("CQL", "BC"): pytest.approx((0.5, 0.5)),
    }
    assert of_iql == {("BC", "IQL"): (0.6, 0.9), ("CQL", "IQL"): (0.1, 0.3)}
    with pytest.raises(InputError, match=r"no pair with baseline 'TD3'; expected one of BC, CQL"):
        plots.improvement_plot(both, baseline="TD3")


def test_a_matrix_shows_every_pair_twice_and_marks_those_told_apart():
    names = ["c", "b", "a"]  # in the order of P(X > others) here
    both = pairs(names, told=[("c", "a")]).sample(frac=1, random_state=0)
    ax: Any = plots.improvement_matrix_plot(both)
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    assert [t.get_text() for t in ax.get_xticklabels()] == names
    # Rows are X: P(c > b) = 0.5 + 0.45 / 3, P(c > a) = 0.5 + 0.9 / 3.
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {
        (1.5, 0.5): "0.65",
        (2.5, 0.5): "0.80",
        (2.5, 1.5): "0.65",
        (0.5, 1.5): "0.35",
        (0.5, 2.5): "0.20",
        (1.5, 2.5): "0.35",
    }
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is on top"
    (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    values: Any = mesh.get_array()
    colours = values.reshape(3, 3)
    assert colours[0].tolist() == [None, pytest.approx(0.65), pytest.approx(0.8)]
    assert mesh.get_clim() == (0, 1)
    dots = {(line.get_xdata()[0], round(line.get_ydata()[0], 2)) for line in ax.get_lines()}
    assert dots == {(2.5, 0.83), (0.5, 2.83)}
    assert "p ≤ 0.05" in texts(ax)[0]
    assert not plots.improvement_matrix_plot(both, alpha=0.001).get_lines()


def groups(ax: Any, at: dict[str, float]) -> list[set[str]]:
    """The algorithms that each bar of a critical-difference diagram joins, from left to right."""
    bars = [line for line in ax.get_lines() if line.get_linewidth() == 3.5]
    levels = [(line.get_ydata()[0], *line.get_xdata()) for line in bars]
    for (a, low, high), (b, start, end) in itertools.combinations(levels, 2):
        assert a != b or high < start or end < low, "two bars touch"
    spans = sorted((low, high) for _, low, high in levels)
    return [{name for name, x in at.items() if low <= x <= high} for low, high in spans]


def joined(at: dict[str, float], told: Any) -> list[set[str]]:
    names = sorted(at)
    frame = ranks(names, [at[name] for name in names])
    return groups(plots.critical_difference_plot(frame, pairs(names, told=told)), at)


def test_bars_join_what_demsar_joins():
    # Demšar 2006, section 3.2.2 and figure 1: mean ranks on 14 data sets. At 0.10 the critical
    # difference of Nemenyi's test is 1.12, and "the performance of pure C4.5 is significantly
    # worse than that of C4.5+m and C4.5+m+cf"; the data do not tell where C4.5+cf belongs.
    at = {"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    critical = 2.291 * np.sqrt(4 * 5 / (6 * 14))
    apart = [
        two for two in itertools.combinations(at, 2) if abs(at[two[0]] - at[two[1]]) > critical
    ]
    assert joined(at, apart) == [{"C4.5+m+cf", "C4.5+m", "C4.5+cf"}, {"C4.5+cf", "C4.5"}]


def test_bars_are_the_widest_groups_of_neighbours():
    at = {"a": 1.5, "b": 2.0, "c": 3.0, "d": 3.5}
    chain = [("a", "c"), ("a", "d"), ("b", "d")]
    assert joined(at, chain) == [{"a", "b"}, {"b", "c"}, {"c", "d"}]
    assert joined(at, []) == [{"a", "b", "c", "d"}]
    assert joined(at, itertools.combinations("abcd", 2)) == []
    # a and c are not told apart, but b between them is: no bar from a to c.
    assert joined(at, [("a", "b"), ("b", "c"), ("b", "d")]) == [{"c", "d"}]
    # Within a, b, c nothing is told apart: b, c alone is no bar of its own.
    assert joined(at, [("a", "d"), ("b", "d")]) == [{"a", "b", "c"}, {"c", "d"}]


def test_bars_take_ties_whole():
    at = {"a": 1.5, "b": 1.5, "c": 3.0}
    assert joined(at, [("a", "c"), ("b", "c")]) == [{"a", "b"}]
    # A bar from b to c would seem to join a too.
    assert joined(at, [("a", "c")]) == [{"a", "b"}]
    assert joined(at, [("a", "b")]) == []


def test_a_test_without_an_answer_tells_nothing_apart():
    both = pairs(["a", "b"]).assign(p_adjusted=np.nan)
    ax = plots.critical_difference_plot(ranks(["a", "b"]), both)
    assert groups(ax, {"a": 1, "b": 2}) == [{"a", "b"}]


def test_a_diagram_shows_every_mean_rank_and_needs_every_pair():
    at = {"d": 3.5, "a": 1.25, "c": 3.0, "b": 2.25}
    ax: Any = plots.critical_difference_plot(ranks(list(at), at.values()), pairs(list(at)))
    assert ax.get_xlim() == (1, 4)
    assert [text.get_text() for text in ticks(ax.xaxis)] == ["1", "2", "3", "4"]
    words = [text.get_text() for text in ax.texts]
    assert words == ["1.25", "a", "2.25", "b", "3.50", "d", "3.00", "c"]
    # Each leader starts at its rank on the axis and ends at the height of its name.
    heights = {text.get_text(): text.xy[1] for text in ax.texts}
    leaders = {line.get_xdata()[0]: line for line in ax.get_lines() if len(line.get_xdata()) == 3}
    for name, rank in at.items():
        assert leaders[rank].get_ydata()[0] == 0
        assert leaders[rank].get_ydata()[2] == heights[name]
        assert leaders[rank].get_color() == plots.line_style(name)["color"]
    missing = pairs(list(at)).iloc[1:]
    with pytest.raises(InputError, match="no pair of 'a' and 'd'"):
        plots.critical_difference_plot(ranks(list(at), at.values()), missing)


def test_no_two_leader_lines_cross():
    names = [f"n{k}" for k in range(20)]
    means = np.random.default_rng(0).uniform(1, 20, 20)
    ax: Any = plots.critical_difference_plot(ranks(names, means), pairs(names))
    leaders = [line.get_xydata() for line in ax.get_lines() if len(line.get_xdata()) == 3]
    assert len(leaders) == 20
    for one, two in itertools.permutations(leaders, 2):
        # Does the level part of one meet the upright part of the other?
        low, high = sorted([one[1, 0], one[2, 0]])
        assert not (low <= two[0, 0] <= high and two[1, 1] > one[1, 1])


def test_a_rank_plot_stacks_the_probabilities_from_the_best_rank():
    frame: Any = ranks(["b", "a", "c"], [2.0, 1.0, 3.0])
    ax: Any = plots.rank_plot(frame)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    bars = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    for y, row in zip(ax.get_yticks(), [1, 0, 2], strict=True):
        mine = sorted((b.get_x(), b.get_width()) for b in bars if b.get_y() < y < b.get_y() + 1.2)
        chances = frame.loc[row, ["rank_1", "rank_2", "rank_3"]].to_numpy(float)
        assert [width for _, width in mine] == pytest.approx(chances)
        assert [x for x, _ in mine] == pytest.approx(chances.cumsum() - chances)
    assert texts(ax) == ["rank 1", "rank 2", "rank 3"]
    # Ordered in lightness (Rec. 601 luma), which a colour-blind reader sees too.
    keys = [patch.get_facecolor()[:3] for patch in ax.get_legend().get_patches()]
    luma = np.array(keys) @ (0.299, 0.587, 0.114)
    assert (np.diff(luma) > 0.1).all()


def test_looks_differ_within_a_figure_and_colours_belong_to_names():
    names = [f"setting {k}" for k in range(60)]
    ax = plots.curve_plot(lines(names, "step", "iqm", range(3)))
    drawn = ax.get_lines()
    assert [ln.get_color() for ln in drawn] == [plots.line_style(n)["color"] for n in names]
    alone = {str(plots.line_style(name)) for name in names}
    assert len(alone) < len(names), "else this tests nothing"
    assert len({str(look) for look in distinct_styles(names).values()}) == len(names)


def test_what_the_library_computes_is_drawn():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            (name, f"task-{k}", seed, step, 20 * i + 5 * k + step + rng.normal())
            for i, name in enumerate(SHORT[:3])
            for k in range(3)
            for seed in range(4)
            for step in (1, 2)
        ],
        columns=["algorithm", "dataset", "seed", "step", "score"],
    )
    table = ScoreTable.from_frame(frame)
    tuned = frame.assign(setting=frame["seed"] // 2, seed=frame["seed"] % 2)
    budgets = online_performance(ScoreTable.from_frame(tuned), resampling=Resampling(200))
    both = compare(table, resampling=Resampling(200), permutations=200).pairs
    rank = statistics.ranks(table, resampling=Resampling(200))
    with plots.style():
        for ax in (
            plots.interval_plot(
                statistics.summarise(table, resampling=Resampling(200), studentized=True)
            ),
            plots.profile_plot(statistics.profile(table, resampling=Resampling(200))),
            plots.curve_plot(statistics.curve(table, resampling=Resampling(200))),
            plots.online_plot(budgets),
            plots.improvement_plot(both),
            plots.improvement_matrix_plot(both),
            plots.critical_difference_plot(rank, both),
            plots.rank_plot(rank),
        ):
            words, _ = boxes(ax.get_figure())
            assert set(SHORT[:3]) <= set(words)
            assert any(isinstance(line, Line2D) for line in ax.get_lines()) or ax.patches


def test_a_simultaneous_band_far_wider_than_all_else_is_cut():
    frame = pd.DataFrame(
        {
            "algorithm": "a",
            "step": [1, 2, 3],
            "iqm": [50.0, 52.0, 54.0],
            "ci_low": [48.0, 50.0, 52.0],
            "ci_high": [52.0, 54.0, 56.0],
            "band_low": -300.0,
            "band_high": 400.0,
        }
    )
    low, high = plots.curve_plot(frame).get_ylim()
    assert 40 < low < 48
    assert 56 < high < 64


def test_an_order_and_a_palette_are_those_of_the_figure() -> None:
    with plots.style():
        ax = plots.interval_plot(
            summary(["BC", "IQL", "CQL"]), order=["CQL", "BC"], palette={"IQL": "#010203"}
        )
    assert [text.get_text() for text in ax.get_yticklabels()] == ["CQL", "BC", "IQL"]
    own = [line for line in ax.get_lines() if line.get_color() == "#010203"]
    (row,) = {round(float(np.ravel(line.get_ydata())[0])) for line in own}
    assert own
    assert row == round(ax.get_yticks()[-1])


def test_names_of_axes_break_where_a_figure_is_narrow() -> None:
    with plots.style():
        with pytest.raises(InputError, match="1 x 1 inches has no room"):
            wrap_names(plots.interval_plot(summary(SHORT), ax=new_axes(1, 1)))
        ax = plots.interval_plot(summary(["IQL"]), ax=new_axes(2.2, 2))
        wrap_names(ax)
        width, _ = axes_size(ax)
        lines = ax.get_xlabel().split("\n")
        assert len(lines) > 1
        assert text_width(lines) < width + 0.5
        legend = ax.get_legend()
        assert legend is not None
        figure = figure_of(ax)
        figure.draw_without_rendering()
        name = ax.xaxis.label.get_window_extent()
        assert legend.get_window_extent().y1 <= name.y0 + 1
