"""Sentences on the differences between two studies; each formats rows of the comparison's summary."""

from collections.abc import Callable

import pandas as pd

from negprobe.study.summary_table import CHANGE, A, B, StudySummary
from negprobe.views.labels import metric_name
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.wording import (
    both_right,
    circuit_preserves,
    effect_in_words,
    furthest_from_0,
    head_name,
    heads_respond,
    points,
    sentence,
    share_in_words,
    signed,
    terms,
)

BRACKETS = (
    "In brackets: 95 % intervals. Those of shares of pairs are Wilson intervals; all others are bootstrap intervals "
    "over the common pairs (for swaps and heads: over their clusters), with the same draws for both models, or for "
    "circuits over each study's own held-out pairs."
)


def answer(summary: StudySummary) -> list[str]:
    """The answer in a few sentences, each with its numbers; every difference is B minus A."""
    return [*_answered(summary), *_swapped(summary), *_responding(summary), *_circuits(summary)]


def _answered(summary: StudySummary) -> list[str]:
    """Sentences on how often each model is right, and the kind of cue on which they differ most."""
    missing = summary.row("no_answers")
    if missing is not None:
        return [f"The answers cannot be compared: {missing['note']}."]
    if summary.row("cosine") is not None:
        a, b, change = (summary.rows("cosine", study=name).iloc[0] for name in (A, B, CHANGE))
        return [
            f"The embeddings of {terms(summary).statements} have a mean cosine similarity of {a['estimate']:.3f} in A "
            f"and {b['estimate']:.3f} in B: {signed(change, '+.3f')} on {change['n']} pairs."
        ]
    a, b, change = (summary.rows("right", compared="both", study=name).iloc[0] for name in (A, B, CHANGE))
    both = f"A {both_right(summary)} {share_in_words(a)}, and B on {share_in_words(b)}: {points(change)}."
    by_cue = summary.rows("right_of_cue", compared="both", study=CHANGE)
    if len(by_cue) < 2 or not by_cue["estimate"].any():
        return [both]
    top = furthest_from_0(by_cue)
    return [
        f"{both} Of the kinds of cue, they differ most on “{top['cue']}”: {points(top)}, {top['n']} pairs (not "
        "corrected for choosing the largest difference)."
    ]


def _swapped(summary: StudySummary) -> list[str]:
    """Sentences on the head with the largest effect in each model, and on swaps with different effects."""
    heads = {name: summary.rows("swap", site="z", direction="denoising", study=name) for name in (A, B, CHANGE)}
    patched = summary.rows("patched").iloc[0]["hits"]
    if heads[A].empty or heads[B].empty:
        return [
            "The effects of swaps cannot be compared: no common pair was patched in both studies with two runs that "
            "give different answers."
        ]
    named = ", and ".join(
        f"{head_name(top)} in {name}, {effect_in_words(top)}"
        for name, top in ((name, heads[name].nlargest(1, "estimate").iloc[0]) for name in (A, B))
    )
    pairs = "1 common pair was" if patched == 1 else f"{patched} common pairs were"
    strongest = (
        f"The head whose output alone restores most of the control's or original's answer is {named} ({pairs} patched "
        "in both studies)."
    )
    if heads[CHANGE].empty:
        return [
            f"{strongest} The models have different numbers of layers or heads, so single heads cannot be compared."
        ]
    return [
        strongest,
        _differing(summary, "z", "one head's output", lambda top: f"head {head_name(top)}"),
        _differing(
            summary,
            "resid_pre",
            "the residual stream at the tokens of one role before one layer",
            lambda top: f"layer {top['layer']} at {ROLE_NAMES[top['role']]}",
        ),
    ]


def _differing(summary: StudySummary, site: str, what: str, named: Callable[[pd.Series], str]) -> str:
    """A sentence on how many swaps of a site have a different effect in B, and on the largest difference."""
    subject = {"site": site, "direction": "denoising"}
    changes = summary.rows("swap", study=CHANGE, **subject)
    if not changes["estimate"].any():
        return f"Replacing {what} has the same effect in both models."
    counts = summary.rows("differing_swaps", **subject).iloc[0]
    top = furthest_from_0(changes)
    cell = {name: top[name] for name in ("layer", "head", "role") if not pd.isna(top[name])}
    a, b = (summary.rows("swap", study=name, **subject, **cell).iloc[0] for name in (A, B))
    return (
        f"Replacing {what}: {counts['hits']} of {counts['n']} swaps restore more or less of the answer in B than in A "
        "(the interval of the difference excludes 0; not corrected for the number of swaps). They differ most in "
        f"{named(top)}: {effect_in_words(a)} in A and {effect_in_words(b)} in B, {points(top)}."
    )


def _responding(summary: StudySummary) -> list[str]:
    """Sentences on how many heads respond in each model, and in how many the response differs."""
    tested = [name for name in (A, B) if summary.row("tests", study=name) is not None]
    if not tested:
        return [
            f"No common pair has a control, so a response to {terms(summary).change} cannot be distinguished from a "
            "response to other words."
        ]
    untestable = summary.row("untestable")
    if untestable is not None:
        return [f"Whether heads respond in only one of the models cannot be tested. {untestable['note']}"]
    counts = " ".join(sentence(f"in {name}, {heads_respond(summary.of(name))}") for name in tested)
    if summary.row("tests", study=CHANGE) is None:
        return [counts]
    top = summary.row("strongest_effect", study=CHANGE)
    if top is None:
        return [f"{counts} In no head does {terms(summary).effect} itself differ significantly between the two."]
    by_q, by_max_t = (summary.rows("responding_heads", study=CHANGE, part=part).iloc[0] for part in ("q", "p_max_t"))
    return [
        f"{counts} {terms(summary).effect.capitalize()} itself differs between the two in {by_q['hits']} of "
        f"{by_q['n']} heads "
        f"(corrected in the same way; {by_max_t['hits']} by max-T), most regularly in {head_name(top)}: its "
        f"{metric_name(top['metric'])} differs by {signed(top)}."
    ]


def _circuits(summary: StudySummary) -> list[str]:
    """Sentences on the sizes and faithfulness of the circuits, and the components they share."""
    found = {name: text for name in (A, B) if (text := circuit_preserves(summary.of(name)))}
    if not found:
        return ["Neither study searched for a circuit."]
    sizes = " ".join(sentence(f"in {name}, {text}") for name, text in found.items())
    if len(found) < 2:
        return [f"{sizes} The other study did not search for a circuit."]
    shared, chance = summary.row("shared_components"), summary.row("shared_by_chance")
    if shared is None or chance is None:
        return [sizes]
    return [
        f"{sizes} The circuits share {shared['hits']} components; two random sets of these sizes would share "
        f"{chance['estimate']:.1f} on average."
    ]
