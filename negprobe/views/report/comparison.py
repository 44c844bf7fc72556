"""The report on two studies of the same pairs, as one HTML file: answers, swaps, heads, circuits, and differences."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from negprobe.base.errors import ViewError
from negprobe.base.provenance import now, versions
from negprobe.base.texts import quoted
from negprobe.study.comparison import StudyComparison
from negprobe.study.saved import SavedStudy
from negprobe.study.summary_table import CHANGE, A, B, StudySummary, write_summary
from negprobe.views.html_file import write_html
from negprobe.views.labels import metric_name, short_name
from negprobe.views.report.comparison_captions import TOPICS, comparison_pictures
from negprobe.views.report.comparison_findings import BRACKETS, answer
from negprobe.views.report.document import (
    NO_SCRIPTS,
    Section,
    answer_box,
    bullets,
    document,
    facts,
    folded,
    in_words,
    paragraph,
    table,
    topics,
)
from negprobe.views.report.wording import head_name, terms, with_interval

_N_NAMED = 10

_LIMITS = (
    "A difference is one between these two models: the comparison cannot show whether training, data or the random "
    "seed caused it, nor how much two seeds of the same training would differ.",
    "Heads are compared by their number. Head 2.1 of one model need not have the function of head 2.1 of the other, "
    "unless one model was made from the other, as in fine-tuning.",
    "Each interval is of one difference and is not corrected for multiple comparisons; q and max-T p are corrected.",
    "Pairs that share words are not independent, which the intervals here do not account for.",
    "Each circuit was searched and tested on its own study's pairs with its own ablation. A component that is in only "
    "one circuit may still matter in the other model.",
)


def comparison_report(compared: StudyComparison, manifest: Mapping[str, Any]) -> str:
    """The comparison as one self-contained HTML page without scripts.

    Args:
        compared: The comparison.
        manifest: Command, seed and versions of the comparison, for the section "How it was made".

    Raises:
        ViewError: if a result cannot be drawn.
    """
    a, b = _names(compared)
    sections = [
        Section("data", "The models and the data", _data(compared)),
        Section("answer", "The answer", answer_box(answer(compared.summary), BRACKETS)),
        Section("figures", "The figures", topics(TOPICS, comparison_pictures(compared))),
        Section("numbers", "Every number", _numbers(compared)),
        Section("made", "How it was made", _made(compared, manifest)),
        Section("limits", "What cannot be concluded", bullets(limits(compared))),
    ]
    words = terms(compared.summary)
    lead = f"How does {b} (B) treat {words.change} differently from {a} (A) in the same statements?"
    hear = "hear “not”" if words.words == "the cue" else "notice changed words"
    return document(f"How {a} and {b} {hear}", lead, sections, head=NO_SCRIPTS)


def write_comparison(compared: StudyComparison, path: str | Path, command: str | None = None) -> Path:
    """Write `comparison_report` to `path` and its summary to `summary_path(path)`, and return `path`.

    Raises:
        ViewError: as `comparison_report`, and if a file cannot be written.
    """
    path = Path(path)
    manifest = {"command": command or shlex.join(sys.argv), "made": now(), "seed": compared.a.seed, **versions()}
    page = comparison_report(compared, manifest)
    try:
        # The numbers first: a page without its numbers would be worse than no page.
        write_summary(compared.summary, summary_path(path))
    except OSError as error:
        raise ViewError(f"The summary beside {path} cannot be written: {error}. Choose another folder.") from error
    return write_html(page, path)


def summary_path(page: Path) -> Path:
    """The path of the summary of a comparison, in the folder of its page: "ab.summary.parquet" for "ab.html"."""
    return page.with_name(f"{page.stem}.summary.parquet")


def _data(compared: StudyComparison) -> str:
    rows = []
    # Earlier versions recorded no prompt, because they had none.
    prompts = [study.manifest["model"].get("prompt") for study in (compared.a, compared.b)]
    for name, study, prompt in zip("AB", (compared.a, compared.b), prompts, strict=True):
        model, data = study.manifest["model"], study.manifest["data"]
        rows.append(
            {
                "study": name,
                "model": model["name"],
                **({"prompt": quoted(prompt) if prompt else "none"} if any(prompts) else {}),
                "family": model["family"],
                "on top": in_words(model["head"]),
                "layers": model["layers"],
                "heads": model["heads"],
                "data": data["source"],
                "pairs": data["pairs"],
                "answered": data["answered"],
                "patched": data["patched"],
                "folder": str(study.folder),
            }
        )
    return paragraph(common_pairs(compared.summary)) + table(pd.DataFrame(rows), "The two studies", decimals=0)


def common_pairs(summary: StudySummary) -> str:
    """A paragraph on the pairs that are compared."""
    pairs, patched = summary.rows("pairs").iloc[0], summary.rows("patched").iloc[0]
    return (
        f"{pairs['estimate']:.0f} pairs are in both studies, with the same texts, target and foil. The numbers below "
        f"for answers, swaps and heads are recomputed over these pairs. {patched['hits']} of them were patched in both "
        "studies and have two runs with different answers in both models. Every difference is B − A."
    )


def _numbers(compared: StudyComparison) -> str:
    summary = compared.summary
    parts = [_answers_tables(summary)]
    if summary.row("tests", study=CHANGE) is not None:
        parts.append(_changed_heads(summary))
    else:
        parts += [_own_heads(name, summary.of(name)) for name in (A, B)]
    if summary.row("circuit", study=A) is not None and summary.row("circuit", study=B) is not None:
        parts.append(_circuit_tables(summary))
    swaps = summary.table[summary.table["statistic"].isin(["swap", "knock_out_set"])]
    if len(swaps):
        caption = (
            "Normalised effect of every swap over the pairs patched in both, and of removing attention to the cue "
            "(knock_out), with 95 % intervals"
        )
        parts.append(folded("All swaps", table(_swaps(swaps), caption, decimals=3)))
    return "".join(parts)


def _answers_tables(summary: StudySummary) -> str:
    """Accuracies or cosines over all pairs, and by kind of cue."""
    statistic, caption = ("right", "Accuracy: the share of pairs with the right answer")
    if summary.row("cosine") is not None:
        statistic, caption = "cosine", "Mean cosine similarity of original and counterfactual"
    rows, of_cues = summary.rows(statistic), summary.rows(f"{statistic}_of_cue")
    if rows.empty:
        return ""
    by_cue = table(_side_by_side(of_cues, ["cue", "compared"]), f"{caption}, by kind of cue", decimals=3)
    return table(_side_by_side(rows, ["compared"]), caption, decimals=3) + folded("Answers by kind of cue", by_cue)


def _side_by_side(rows: pd.DataFrame, subject: list[str]) -> pd.DataFrame:
    """One row per subject, with A, B and B − A as columns, each with its interval."""
    names = {A: "A", B: "B", CHANGE: "B − A"}
    shown = []
    for _, group in rows.groupby(subject, dropna=False, sort=False):
        first = group.iloc[0]
        cells: dict[str, object] = {name: first[name] for name in subject} | {"pairs": first["n"]}
        shown.append(cells | {names[row["study"]]: with_interval(row, decimals=3) for _, row in group.iterrows()})
    return pd.DataFrame(shown).rename(columns={"compared": "statement"})


def _swaps(swaps: pd.DataFrame) -> pd.DataFrame:
    """Every swap with its effect in A and B, and the difference if there is one."""
    parts = swaps["part"].where(swaps["part"] != "", swaps["role"])
    named = swaps.assign(
        site=swaps["site"].where(swaps["site"] != "", "knock_out"),
        layer=swaps["layer"].astype(object).where(swaps["layer"].notna(), "all"),
        part=parts.where(parts != "", swaps["head"].astype(str)),
    )
    return _side_by_side(named, ["site", "direction", "layer", "part"]).fillna("–")


def _changed_heads(summary: StudySummary) -> str:
    """Tables of the heads by the effect size of the difference, each with the metric that has the largest."""
    rows = summary.rows("clearest_effect", study=CHANGE)
    cell = ["metric", "layer", "head"]
    for name in (A, B):
        own = summary.rows("effect_of_changed_head", study=name)[[*cell, "estimate"]].rename(columns={"estimate": name})
        rows = rows.merge(own, on=cell, how="left")
    caption = (
        "Every head by the metric whose effect of negation differs most regularly (largest |d_z|), tested pair by pair"
    )
    shown = _with_table_names(rows, {"estimate": "B − A"})[["head", "metric", A, B, "B − A", *_TESTED]]
    top, rest = shown.head(_N_NAMED), shown.iloc[_N_NAMED:]
    more = folded("The other heads", table(rest, caption, decimals=4)) if len(rest) else ""
    return table(top, caption, decimals=4) + more


def _own_heads(name: str, summary: StudySummary) -> str:
    rows = summary.rows("clearest_effect").head(_N_NAMED)
    if rows.empty:
        return ""
    shown = _with_table_names(rows, {"estimate": "effect"})[["head", "metric", "effect", *_TESTED]]
    return table(shown, f"{name}: the heads with the most regular effects of negation", decimals=4)


_TESTED = ["95 % from", "95 % to", "d_z", "q", "max-T p", "n"]
_BOUNDS = {"low": "95 % from", "high": "95 % to", "effect_size": "d_z", "p_max_t": "max-T p"}


def _with_table_names(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Tests of heads with the column names of the tables."""
    heads = [head_name(row) for _, row in rows.iterrows()]
    return rows.assign(head=heads, metric=rows["metric"].map(metric_name)).rename(columns={**_BOUNDS, **columns})


