"""Sentences on which effects are large enough to matter, and how far they generalise."""

from negprobe.study.summary_table import StudySummary
from negprobe.views.labels import metric_name
from negprobe.views.report.wording import head_name, terms


def beyond_smallest(summary: StudySummary) -> list[str]:
    """A sentence on the heads whose whole interval is beyond the smallest effect of interest."""
    counted, smallest = summary.row("beyond_heads"), summary.row("smallest_effect")
    if counted is None or smallest is None:  # summaries of earlier versions
        return []
    threshold = f"|d_z| {smallest['estimate']:g}"
    untestable = summary.row("untestable_mean")
    if untestable is not None:
        return [f"No head is named as responding by more than {threshold}. {untestable['note']}"]
    if not counted["hits"]:
        return [f"In none of {counted['n']} heads is {terms(summary).effect} certainly larger than {threshold}."]
    named = "; ".join(
        f"head {head_name(row)} by {metric_name(row['metric'])} (d_z {row['estimate']:.2f} [{row['low']:.2f}, "
        f"{row['high']:.2f}])"
        for _, row in summary.rows("beyond_effect").iterrows()
    )
    first = "the largest: " if counted["hits"] > len(summary.rows("beyond_effect")) else ""
    return [
        f"In {counted['hits']} of {counted['n']} heads {terms(summary).effect} is certainly larger than {threshold} "
        f"on at least one metric (the whole 95 % interval, and a mean other than 0 by max-T): {first}{named}."
    ]


def units(summary: StudySummary) -> list[str]:
    """Sentences on the units of the tests: clusters of pairs, and how alike the effects within them are."""
    counted = summary.row("clusters")
    if counted is None:
        return []
    sentences = []
    if counted["estimate"] < counted["n"]:
        sentences.append(
            f"The {counted['n']} pairs form {counted['estimate']:.0f} clusters that share material; the tests and "
            "intervals are over these clusters."
        )
    return [*sentences, *_likeness(summary, "cluster", "cluster"), *_likeness(summary, "cue", "kind of cue")]


def _likeness(summary: StudySummary, group: str, name: str) -> list[str]:
    """A sentence on the intraclass correlation within groups; empty if it is undefined."""
    correlation = summary.row("intraclass_correlation", group=group)
    effective = summary.row("effective_pairs", group=group)
    if correlation is None or effective is None:
        return []
    return [
        f"Effects within a {name} have an intraclass correlation of {correlation['estimate']:.2f}, so the pairs are as "
        f"informative as {effective['estimate']:.0f} independent ones (medians over metrics and heads)."
    ]


def new_cues(summary: StudySummary) -> list[str]:
    """A sentence on whether the effects of the named heads can be expected for a new kind of cue."""
    cues, holding = summary.row("cues"), summary.row("holds_for_new_cues")
    if cues is None or holding is None or not holding["n"]:
        return []
    named = "; ".join(
        f"{head_name(row)} by {metric_name(row['metric'])} {row['estimate']:+.3g} "
        f"[{row['low']:+.3g}, {row['high']:+.3g}]"
        for _, row in summary.rows("new_cue_effect").iterrows()
    )
    return [
        f"Of the {holding['n']} heads with such an effect, {holding['hits']} can be expected to respond in the same "
        f"direction to a new kind of cue (95 % prediction interval over {cues['estimate']:.0f} kinds of cue). The "
        f"intervals of the largest effects: {named}."
    ]
