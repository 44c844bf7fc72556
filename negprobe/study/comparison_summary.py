"""The summary of a comparison of two studies, as rows of the same table as the summary of a study."""

from collections.abc import Iterator, Mapping

import pandas as pd

from negprobe.base.arguments import checked
from negprobe.patching.component_sets import Component
from negprobe.study.comparison import ALL_CUES, StudyComparison
from negprobe.study.saved import SavedStudy
from negprobe.study.stages import SWEPT, knock_out_patches
from negprobe.study.summary import circuit_rows, effect_rows, largest_effect_rows
from negprobe.study.summary_table import CHANGE, A, B, Row, StudySummary, summary_of


@checked
def summarize_comparison(compared: StudyComparison) -> StudySummary:
    """The summary of a comparison: every number that the report and the command line state about it.

    `compared.summary` computes it once and keeps it. The column `study` names the study that a row belongs to, A or B,
    or the difference B - A. The statistics have the same names as in the summary of a study.
    """
    parts = (_pairs, _answers, _swaps, _effects, _circuits)
    return summary_of(row for part in parts for row in part(compared))


def _pairs(compared: StudyComparison) -> Iterator[Row]:
    """The number of compared pairs, and numbers that limit the comparison, such as pairs with different controls."""
    common = compared.common
    yield {"statistic": "pairs", "estimate": len(common)}
    has_cue = any(study.pairs["cue"].fillna("").astype(bool).any() for study in (compared.a, compared.b))
    role = {"statistic": "differing_role", "note": "cue" if has_cue else "changed"}
    yield from ({**role, "study": name} for name in ("", A, B))
    yield {"statistic": "patched", "hits": compared.patched, "n": len(common)}
    for name, study in _sides(compared):
        n = len(study.pairs)
        yield {"statistic": "not_in_other", "study": name, "hits": n - len(common), "n": n}
    controls = [
        study.pairs.set_index("pair")["control"].fillna("").reindex(common[side]).to_numpy()
        for side, study in (("a", compared.a), ("b", compared.b))
    ]
    differing = int((controls[0] != controls[1]).sum())
    yield {"statistic": "differing_controls", "hits": differing, "n": len(common)}


def _sides(compared: StudyComparison) -> list[tuple[str, SavedStudy]]:
    return [(A, compared.a), (B, compared.b)]


def _answers(compared: StudyComparison) -> Iterator[Row]:
    """The accuracies or cosine similarities of both models, by statement and cue type."""
    if compared.no_answers:
        yield {"statistic": "no_answers", "note": compared.no_answers}
    for row in compared.answers.to_dict("records"):
        is_share = row["statement"] != "cosine"
        statistic = "right" if is_share else "cosine"
        subject = {"statistic": statistic, "compared": row["statement"] if is_share else "", "n": row["pairs"]}
        if row["cue"] != ALL_CUES:
            subject |= {"statistic": f"{statistic}_of_cue", "cue": row["cue"]}
        for name in (A, B):
            hits = {"hits": round(row[name] * row["pairs"])} if is_share else {}
            interval = {"low": row[f"{name}_low"], "high": row[f"{name}_high"]}
            yield {**subject, "study": name, "estimate": row[name], **interval, **hits}
        yield {**subject, "study": CHANGE, "estimate": row["difference"], "low": row["low"], "high": row["high"]}


def _swaps(compared: StudyComparison) -> Iterator[Row]:
    """The effect of every swap and knock-out in both models, and the number of swaps per site that differ."""
    swaps = compared.swaps
    layers = max(study.shape[0] for _, study in _sides(compared))
    sets = knock_out_patches(layers)
    for row in swaps.to_dict("records"):
        subject = {"statistic": "swap", "site": row["site"], "direction": row["direction"], "n": row["pairs"]}
        part = str(row["part"])
        if row["site"] == "knock_out":
            cut = sets[part]
            subject |= {"statistic": "knock_out_set", "part": part, "layer": cut.layer, "role": cut.role or ""}
        else:
            subject |= {"layer": int(row["layer"])}
            subject |= {"head": int(part)} if SWEPT[row["site"]] == "head" else {"role": part}
        columns = {A: (A, "A_low", "A_high"), B: (B, "B_low", "B_high"), CHANGE: ("difference", "low", "high")}
        for name, (estimate, low, high) in columns.items():
            if not pd.isna(row[estimate]):
                interval = {"low": row[low], "high": row[high]}
                yield {**subject, "study": name, "estimate": row[estimate], **interval}
    if compared.same_shape:
        for (site, direction), rows in swaps.groupby(["site", "direction"], sort=False):
            differing = int(((rows["low"] > 0) | (rows["high"] < 0)).sum())
            subject = {"study": CHANGE, "site": site, "direction": direction}
            yield {"statistic": "differing_swaps", **subject, "hits": differing, "n": len(rows)}


def _effects(compared: StudyComparison) -> Iterator[Row]:
    """The heads that respond to negation in each model, and those with a different response."""
    for name, tests in ((A, compared.tests[0]), (B, compared.tests[1]), (CHANGE, compared.change)):
        if tests is None:
            continue
        if "untestable" in tests.attrs:
            yield {"statistic": "untestable", "study": name, "note": tests.attrs["untestable"]}
        for row in (*effect_rows(tests), *largest_effect_rows(tests)):
            yield {**row, "study": name}
    if compared.change is not None:
        cells = summary_of(effect_rows(compared.change)).rows("clearest_effect")[["metric", "layer", "head"]]
        for name, tests in zip((A, B), compared.tests, strict=True):
            assert tests is not None  # `change` is computed only from the tests of both
            for _, (metric, layer, head) in cells.iterrows():
                effect = float(tests["effect"].sel(metric=metric, layer=layer, head=head))
                cell = {"metric": metric, "layer": layer, "head": head, "estimate": effect}
                yield {"statistic": "effect_of_changed_head", "study": name, **cell}


def _circuits(compared: StudyComparison) -> Iterator[Row]:
    """Both circuits, each on the pairs of its own study, and the number of components that they share."""
    circuits = {name: study.circuit for name, study in _sides(compared) if study.circuit is not None}
    for name, circuit in circuits.items():
        yield from ({**row, "study": name} for row in circuit_rows(circuit))
        yield from _component_effects(circuit.scores, name)
    if len(circuits) < 2:
        return
    one, other = circuits[A], circuits[B]
    if compared.same_shape:
        shared = len({*one.components} & {*other.components})
        yield {"statistic": "shared_components", "hits": shared, "n": len(one.scores)}
        differences = {part: other.scores[part] - score for part, score in one.scores.items() if part in other.scores}
        yield from _component_effects(differences, CHANGE)
        # Expected overlap of two random circuits of these sizes: the mean of a hypergeometric distribution.
        yield {"statistic": "shared_by_chance", "estimate": len(one) * len(other) / len(one.scores)}


def _component_effects(effects: Mapping[Component, float], study: str) -> Iterator[Row]:
    """The effect of ablating each component alone; `head` is empty for an MLP."""
    for component, effect in effects.items():
        cell = {"layer": component.layer, "head": component.head, "part": str(component)}
        yield {"statistic": "component_effect", "study": study, **cell, "estimate": effect}
