"""Sentences on what a study found; each formats rows of the study's summary."""

import pandas as pd

from negprobe.statistics import ALPHA
from negprobe.study.summary_table import StudySummary
from negprobe.views.labels import metric_name, percent
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.effect_findings import beyond_smallest, new_cues, units
from negprobe.views.report.mechanism_findings import mechanism
from negprobe.views.report.wording import (
    between,
    both_right,
    circuit_preserves,
    effect_in_words,
    head_name,
    heads_respond,
    sentence,
    share_in_words,
    signed,
    terms,
)

_N_HEADS_NAMED = 3
_GROUPS = {"cue": "kinds of cue", "source": "data sets"}


def answer(summary: StudySummary) -> list[str]:
    """The answer in a few sentences, each with its main number and the 95 % interval in brackets."""
    # What a head carries stands before what its attention shows.
    parts = (_answer_change, _strongest_swaps, _attention_to_cue, _circuit, _response)
    return [text for part in parts for text in part(summary)]


def findings(summary: StudySummary) -> list[str]:
    """All findings: whether the answer depends on the negation, what carries the answer, and which heads respond."""
    return [*behaviour(summary), *carriers(summary), *mechanism(summary), *responding_heads(summary)]


def _answer_change(summary: StudySummary) -> list[str]:
    """A sentence on how the negation changes the answer."""
    cosine, change, changed, both, control = (
        summary.row(statistic, **subject)
        for statistic, subject in (
            ("cosine", {}),
            ("score_change", {}),
            ("label_changed", {}),
            ("right", {"compared": "both"}),
            ("right", {"compared": "control"}),
        )
    )
    if cosine is not None:
        interval = between(f"{cosine['low']:.3f}", f"{cosine['high']:.3f}", int(cosine["n"]))
        return [
            f"The embeddings of {terms(summary).statements} have a mean cosine similarity of "
            f"{cosine['estimate']:.3f}{interval}, where 1 would be the same embedding."
        ]
    if change is not None:
        interval = between(f"{change['low']:+.3f}", f"{change['high']:+.3f}", int(change["n"]))
        return [
            f"{terms(summary).change.capitalize()} alters the model's score by {change['estimate']:+.3f} on "
            f"average{interval}."
        ]
    if changed is not None:
        return [f"{terms(summary).change.capitalize()} alters the model's label on {share_in_words(changed)}."]
    if both is None:
        return behaviour(summary)
    right = (
        f"The model {both_right(summary)} {share_in_words(both)}; a model that ignores "
        f"{terms(summary).change} would give the same answer to both statements, and be right on at most one of them."
    )
    if control is None:
        return [right]
    return [
        f"{right} With a neutral word in place of {terms(summary).words}, it is right on {share_in_words(control)}."
    ]


def _response(summary: StudySummary) -> list[str]:
    """A sentence on how many heads respond to the negation, and on the most regular response."""
    tests = summary.row("tests")
    if tests is None or summary.row("untestable") is not None:
        return responding_heads(summary)
    top = summary.row("strongest_effect")
    counts = " ".join([*beyond_smallest(summary), *new_cues(summary), sentence(heads_respond(summary))])
    if top is None:
        return [counts]
    return [
        f"{counts} The most regular response is that of head {head_name(top)}: its {metric_name(top['metric'])} "
        f"differs by {signed(top)}."
    ]


def _strongest_swaps(summary: StudySummary) -> list[str]:
    """Sentences on the tokens and the head at which a swap restores most of the answer."""
    by_role = summary.rows("swap", site="resid_pre", direction="denoising")
    if by_role.empty:
        return carriers(summary)
    ends = dict.fromkeys([by_role["layer"].min(), by_role["layer"].max()])
    tops = [by_role[by_role["layer"] == layer].nlargest(1, "estimate").iloc[0] for layer in ends]
    path = "; ".join(
        f"before layer {top['layer']} at {ROLE_NAMES[top['role']]}, {effect_in_words(top)}" for top in tops
    )
    head = summary.rows("swap", site="z", direction="denoising").nlargest(1, "estimate").iloc[0]
    return [
        f"Replacing a single activation of the counterfactual with the {_affirmative(summary)}'s can restore that "
        f"run's answer ({head['n']} pairs). The strongest effects of the residual stream at the tokens "
        f"of one role: {path}. The strongest single head is {head_name(head)}, {effect_in_words(head)}."
    ]


def _affirmative(summary: StudySummary) -> str:
    """The source of the activations patched into counterfactuals: "control", "original", or "control or original"."""
    row = summary.row("affirmative_run")
    return "" if row is None else row["note"]


