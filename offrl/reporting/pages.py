"""What the renderers of pages share: templates, and figures as elements of a page."""

from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.axes import Axes

from offrl import registry
from offrl.plots.layout import figure_of
from offrl.plots.style import drawn_svg, page_svg
from offrl.reporting.conclusion import Name
from offrl.text import one_line, visible

READABLE = 0.75  # of its designed width is the least that a figure has: on a phone it scrolls


def template(name: str) -> jinja2.Template:
    """A template of `reports/`; what it shows of others is escaped and made visible."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(registry.folder("reports")),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _shown(value: Any) -> Any:
    """A value of the template: text of others without the characters that are not to be seen."""
    if isinstance(value, Name):
        return Markup("<bdi>{}</bdi>").format(visible(value))
    return visible(value) if type(value) is str else value


def element(ax: Axes, text: str, drawn: str | None = None) -> Markup:
    """A figure as an `<svg>` element of a page.

    Args:
        ax: of the figure.
        text: what it shows, for who does not see it.
        drawn: the figure as `drawn_svg` has it, where it was drawn before.
    """
    width, height = figure_of(ax).get_size_inches()
    pixels = 96 * width  # of CSS
    drawing = page_svg(drawn_svg(figure_of(ax)) if drawn is None else drawn)
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'viewBox="0 0 {:g} {:g}" style="max-width:{:.0f}px;min-width:{:.0f}px" role="img" '
        'aria-label="{}">'
    ).format(72 * width, 72 * height, pixels, READABLE * pixels, one_line(text))
    return head + Markup(drawing[drawing.index(">") + 1 :])
