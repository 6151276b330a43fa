"""Numbers, intervals, p and verdicts as text: one way for terminal, page, Markdown and LaTeX."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from offrl.statistics.labels import digits
from offrl.text import one_line


@dataclass(frozen=True)
class Target:
    """The signs of a kind of document, and how it escapes names."""

    minus: str
    infinity: str
    plus_minus: str
    less: str
    missing: str
    escape: Callable[[str], str]


def _markdown(text: str) -> str:
    """The text on one line, escaped but for underscores inside a word, which GFM leaves alone."""
    signs = r"[\\`*\[\]<&|~$]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(signs, r"\\\g<0>", one_line(text))


def _latex(text: str) -> str:
    """The text on one line, escaped."""
    return one_line(text).translate(_LATEX_SIGNS)


_LATEX_SIGNS = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "{}&%$#_"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # At the start of a row these would be arguments of the \\ that ends the row before.
        "[": "{[}",
        "*": "{*}",
    }
)
TERMINAL = Target("-", "inf", "±", "<", "–", str)
HTML = Target("−", "∞", "±", "<", "–", str)  # the template escapes
MARKDOWN = Target("−", "∞", "±", "<", "–", _markdown)
LATEX = Target("$-$", r"$\infty$", r"$\pm$", "$<$", "--", _latex)


@dataclass(frozen=True)
class Words:
    """Writes numbers on scores for one kind of document.

    Attributes:
        target: TERMINAL, HTML, MARKDOWN or LATEX.
        scale: upper end of the scores, 100 or 1.
        decimals: of scores; by default a tenth of a percent of the scale.
    """

    target: Target = TERMINAL
    scale: float = 100.0
    decimals: int | None = None

    def score(self, value: float, sign: str = "") -> str:
        """A score; a dash for NaN."""
        decimals = digits(self.scale) if self.decimals is None else self.decimals
        return self._number(value, decimals, sign)

    def difference(self, value: float) -> str:
        """A difference of scores, with its sign."""
        return self.score(value, sign="+")

    def interval(self, low: float, high: float) -> str:
        """`[low, high]` on the scale of scores; `none` for NaN."""
        return "none" if math.isnan(low) else f"[{self.score(low)}, {self.score(high)}]"

    def spread(self, mean: float, sd: float, n: float = math.nan, failed: int = 0) -> str:
        """`mean ± sd (n = 3, 1 failed)`; without what is NaN, or 0 of failed."""
        text = self.score(mean)
        if not math.isnan(sd):
            text += f" {self.target.plus_minus} {self.score(sd)}"
        counts = [] if math.isnan(n) else [f"n = {n:.0f}"]
        if failed:
            counts.append(f"{failed} failed")
        return f"{text} ({', '.join(counts)})" if counts else text

    def probability(self, value: float) -> str:
        """A probability to two decimals."""
        return self._number(value, 2)

    def probability_interval(self, low: float, high: float) -> str:
        """`[low, high]` of a probability; `none` for NaN."""
        if math.isnan(low):
            return "none"
        return f"[{self.probability(low)}, {self.probability(high)}]"

    def error(self, value: float) -> str:
        """A Monte-Carlo error to two digits; a dash for NaN."""
        return self.target.missing if math.isnan(value) else f"{value:.2g}"

    def p(self, value: float) -> str:
        """P to three decimals; `< 0.001` below that."""
        return f"{self.target.less} 0.001" if value < 0.001 else self._number(value, 3)

    def pair(self, row: Mapping[Any, Any], margin: float | None = None) -> dict[str, str]:
        """A row of `Comparison.pairs` as texts by column."""
        return {
            "x": self.target.escape(row["x"]),
            "y": self.target.escape(row["y"]),
            "probability": self.probability(row["probability"]),
            "probability_interval": self.probability_interval(
                row["probability_low"], row["probability_high"]
            ),
            "difference": self.difference(row["difference"]),
            "difference_interval": self.interval(row["difference_low"], row["difference_high"]),
            "p": self.p(row["p"]),
            "p_adjusted": self.p(row["p_adjusted"]),
            "verdict": verdict(row, margin),
        }

    def _number(self, value: float, decimals: int, sign: str = "") -> str:
        if math.isnan(value):
            return self.target.missing
        text = f"{value:{sign}.{decimals}f}"
        if float(text) == 0:
            text = text.lstrip("+-")
        return text.replace("-", self.target.minus).replace("inf", self.target.infinity)


def turned(pair: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row of `Comparison.pairs` with x and y exchanged, as far as `Words.pair` reads it."""
    verdicts = {"better": "worse", "worse": "better"}
    return {
        **pair,
        "x": pair["y"],
        "y": pair["x"],
        "probability": 1 - pair["probability"],
        "probability_low": 1 - pair["probability_high"],
        "probability_high": 1 - pair["probability_low"],
        "difference": -pair["difference"],
        "difference_low": -pair["difference_high"],
        "difference_high": -pair["difference_low"],
        "n_x": pair["n_y"],
        "n_y": pair["n_x"],
        "verdict": verdicts.get(pair["verdict"], pair["verdict"]),
    }


def verdict(pair: Mapping[Any, Any], margin: float | None = None) -> str:
    """The verdict of a row of `Comparison.pairs` on x, and how many seeds would find one."""
    text = str(pair["verdict"])
    if text == "equivalent":
        return f"equivalent within {margin:g}"
    if text != "cannot tell":
        return text
    text += f" with {min(pair['n_x'], pair['n_y'])} seeds"
    return text if pd.isna(pair["seeds"]) else f"{text}; some {pair['seeds']:,} would"