def _attention_to_cue(summary: StudySummary) -> list[str]:
    """A sentence on the contribution of attention to the cue to the answer."""
    cut = summary.row("knock_out_set", part="everywhere")
    if cut is None:
        return []
    return [
        f"If no token can attend to {terms(summary).words}, the counterfactual's answer moves "
        f"{effect_in_words(cut)} of the way to that of the {_affirmative(summary)}."
    ]


def _circuit(summary: StudySummary) -> list[str]:
    """A sentence on the circuit that preserves the effect of negation."""
    text = circuit_preserves(summary)
    return [sentence(text)] if text else []


def behaviour(summary: StudySummary) -> list[str]:
    """A sentence on the model's answers without patching."""
    answers = summary.rows("answers").iloc[0]
    if not answers["hits"]:
        return [f"None of the {answers['n']} pairs could be answered, so nothing was patched."]
    sentences = {
        "embedding": _embedding_sentence,
        "score": _score_sentence,
        "own label": _own_label_sentence,
        "word": _right_answer_sentence,
        "label": _right_answer_sentence,
        "document": _right_answer_sentence,
    }
    return [sentences[answers["note"]](summary)]


def _embedding_sentence(summary: StudySummary) -> str:
    mean, span = (summary.rows(name).iloc[0] for name in ("cosine", "cosine_range"))
    text = (
        f"The embeddings of original and counterfactual have a cosine similarity of {mean['estimate']:.3f} on "
        f"average (from {span['low']:.3f} to {span['high']:.3f}, {mean['n']} pairs)."
    )
    nearer = summary.row("control_nearer")
    if nearer is None:
        return text
    return (
        f"{text} The control, which has a neutral word in place of {terms(summary).words}, lies nearer to "
        f"the original than to the counterfactual in {nearer['hits']} of {nearer['n']} pairs."
    )


def _score_sentence(summary: StudySummary) -> str:
    rows = summary.rows("score").set_index("compared")
    original, counterfactual = rows.loc["original"], rows.loc["counterfactual"]
    text = (
        f"The model's score (its one logit) is {original['estimate']:.3f} on average on original statements and "
        f"{counterfactual['estimate']:.3f} on counterfactuals, {original['n']} pairs"
    )
    control = f"; {rows.loc['control']['estimate']:.3f} on controls" if "control" in rows.index else ""
    return f"{text}{control}."


def _own_label_sentence(summary: StudySummary) -> str:
    changed = summary.rows("label_changed").iloc[0]
    return f"The model gives original and counterfactual different labels on {changed['hits']} of {changed['n']} pairs."


def _right_answer_sentence(summary: StudySummary) -> str:
    what = summary.rows("answers").iloc[0]["note"]
    rows = summary.rows("right").set_index("compared")
    original, counterfactual, both = (rows.loc[side] for side in ("original", "counterfactual", "both"))
    text = (
        f"The model prefers the right {what} on {original['hits']} of {original['n']} original statements and on "
        f"{counterfactual['hits']} of {counterfactual['n']} counterfactuals; on {both['hits']} pairs "
        f"({both['estimate']:.0%}) it gets both right, which requires a response to {terms(summary).change}"
    )
    if "control" not in rows.index:
        return f"{text}."
    control = rows.loc["control"]
    return (
        f"{text}. With a neutral word in place of {terms(summary).words} it keeps the original's answer on "
        f"{control['hits']} of {control['n']} controls."
    )


def responding_heads(summary: StudySummary) -> list[str]:
    """Sentences on the heads that respond differently to the negation than to a neutral word of the same length."""
    changes = summary.rows("attention_change")
    cue = changes[changes["compared"] == "counterfactual"]
    if summary.row("tests") is None:
        named = "; ".join(f"{head_name(row)} by {row['estimate']:.4f}" for _, row in cue.iterrows())
        return [
            f"No pair has a control of the same length, so a response to {terms(summary).change} cannot be "
            f"distinguished from a response to other words. The heads whose attention changes most (mean |ΔA|) are "
            f"{named}."
        ]
    untestable = summary.row("untestable")
    if untestable is not None:
        control = changes[changes["compared"] == "control"]
        named = "; ".join(
            f"head {head_name(row)} by {row['estimate']:.4f} and {neutral:.4f}"
            for (_, row), neutral in zip(cue.iterrows(), control["estimate"], strict=True)
        )
        return [
            f"{untestable['note']} Attention changes most (mean |ΔA|, in the counterfactual and in the control) in "
            f"{named}."
        ]
    return [
        *beyond_smallest(summary),
        *new_cues(summary),
        *units(summary),
        _how_many_pass(summary),
        *_strongest(summary),
        _raw_and_norm(summary),
        *_contributed(summary),
        *_replicated(summary),
    ]


