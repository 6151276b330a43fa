"""Figures of estimates: functions that take and return a matplotlib Axes.

Nothing here touches pyplot or changes matplotlib's settings for others. Draw inside `style()` to
get the look of offrl's reports. An algorithm's colour and line depend on its name alone, so they
are the same in every figure, unless `style(looks=assigned_styles(names, ways))` gives each of these
algorithms a colour of its own.
"""

from offrl.plots.intervals import interval_plot
from offrl.plots.lines import curve_plot, online_plot, profile_plot
from offrl.plots.pairs import improvement_matrix_plot, improvement_plot
from offrl.plots.panels import legend_plot, panel_plot
from offrl.plots.ranks import critical_difference_plot, rank_plot
from offrl.plots.style import assigned_styles, lacking_signs, line_style, save, save_as, style, svg

__all__ = [
    "assigned_styles",
    "critical_difference_plot",
    "curve_plot",
    "improvement_matrix_plot",
    "improvement_plot",
    "interval_plot",
    "lacking_signs",
    "legend_plot",
    "line_style",
    "online_plot",
    "panel_plot",
    "profile_plot",
    "rank_plot",
    "save",
    "save_as",
    "style",
    "svg",
]