def _circuit_tables(summary: StudySummary) -> str:
    columns = {name: _circuit_facts(summary.of(name)) for name in (A, B)}
    circuits = pd.DataFrame(columns).rename_axis("circuit").reset_index()
    effects = summary.rows("component_effect").pivot(index="part", columns="study", values="estimate")
    order = dict.fromkeys(summary.rows("component_effect").sort_values(["layer", "head"])["part"])
    members = {name: set(summary.rows("circuit_member", study=name)["part"]) for name in (A, B)}
    components = pd.DataFrame(
        {
            "component": list(order),
            **{f"effect alone, {name}": effects[name].reindex(list(order)).to_numpy() for name in (A, B)},
            **{f"in {name}": [part in members[name] for part in order] for name in (A, B)},
        }
    )
    caption = "Effect of ablating each component alone, and whether it is in a circuit"
    return table(circuits, "The circuits", decimals=3) + folded(
        "All components", table(components, caption, decimals=3)
    )


def _circuit_facts(summary: StudySummary) -> dict[str, str]:
    """The numbers of a circuit, for one column of a table."""
    names = ("circuit", "faithfulness", "threshold", "cpr", "cmd")
    circuit, faithful, threshold, cpr, cmd = (summary.rows(name).iloc[0] for name in names)
    random = summary.rows("random_faithfulness", part="mean").iloc[0]
    return {
        "components": f"{circuit['hits']} of {circuit['n']}",
        "faithfulness": with_interval(faithful, decimals=3),
        "held-out pairs": str(faithful["n"]),
        "target": f"{threshold['estimate']:.2f}",
        "ablation": circuit["note"],
        "random sets, mean": f"{random['estimate']:.3f}",
        "CPR": f"{cpr['estimate']:.3f}",
        "CMD": f"{cmd['estimate']:.3f}",
    }