def _how_many_pass(summary: StudySummary) -> str:
    """A sentence on how many heads are significant after correction on at least one metric."""
    tests, metrics = (summary.rows(name).iloc[0] for name in ("tests", "tested_metrics"))
    by_q, by_max_t = (summary.rows("responding_heads", part=part).iloc[0] for part in ("q", "p_max_t"))
    resolution = summary.row("resolution")
    coarse = "" if resolution is None else f" {resolution['note']}"
    return (
        f"Some difference, of any size, from a neutral word of the same length is significant in {by_q['hits']} of "
        f"{by_q['n']} heads on at least one metric ({tests['n']} pairs, Benjamini-Hochberg q ≤ {ALPHA:g} over "
        f"{tests['hits']} tests of {metrics['estimate']:.0f} metrics; {by_max_t['hits']} by max-T; the null hypothesis "
        "is an effect symmetric around 0). A change of the residual stream reaches every later head, so this says "
        f"little about what matters.{coarse}"
    )


def _strongest(summary: StudySummary) -> list[str]:
    """A sentence on the heads with significant effects, each with the metric of its most regular effect."""
    named = "; ".join(
        f"{head_name(row)} by {metric_name(row['metric'])} {row['estimate']:+.3g} (95 % interval {row['low']:.3g} to "
        f"{row['high']:.3g}, d_z {row['effect_size']:.2f}, q {row['q']:.2g}, max-T p {row['p_max_t']:.2g})"
        for _, row in summary.rows("strongest_effect").iterrows()
    )
    text = f"The heads with the most regular effects (largest |d_z|), with the metric that shows it: {named}."
    return [text] if named else []


def _raw_and_norm(summary: StudySummary) -> str:
    """A sentence on the agreement of raw and norm-weighted attention to the cue."""
    correlation, apart = (summary.rows(name).iloc[0] for name in ("rank_correlation", "opposite_signs"))
    named = ", ".join(head_name(row) for _, row in summary.rows("opposite_sign").iterrows())
    where = (
        f"of the heads with a significant effect, {apart['hits']} show opposite signs (most different: {named})"
        if apart["hits"]
        else "no head with a significant effect shows opposite signs"
    )
    rank = (
        "do not vary enough over the heads to be ranked"
        if pd.isna(correlation["estimate"])
        else f"have a rank correlation of {correlation['estimate']:.2f} over the heads"
    )
    return f"The effects on attention to the cue and on norm-weighted attention to it {rank}; {where}."


def _contributed(summary: StudySummary) -> list[str]:
    """A sentence on the layers in which the cue's share differs most from that of a neutral word, by measure."""
    named = "; ".join(
        f"{metric_name(row['metric'])} {row['estimate']:+.3g} in layer {row['layer']} (max-T p {row['p_max_t']:.2g})"
        for _, row in summary.rows("cue_share_effect").iterrows()
    )
    text = (
        "The largest differences between the cue's and the neutral word's share of the information flowing into the "
        f"other words, all heads together, by measure: {named}."
    )
    return [text] if named else []


def _replicated(summary: StudySummary) -> list[str]:
    """Sentences on how many effects replicate over kinds of cue and data sets."""
    sentences = []
    for _, heads in summary.rows("replicated_heads", part="q_partial").iterrows():
        groups, sizes = (summary.rows(name, group=heads["group"]).iloc[0] for name in ("groups", "pairs_per_group"))
        out_of_reach = (
            f" With {sizes['low']:.0f} to {sizes['high']:.0f} pairs in each, no head can reach p ≤ {ALPHA:g}."
            if sizes["p"] > ALPHA
            else ""
        )
        sentences.append(
            f"Tested separately in each of {groups['estimate']:.0f} {_GROUPS[heads['group']]}, {heads['hits']} of "
            f"{heads['n']} heads have an effect of the same sign in two or more (partial conjunction, q ≤ {ALPHA:g} "
            f"over all metrics and heads).{out_of_reach}"
        )
    return sentences


def carriers(summary: StudySummary) -> list[str]:
    """Sentences on the tokens and heads at which a swapped activation changes the answer."""
    if summary.row("patched") is None:
        return []
    by_role = summary.rows("swap", site="resid_pre", direction="denoising")
    if by_role.empty:
        return ["No patched pair's two runs differ in the answer, so a swap has nothing to restore."]
    return [_swap_story(summary), *_path_story(summary, by_role), _head_story(summary)]


