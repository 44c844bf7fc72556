"""The texts of a comparison's figures, and their order on the page; every number is a row of the summary."""

from collections.abc import Mapping

import pandas as pd

from negprobe.patching import DIRECTIONS
from negprobe.study.comparison import StudyComparison
from negprobe.study.stages import SWEPT
from negprobe.study.summary_table import CHANGE, A, B, StudySummary
from negprobe.views.figures.comparison import MAPPED, comparison_figures
from negprobe.views.labels import SITES, metric_name
from negprobe.views.report.captions import Texts
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.document import Picture, Topic, png
from negprobe.views.report.mechanism_findings import ABLATED
from negprobe.views.report.wording import effect_in_words, furthest_from_0, head_name, points, signed

TOPICS = (
    Topic("What the models answer", ("answers",)),
    Topic(
        "What carries the answer",
        ("resid_pre-denoising", "z-denoising"),
        (
            *("resid_pre-noising", "z-noising"),
            *(f"{site}-{way}" for site in SWEPT if site not in ("resid_pre", "z") for way in DIRECTIONS[::-1]),
        ),
        "Normalised effect of swapping one activation between the two runs, as a ratio of means over pairs: 0 means no "
        "change, 1 that the answer becomes the other run's. Denoising puts the activation of the "
        "control's run (the original's, for a pair without a control) into the counterfactual's run; noising is the "
        "reverse.",
        "No common pair was patched in both studies.",
    ),
    Topic(
        "Which heads respond",
        tuple(f"effect-{name}" for name in MAPPED[:2]),
        tuple(f"effect-{name}" for name in MAPPED[2:]),
        "How much more each metric changes in the counterfactual than in its control, which has neutral words of the "
        "same length, as a mean over the common pairs. A value of zero (mid-scale) means that the head responds to the "
        "changed words as to any others.",
        "No common pair has a control, so the counterfactual cannot be compared with one.",
    ),
    Topic("The circuits", ("circuits",)),
)
"""The figures of a comparison in the order of its page."""


def comparison_pictures(compared: StudyComparison) -> dict[str, Picture]:
    """The figures by their names in `TOPICS`, with their texts; figures with nothing to show are left out.

    Raises:
        ViewError: if a result cannot be drawn.
    """
    texts = comparison_texts(compared.summary)
    return {name: Picture(png(figure), *texts[name]) for name, figure in comparison_figures(compared).items()}


def comparison_texts(summary: StudySummary) -> Mapping[str, Texts]:
    """The alternative text and the caption of each figure."""
    texts = {"answers": _answer_texts(summary)} if summary.row("no_answers") is None else {}
    swaps = summary.rows("swap")
    for site, direction in swaps[["site", "direction"]].drop_duplicates().itertuples(index=False):
        texts[f"{site}-{direction}"] = _swap_texts(str(site), str(direction), summary)
    if summary.row("tests") is not None:
        texts |= {f"effect-{metric}": _effect_texts(metric, summary) for metric in MAPPED}
    if summary.row("circuit", study=A) is not None and summary.row("circuit", study=B) is not None:
        texts["circuits"] = _circuit_texts(summary)
    return texts


def _answer_texts(summary: StudySummary) -> Texts:
    statistic = "right" if summary.row("cosine") is None else "cosine"
    named = "both statements right" if statistic == "right" else "cosine of original and counterfactual"
    a, b, change = (summary.rows(statistic, study=name).iloc[0] for name in (A, B, CHANGE))
    return (
        f"Dots by kind of cue: {named} in A and B, and the difference. Over all, {a['estimate']:.2f} in A and "
        f"{b['estimate']:.2f} in B, a difference of {signed(change, '+.2f')}.",
        f"{named[0].upper()}{named[1:]}, by kind of cue, in A and B (left), and their difference with its paired "
        "bootstrap interval (right). A zero-width interval means that all pairs differ equally.",
    )


def _swap_texts(site: str, direction: str, summary: StudySummary) -> Texts:
    what = SITES.get(site, site)
    columns = "heads" if SWEPT[site] == "head" else "roles of tokens"
    changes = summary.rows("swap", site=site, direction=direction, study=CHANGE)
    if len(changes):
        top = furthest_from_0(changes)
        most = f"They differ most in {_where(top)}: {points(top)}."
    else:
        top = furthest_from_0(summary.rows("swap", site=site, direction=direction, study=B))
        most = f"In B the largest effect is in {_where(top)}, {effect_in_words(top)}."
    patched = summary.rows("patched").iloc[0]["hits"]
    pairs = "1 pair" if patched == 1 else f"{patched} pairs"
    return (
        f"Maps of layers by {columns}, {_shown(len(changes))}: effect of swapping {what}, {direction}. {most}",
        f"Swapping {what} ({direction}, {pairs}): {_shown(len(changes))}. {most}",
    )


def _where(row: pd.Series) -> str:
    return f"layer {row['layer']} at {ROLE_NAMES[row['role']]}" if row["role"] else f"head {head_name(row)}"


def _shown(n_changes: int) -> str:
    return "A, B and B − A" if n_changes else "A and B"


def _effect_texts(metric: str, summary: StudySummary) -> Texts:
    changed = summary.row("largest_effect", metric=metric, study=CHANGE)
    most = "" if changed is None else f" They differ most in head {head_name(changed)}: {signed(changed)}."
    shown = _shown(len(summary.rows("tests", study=CHANGE)))
    named = metric_name(metric)
    return (
        f"Maps of layers by heads, {shown}: effect of negation on {named}.{most}",
        f"{named[0].upper()}{named[1:]}, counterfactual minus control: {shown}.{most}",
    )


def _circuit_texts(summary: StudySummary) -> Texts:
    a, b = (summary.rows("circuit", study=name).iloc[0] for name in (A, B))
    shared = summary.row("shared_components")
    overlap = "" if shared is None else f"; they share {shared['hits']}"
    return (
        f"Maps of layers by components: effect of ablating each alone. A's circuit has {a['hits']} components and B's "
        f"{b['hits']}{overlap}.",
        f"Effect of ablating one component alone: {_shown(len(summary.rows('shared_components')))}. Frames mark the "
        f"members of the circuit. All other outputs are, in A, {ABLATED[a['note']]}; in B, {ABLATED[b['note']]}.",
    )