def _made(compared: StudyComparison, manifest: Mapping[str, Any]) -> str:
    own = facts(manifest, "This comparison: command, seed and versions")
    studies = zip("AB", (compared.a, compared.b), strict=True)
    return own + "".join(facts(study.manifest, f"Study {name}: {study.folder}") for name, study in studies)


def limits(compared: StudyComparison) -> list[str]:
    """Sentences on what cannot be concluded from the comparison."""
    summary = compared.summary
    one, other = (study.manifest["versions"] for study in (compared.a, compared.b))
    found = []
    if differing := sorted(name for name in {*one, *other} if one.get(name) != other.get(name)):
        found.append(f"The studies were made with different versions of {', '.join(differing)}, which may matter.")
    controls = summary.rows("differing_controls").iloc[0]
    if controls["hits"]:
        found.append(
            f"{controls['hits']} of {controls['n']} common pairs have different controls in A and B, because a "
            "control's length depends on the tokenizer; their effects of negation and swaps are relative to different "
            "words."
        )
    left_out = [
        f"{row['hits']} of {row['n']} pairs of {row['study']}"
        for _, row in summary.rows("not_in_other").iterrows()
        if row["hits"]
    ]
    if left_out:
        found.append(f"Pairs that are in only one study were left out: {' and '.join(left_out)}.")
    return [*found, *_LIMITS]


def _names(compared: StudyComparison) -> tuple[str, str]:
    """The names of the two models, with their studies' folders if the models have the same name."""
    a, b = (short_name(str(study.manifest["model"]["name"])) for study in (compared.a, compared.b))
    return (a, b) if a != b else (f"{a} in {_folder(compared.a)}", f"{b} in {_folder(compared.b)}")


def _folder(study: SavedStudy) -> str:
    return short_name(str(study.folder))