def _swap_story(summary: StudySummary) -> str:
    patched, controlled = (summary.rows(name).iloc[0] for name in ("patched", "from_control"))
    n, k = patched["hits"], controlled["hits"]
    sample = (
        f" Of {patched['n']} pairs, {n} were patched, sampled evenly from the kinds of cue." if n < patched["n"] else ""
    )
    if k == 0:
        return f"Activations were swapped between original and counterfactual in all {n} pairs.{sample}"
    rest = summary.rows("from_original").iloc[0]["hits"]
    others = f", and between original and counterfactual in the other {rest}" if rest else ""
    return (
        f"Activations were swapped between control and counterfactual in {k} of {n} pairs, so that "
        f"{terms(summary).words} can be swapped{others}.{sample}"
    )


def _path_story(summary: StudySummary, by_role: pd.DataFrame) -> list[str]:
    """Sentences on the role at which replacing the residual stream restores most of the answer, by layer."""
    no_cue = (
        "No pair has a control and no cue is aligned with a token of its original, so no cue could be swapped alone."
    )
    story = [] if by_role["role"].isin(["cue", "changed"]).any() else [no_cue]
    tops = [rows.nlargest(1, "estimate").iloc[0] for _, rows in by_role.groupby("layer")]
    steps = ", ".join(
        f"before layer {top['layer']} at {ROLE_NAMES[top['role']]} ({percent(top['estimate'])})" for top in tops
    )
    return [
        *story,
        f"Replacing the residual stream at the tokens of one role with the {_affirmative(summary)}'s (denoising) "
        f"restores most of its answer {steps}.",
    ]


def _head_story(summary: StudySummary) -> str:
    back = summary.rows("swap", site="z", direction="denoising")
    away = summary.rows("swap", site="z", direction="noising").set_index(["layer", "head"])["estimate"]
    named = "; ".join(
        f"head {head_name(row)} restores {percent(row['estimate'])} and removes "
        f"{percent(away.loc[row['layer'], row['head']])}"
        for _, row in back.nlargest(_N_HEADS_NAMED, "estimate").iterrows()
    )
    run = _affirmative(summary)
    return (
        f"Replacing one head's output z at all aligned tokens of the counterfactual with the {run}'s restores the "
        f"{run}'s answer (denoising); the other way round it removes it (noising): {named}."
    )


def left_out(summary: StudySummary) -> list[str]:
    """Sentences on what was left out of the study, and on its limitations."""
    notes = list(summary.rows("note")["note"])
    for statistic, what in (("left_out", "Left out"), ("not_patchable", "Measured but not patchable")):
        reasons = summary.row(statistic)
        if reasons is not None:
            n = int(reasons["estimate"])
            counted = f"{what}: " if n == 1 else f"{what}: {n}, all listed in manifest.json, such as: "
            notes.append(f"{counted}{reasons['note'].rstrip('.')}.")
    for statistic, what in (
        ("without_cue", "negation cue"),
        ("without_control", "control of the counterfactual's length"),
    ):
        missing = summary.rows(statistic).iloc[0]
        if statistic == "without_cue" and missing["hits"] == missing["n"]:
            notes.append(
                "No pair has a negation cue. The words that differ between its statements are the changed words."
            )
        elif missing["hits"]:
            notes.append(f"{missing['hits']} of {missing['n']} pairs have no {what}.")
    # Summaries of earlier versions do not have it.
    alone = summary.row("affected_not_aligned")
    if alone is not None and alone["hits"]:
        notes.append(
            f"In {alone['hits']} of {alone['n']} pairs, no word of the original corresponds to the affected word. They "
            "are left out of averages over the affected word that compare aligned tokens."
        )
    measured = summary.rows("contributions").iloc[0]
    if measured["hits"] < measured["n"]:
        notes.append(
            f"What the cue contributes was measured on {measured['hits'] or 'none'} of {measured['n']} pairs with a "
            f"cue{', an even sample' if measured['hits'] else ''}: the time that value zeroing takes grows with the "
            "square of a text's length."
        )
    words = summary.row("unknown_words")
    if words is not None:
        are = "word is" if words["estimate"] == 1 else "words are"
        notes.append(f"{words['estimate']:.0f} {are} not in the model's vocabulary: {words['note']}.")
    no_gap = summary.row("near_zero_gap")
    if no_gap is not None and no_gap["hits"]:
        notes.append(f"{no_gap['hits']} patched pairs do not differ in the answer and are not in the averages.")
    return notes
