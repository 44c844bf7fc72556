"""How a token is written where there is little room."""

import unicodedata
from pathlib import Path

ELLIPSIS = "…"


def tick_label(token: str, longest: int = 14) -> str:
    """A token as a short, visible, one-line label.

    Characters that cannot be seen (controls, line ends, direction marks) are shown as "␣", and a token of
    more than `longest` characters is cut there.
    """
    seen = "".join("␣" if unicodedata.category(char)[0] in "CZ" else char for char in token) or "␣"
    return seen if len(seen) <= longest else seen[: longest - 1] + ELLIPSIS


def aligned_label(original: str, counterfactual: str) -> str:
    """The label of two aligned tokens: one word where they agree, "now→not" where they don't."""
    if original == counterfactual:
        return tick_label(original)
    return f"{tick_label(original, 9)}→{tick_label(counterfactual, 9)}"


def short_name(model_name: str) -> str:
    """A hub name as it is, and the last two folders of a path."""
    return "/".join(Path(model_name).parts[-2:])


def percent(value: float) -> str:
    """A share in whole percent, without a minus before nothing."""
    text = f"{value:.0%}"
    return "0%" if text == "-0%" else text
