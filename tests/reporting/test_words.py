import math

import pandas as pd
import pytest

from offrl.reporting.words import HTML, LATEX, MARKDOWN, TERMINAL, Words, verdict

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("target", "score", "difference", "ends", "spread", "p"),
    [
        (TERMINAL, "-1.2", "+3.5", "[-inf, 2.0]", "–", "< 0.001"),
        (HTML, "−1.2", "+3.5", "[−∞, 2.0]", "–", "< 0.001"),
        (MARKDOWN, "−1.2", "+3.5", "[−∞, 2.0]", "–", "< 0.001"),
        (LATEX, "$-$1.2", "+3.5", r"[$-$$\infty$, 2.0]", "--", "$<$ 0.001"),
    ],
)
def test_signs_are_those_of_the_target(target, score, difference, ends, spread, p):
    words = Words(target)
    assert words.score(-1.24) == score
    assert words.difference(3.5) == difference
    assert words.interval(-INF, 2) == ends
    assert words.score(NAN) == words.difference(NAN) == words.probability(NAN) == spread
    assert words.p(0.0009) == p


def test_digits_are_those_of_the_scale():
    assert Words(scale=100).score(12.345) == "12.3"
    assert Words(scale=1).score(0.12345) == "0.123"
    assert Words(scale=1).interval(0, 1) == "[0.000, 1.000]"


def test_digits_may_be_given():
    words = Words(decimals=2)
    assert words.spread(50.044, 1.262, 3) == "50.04 ± 1.26 (n = 3)"
    assert words.difference(-0.004) == "0.00"
    assert words.interval(-1, 2.345) == "[-1.00, 2.35]"


def test_what_rounds_to_zero_has_no_sign():
    words = Words(HTML)
    assert words.score(-0.04) == words.difference(-0.04) == words.difference(0.04) == "0.0"
    assert words.difference(-0.06) == "−0.1"
    assert Words(scale=1).score(-0.04) == "-0.040"


def test_no_interval_is_said_in_words():
    assert Words().interval(NAN, NAN) == Words(LATEX).probability_interval(NAN, NAN) == "none"
    assert Words().probability_interval(0.4, 0.625) == "[0.40, 0.62]"


def test_a_mean_with_its_spread_and_its_runs():
    words = Words()
    assert words.spread(50.04, 1.26) == "50.0 ± 1.3"
    assert words.spread(50.04, NAN, 1) == "50.0 (n = 1)"
    assert words.spread(50.04, 1.26, 3) == "50.0 ± 1.3 (n = 3)"
    assert words.spread(NAN, NAN, 0, failed=3) == "– (n = 0, 3 failed)"
    assert Words(LATEX).spread(1, 2, 3) == r"1.0 $\pm$ 2.0 (n = 3)"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0, "< 0.001"), (0.00099, "< 0.001"), (0.001, "0.001"), (0.0496, "0.050"), (1, "1.000")],
)
def test_p_has_three_decimals_and_is_never_zero(p, text):
    assert Words().p(p) == text
    assert Words().p(NAN) == "–"


def test_a_monte_carlo_error_has_two_digits():
    assert Words().error(0.01234) == "0.012"
    assert Words(LATEX).error(NAN) == "--"


PAIR = {
    **{"x": "a_b", "y": "c", "n_x": 5, "n_y": 4},
    **{"probability": 0.7, "probability_low": 0.5, "probability_high": 0.9},
    **{"difference": -8.0, "difference_low": -9.0, "difference_high": 0.04},
    **{"p": 0.03, "p_adjusted": 0.06},
    **{"verdict": "cannot tell", "seeds": 1200},
}


def test_a_pair_has_both_p_and_escaped_names():
    assert Words(LATEX).pair(PAIR) == {
        "x": r"a\_b",
        "y": "c",
        "probability": "0.70",
        "probability_interval": "[0.50, 0.90]",
        "difference": "$-$8.0",
        "difference_interval": "[$-$9.0, 0.0]",
        "p": "0.030",
        "p_adjusted": "0.060",
        "verdict": "cannot tell with 4 seeds; some 1,200 would",
    }


def test_verdicts():
    assert verdict({**PAIR, "seeds": None}) == "cannot tell with 4 seeds"
    assert verdict({**PAIR, "seeds": pd.NA}) == "cannot tell with 4 seeds"
    assert verdict({**PAIR, "verdict": "better"}, 3.0) == "better"
    assert verdict({**PAIR, "verdict": "equivalent"}, 2.5) == "equivalent within 2.5"


def test_latex_has_every_special_character_escaped():
    assert LATEX.escape(r"\{}&%$#_~^<>|") == (
        r"\textbackslash{}\{\}\&\%\$\#\_\textasciitilde{}\textasciicircum{}"
        r"\textless{}\textgreater{}\textbar{}"
    )
    assert LATEX.escape("[10]* of\nCQL (α)") == "{[}10]{*} of CQL (α)"


def test_markdown_has_every_special_character_escaped():
    assert MARKDOWN.escape(r"\ ` * [x](y) <b> a|b ~x~ $x$ &lt;") == (
        r"\\ \` \* \[x\](y) \<b> a\|b \~x\~ \$x\$ \&lt;"
    )
    assert MARKDOWN.escape("td3_bc _so_ __init__\nb") == r"td3_bc \_so\_ \_\_init\_\_ b"


def test_terminal_and_page_take_names_as_they_are():
    assert TERMINAL.escape("a_b <c>") == HTML.escape("a_b <c>") == "a_b <c>"
