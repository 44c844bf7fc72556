"""Two studies of the same pairs side by side, as one HTML file: answers, swaps, heads, circuits, and what differs."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.base.errors import ViewError
from negprobe.base.files import whole_file
from negprobe.base.provenance import now, versions
from negprobe.patching import Circuit
from negprobe.statistics import effects_table
from negprobe.study.comparison import ALL_CUES, StudyComparison
from negprobe.study.saved import SavedStudy
from negprobe.views.figures.comparison import TOPICS, comparison_pictures
from negprobe.views.labels import metric_name, short_name
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
from negprobe.views.report.wording import with_interval

_N_NAMED = 10

_LIMITS = (
    "A difference between two models is one between these two: nothing here tells what of training, data or seed made "
    "it, nor how far two seeds of the same training would differ.",
    "Head 2.1 of one model need not do what head 2.1 of another does unless one was made from the other, as in a "
    "fine-tune; heads are compared by their number alone.",
    "Intervals are of one difference each, not corrected for how many there are; q and max-T p are corrected.",
    "Pairs that share words are not independent, which no interval here knows.",
    "Each circuit was searched and proven on its own study's pairs with its own ablation; that a component is in one "
    "alone does not show that the other model can spare it.",
)


def comparison_report(compared: StudyComparison, manifest: Mapping[str, Any]) -> str:
    """The comparison as one self-contained HTML page without scripts.

    Args:
        compared: What was compared.
        manifest: How the comparison was made, for the last section but one.

    Raises:
        ViewError: for results that cannot be drawn.
    """
    a, b = _names(compared)
    sections = [
        Section("data", "The models and the data", _data(compared)),
        Section("answer", "The answer", answer_box(answer(compared), BRACKETS)),
        Section("figures", "The figures", topics(TOPICS, comparison_pictures(compared))),
        Section("numbers", "Every number", _numbers(compared)),
        Section("made", "How it was made", _made(compared, manifest)),
        Section("limits", "What cannot be concluded", bullets(_limits(compared))),
    ]
    lead = f"What does {b} (B) do otherwise with the negation than {a} (A), on the same statements?"
    return document(f"How {a} and {b} hear “not”", lead, sections, head=NO_SCRIPTS)


def write_comparison(compared: StudyComparison, path: str | Path, command: str | None = None) -> Path:
    """Write `comparison_report` to `path`, as a whole or not at all, and return it.

    Raises:
        ViewError: as `comparison_report`, and if the file cannot be written.
    """
    path = Path(path)
    manifest = {"command": command or shlex.join(sys.argv), "made": now(), "seed": compared.a.seed, **versions()}
    page = comparison_report(compared, manifest)
    try:
        with whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ViewError(f"The page {path} cannot be written: {error}. Choose another place.") from error
    return path


def _data(compared: StudyComparison) -> str:
    rows = []
    for name, study in zip("AB", (compared.a, compared.b), strict=True):
        model, data = study.manifest["model"], study.manifest["data"]
        rows.append(
            {
                "study": name,
                "model": model["name"],
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
    text = (
        f"{len(compared.common)} pairs are in both studies, with the same texts, target and foil. What stands here of "
        f"answers, swaps and heads is of them alone, taken anew; {compared.patched} of them were patched in both and "
        "have, in both models, two runs that differ in the answer. Every difference is B − A."
    )
    return paragraph(text) + table(pd.DataFrame(rows), "The two studies", decimals=0)


def _numbers(compared: StudyComparison) -> str:
    parts = []
    answers = compared.answers.rename(columns=_BOUNDS)
    if len(answers):
        whole = answers["cue"] == ALL_CUES
        caption = "Share of pairs answered rightly (of embeddings, the mean cosine of the two statements)"
        parts.append(table(answers[whole].drop(columns="cue"), caption, decimals=3))
        rest = folded("Answers by kind of cue", table(answers[~whole], "The same by kind of cue", decimals=3))
        parts.append(rest)
    if compared.change is not None:
        parts.append(_changed_heads(compared.change, compared.tests))
    else:
        parts += [_own_heads(name, tests) for name, tests in zip("AB", compared.tests, strict=True)]
    circuits = [compared.a.circuit, compared.b.circuit]
    if all(circuits):
        parts.append(_circuit_table(*circuits))  # type: ignore[arg-type]
    if len(compared.swaps):
        caption = (
            "Normalised effect of every swap over the pairs patched in both, and of cutting attention to the cue "
            "(knock_out), with 95 % intervals"
        )
        parts.append(folded("All swaps", table(_swaps(compared), caption, decimals=3)))
    return "".join(parts)


_BOUNDS = {"low": "95 % from", "high": "95 % to", "difference": "B − A"}


def _swaps(compared: StudyComparison) -> pd.DataFrame:
    """Every swap with its effect in A and B, and the difference where there is one."""
    swaps = compared.swaps
    shown = swaps[["site", "direction", "layer", "part", "pairs"]].copy()
    shown["layer"] = ["every" if pd.isna(layer) else str(int(layer)) for layer in swaps["layer"]]
    columns = {name: (name, f"{name}_low", f"{name}_high") for name in "AB"}
    if compared.same_shape:
        columns["B − A"] = ("difference", "low", "high")
    for name, parts in columns.items():
        effects = zip(*(swaps[part] for part in parts), strict=True)
        shown[name] = [
            "–" if pd.isna(effect) else with_interval(effect, low, high, decimals=3) for effect, low, high in effects
        ]
    return shown


def _changed_heads(change: xr.Dataset, tests: tuple[xr.Dataset | None, xr.Dataset | None]) -> str:
    """The heads in which the effect of negation differs most regularly, each by its clearest metric."""
    rows = effects_table(change).sort_values("effect_size", key=lambda size: -size.abs())
    rows = rows.drop_duplicates(["layer", "head"])
    for name, own in zip("AB", tests, strict=True):
        assert own is not None  # or there was no change to test
        effects = own["effect"].to_dataframe(name).reset_index()
        rows = rows.merge(effects[["metric", "layer", "head", name]], on=["metric", "layer", "head"], how="left")
    rows = rows.assign(head=rows["layer"].astype(str) + "." + rows["head"].astype(str))
    rows["metric"] = rows["metric"].map(metric_name)
    named = rows.rename(columns={**_BOUNDS, "effect": "B − A", "effect_size": "d_z", "p_max_t": "max-T p"})
    shown = ["head", "metric", "A", "B", "B − A", "95 % from", "95 % to", "d_z", "q", "max-T p", "n"]
    caption = (
        "Every head by the metric whose effect of negation differs most regularly (largest |d_z|), tested pair by pair"
    )
    top, rest = named[shown].head(_N_NAMED), named[shown].iloc[_N_NAMED:]
    more = folded("The other heads", table(rest, caption, decimals=4)) if len(rest) else ""
    return table(top, caption, decimals=4) + more


def _own_heads(name: str, tests: xr.Dataset | None) -> str:
    if tests is None:
        return ""
    rows = effects_table(tests).sort_values("effect_size", key=lambda size: -size.abs())
    rows = rows.drop_duplicates(["layer", "head"]).head(_N_NAMED)
    rows = rows.assign(head=rows["layer"].astype(str) + "." + rows["head"].astype(str))
    rows["metric"] = rows["metric"].map(metric_name)
    named = rows.rename(columns={**_BOUNDS, "effect_size": "d_z", "p_max_t": "max-T p"})
    shown = ["head", "metric", "effect", "95 % from", "95 % to", "d_z", "q", "max-T p", "n"]
    return table(named[shown], f"{name}: the heads with the most regular effects of negation", decimals=4)


def _circuit_table(one: Circuit, other: Circuit) -> str:
    sides = {"A": one, "B": other}
    facts_of = {
        name: {
            "components": f"{len(circuit)} of {len(circuit.scores)}",
            "faithfulness": f"{circuit.faithfulness:.3f} [{circuit.interval[0]:.3f}, {circuit.interval[1]:.3f}]",
            "held-out pairs": str(circuit.n_held_out),
            "asked for": f"{circuit.threshold:.2f}",
            "ablation": f"{circuit.ablation}, {circuit.direction}",
            "random sets, mean": f"{circuit.random_faithfulness:.3f}",
            "CPR": f"{circuit.cpr:.3f}",
            "CMD": f"{circuit.cmd:.3f}",
        }
        for name, circuit in sides.items()
    }
    summary = pd.DataFrame(facts_of).rename_axis("circuit").reset_index()
    components = sorted({*one.scores, *other.scores})
    rows = pd.DataFrame(
        {
            "component": map(str, components),
            **{
                f"effect alone, {name}": [c.scores.get(part, np.nan) for part in components]
                for name, c in sides.items()
            },
            **{f"in {name}": [part in c for part in components] for name, c in sides.items()},
        }
    )
    every = folded("All components", table(rows, "Effect of ablating each alone, and who is in a circuit", decimals=3))
    return table(summary, "The circuits", decimals=3) + every


def _made(compared: StudyComparison, manifest: Mapping[str, Any]) -> str:
    own = facts(manifest, "This comparison: command, seed and versions")
    studies = zip("AB", (compared.a, compared.b), strict=True)
    return own + "".join(facts(study.manifest, f"Study {name}: {study.folder}") for name, study in studies)


def _limits(compared: StudyComparison) -> list[str]:
    a, b = (study.manifest for study in (compared.a, compared.b))
    versions = sorted(
        name for name in {*a["versions"], *b["versions"]} if a["versions"].get(name) != b["versions"].get(name)
    )
    limits = []
    if versions:
        limits.append(f"The studies were made with different versions of {', '.join(versions)}, which may matter.")
    other_control = _other_controls(compared)
    if other_control:
        limits.append(
            f"{other_control} of {len(compared.common)} common pairs have another control in B than in A, as the words "
            "of a length depend on the tokenizer; their effects of negation and their swaps are against other words."
        )
    left_out = max(len(compared.a.pairs), len(compared.b.pairs)) - len(compared.common)
    if left_out:
        limits.append(f"Up to {left_out} pairs of a study are not in the other and count for nothing here.")
    return [*limits, *_LIMITS]


def _other_controls(compared: StudyComparison) -> int:
    sides = [
        study.pairs.set_index("pair")["control"].fillna("").reindex(compared.common[side]).to_numpy()
        for study, side in ((compared.a, "a"), (compared.b, "b"))
    ]
    return int((sides[0] != sides[1]).sum())


def _names(compared: StudyComparison) -> tuple[str, str]:
    """What the two are called: the models, or their studies' folders where one model's name is that of the other."""
    a, b = (short_name(str(study.manifest["model"]["name"])) for study in (compared.a, compared.b))
    return (a, b) if a != b else (f"{a} in {_folder(compared.a)}", f"{b} in {_folder(compared.b)}")


def _folder(study: SavedStudy) -> str:
    return short_name(str(study.folder))
