"""The figures of what the library computes, from scores to Axes."""

import itertools
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from simulated import table

from offrl import plots, statistics
from offrl.statistics.resampling import Resampling

LONG = [
    f"an algorithm with quite a long name, setting {k} of many (tau = 0.{k})" for k in range(16)
]
CASES = {
    "one": (["IQL"], 1),
    "three": (["BC", "IQL", "TD3+BC"], 3),
    "twenty": ([*LONG, "IQL", "x" * 90, "$100", "Ünï"], 2),
}


@pytest.fixture(scope="module", params=CASES)
def axes(request):
    """Every kind of figure, drawn, of a few, some and many algorithms."""
    names, tasks = CASES[request.param]
    runs = table(names, tasks)
    summary = statistics.summarise(runs, resampling=Resampling(200))
    with plots.style():
        drawn = [plots.interval_plot(summary, metric) for metric in statistics.METRICS]
        drawn.append(plots.profile_plot(statistics.profile(runs, resampling=Resampling(200))))
        drawn.append(
            plots.curve_plot(statistics.curve(runs, resampling=Resampling(200)), title="all")
        )
        for ax in drawn:
            figure = ax.get_figure(root=True)
            assert figure is not None
            figure.draw_without_rendering()
    return drawn


def shown(axis: Any) -> list[Any]:
    """The tick labels within an axis' range; matplotlib keeps some beyond it, undrawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [label for at, label in ticks if low <= at <= high]


def test_labels_never_touch_each_other_nor_leave_the_figure(axes):
    for ax in axes:
        figure = ax.get_figure()
        renderer = FigureCanvasAgg(figure).get_renderer()
        legend = ax.get_legend()
        groups = [
            [*shown(ax.xaxis), ax.xaxis.label],
            [*shown(ax.yaxis), ax.yaxis.label],
            [*legend.get_texts(), ax.xaxis.label, ax.title],
        ]
        low, high = figure.bbox.min - 0.5, figure.bbox.max + 0.5
        for group in groups:
            boxes = [t.get_window_extent(renderer) for t in group if t.get_text()]
            for box in boxes:
                assert (box.min >= low).all()
                assert (box.max <= high).all()
            for one, two in itertools.combinations(boxes, 2):
                assert not one.padded(-0.5).overlaps(two.padded(-0.5))
        box = legend.get_window_extent(renderer)
        assert (box.min >= low).all()
        assert box.y1 <= ax.xaxis.label.get_window_extent(renderer).y0 + 0.5


def test_every_axis_has_a_name_and_its_unit(axes):
    *intervals, profile, curve = axes
    for ax in intervals:
        assert ax.get_ylabel() == "algorithm"
        assert "0–100" in ax.get_xlabel()
    assert "0–100" in profile.get_xlabel()
    assert profile.get_ylabel() == "share of runs with score > τ"
    assert curve.get_xlabel() == "gradient steps"
    assert "IQM" in curve.get_ylabel()


def test_plots_draw_into_the_axes_they_are_given_and_touch_no_global_state():
    runs = table()
    summary = statistics.summarise(runs, resampling=Resampling(200))
    before = dict(matplotlib.rcParams)
    mine = Figure(figsize=(9, 3)).subplots(1, 3)
    assert plots.interval_plot(summary, "iqm", ax=mine[0]) is mine[0]
    assert (
        plots.profile_plot(statistics.profile(runs, resampling=Resampling(200)), ax=mine[1])
        is mine[1]
    )
    assert (
        plots.curve_plot(statistics.curve(runs, resampling=Resampling(200)), ax=mine[2]) is mine[2]
    )
    assert dict(matplotlib.rcParams) == before


def test_the_drawn_interval_is_the_computed_one():
    summary = statistics.summarise(table(), resampling=Resampling(200))
    ax = plots.interval_plot(summary, "mean")
    rows = summary[(summary["metric"] == "mean") & (summary["algorithm"] == "IQL")]
    drawn = [tuple(np.asarray(line.get_xdata())) for line in ax.get_lines()]
    for row in rows.itertuples():
        assert (row.ci_low, row.ci_high) in drawn
    assert any(xs == (rows["estimate"].iloc[0],) for xs in drawn)


def test_a_colour_belongs_to_a_name():
    def colours(names: Any) -> dict[str, str]:
        curve = statistics.curve(table(names, 1), resampling=Resampling(200))
        ax = plots.curve_plot(curve)
        return dict(zip(sorted(names), [line.get_color() for line in ax.get_lines()], strict=True))

    few, more = colours(("IQL", "mine")), colours(("AWAC", "BC", "IQL", "mine", "other"))
    assert few.items() <= more.items()
