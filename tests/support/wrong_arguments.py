"""Calls of every public function with wrong values.

CASES have values of the right type, and WORKS are good calls, each argument of which becomes a value of any type.
Making what the calls need takes some seconds, so tests import this module only when they run.
"""

import inspect
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import torch
import xarray as xr

from negprobe import NegprobeError, attention, behaviour, patching, statements, statistics, views
from negprobe.attention import AttentionProbe
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.patching import Circuit, Patch
from negprobe.statements import Cue, StatementPair
from negprobe.study import read_study, run_study

NAN, INF = float("nan"), float("inf")
_FOLDER = tempfile.TemporaryDirectory()
HERE = Path(_FOLDER.name)
model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
probe = AttentionProbe(model)
pairs = statements.builtin_pairs()[::28]
pair = pairs[0]
long = StatementPair(f"{'a ' * 100} [MASK].", f"{'a ' * 100} not [MASK].", "open", "closed")
silent = StatementPair("The door is open.", "The door is not open.")
tokenized = statements.tokenize(pair.original, model.tokenizer)
sweep = patching.patch_sweep(model, pairs, "z", by="head")
by_role = patching.patch_sweep(model, pairs, "resid_pre", by="role")
planned = patching.planned_sweeps(["z"], by=["head"], directions=["noising"])
empty = sweep.isel(pair=[])
lost = sweep.copy(deep=True)
lost["patched"][:] = NAN
comparison = probe.compare(pair)
metrics = probe.metrics(pairs)
readings = probe.readings(pairs)
effects = statistics.negation_effects(metrics[list(attention.METRICS)])
tests = statistics.effect_tests(effects, n_resamples=99)
replicated = statistics.replication(effects, ["a"] * len(pairs), min_pairs=2, at_least=1, n_resamples=9)
circuit = patching.find_circuit(model, pairs, ranking="attribution")
shares = probe.cue_shares(pairs)
tokens, types, mask = model.to_tokens(pair.original)
sets = [behaviour.builtin_set()]
studied = run_study(model, [silent], patch_pairs=0, circuit_pairs=0, contribution_pairs=0)
views.write_study(studied, HERE / "study", "negprobe study")
CUES = HERE / "cues.toml"
CUES.write_text('[cues.function]\nsans = ["sans"]', encoding="utf-8")
Case = Callable[[], Any]


def sweeps(**options: Any) -> Case:
    return lambda: patching.patch_sweep(model, pair, **{"site": "resid_pre", "by": "role", **options})


def attributes(given: Any = pair, **options: Any) -> Any:
    return patching.attribute(model, given, **{"by": "head", **options})


def each(function: Callable[..., Any], *arguments: Any, **options: list[Any]) -> list[Case]:
    """The function with each of some values for each of its options, the others left alone."""
    return [
        lambda name=name, value=value: function(*arguments, **{name: value})
        for name, values in options.items()
        for value in values
    ]


def figure(function: Callable[..., Any], *arguments: Any) -> list[Case]:
    return each(function, *arguments, width=[0.0, NAN, INF, 2.0])


PAGE = {"max_bytes": 10**7, "left_out": ["a"]}

CASES: dict[str, list[Case]] = {
    "AttentionProbe": [
        *each(AttentionProbe, model, batch_size=[0, -1]),
        *(lambda given=given: probe.run(given) for given in ([], "", ["a", " "], "a " * 100, "[SEP]")),
        *(lambda given=given: probe.compare(given) for given in ([], long, [pair, long])),
        *each(probe.compare, "It is open.", counterfactual=[None, "", "\ud800"]),
        lambda: probe.compare(pair, "It is not open."),
        *(lambda given=given: probe.metrics(given) for given in ([], [long], [silent])),
        *(lambda given=given: probe.readings(given) for given in ([], [long], [silent])),
        *(lambda given=given: probe.cue_shares(given) for given in ([], [long], [silent])),
        *(lambda given=given: probe.lengths(given) for given in ([long],)),
        *each(probe.html, pair, HERE / "x.html", max_bytes=[0, -1, 100]),
        lambda: probe.html([], HERE / "x.html"),
        lambda: probe.html(pair, HERE),
        lambda: probe.html(pair, HERE / "no" / "x.html"),
        lambda: probe.html(pair, HERE / "a\0b.html"),
    ],
    "HookedEncoder": [
        *(lambda given=given: model(given) for given in ("", [], "a " * 100, ("a", ""), ["a", ("b", "c")])),
        *each(model, "The door.", start_at_layer=[9, -9, 0], stop_at_layer=[9, -9], return_type=["words"]),
        *each(model, "The door.", token_type_ids=[torch.zeros(1, 2).long(), torch.full((1, 5), 9)]),
        *each(model, "The door.", one_zero_attention_mask=[torch.zeros(1, 2).long(), torch.zeros(1, 5).long()]),
        *(lambda given=given: model(given) for given in (tokens[0], tokens[:, :0], tokens - 999, tokens + 10**6)),
        lambda: model(torch.full((1, 3, 7), NAN), start_at_layer=1),
        lambda: model.to_single_token("un known"),
        lambda: model.to_single_token(""),
        *each(HookedEncoder.from_pretrained, "tiny-negation", device=["nowhere", "", "meta", "cuda:99"]),
        *each(HookedEncoder.from_pretrained, "tiny-negation", architecture=["", "nowhere", "GPT2Model"]),
        *each(HookedEncoder.from_pretrained, "tiny-negation", prompt=["query", "\ud800 ", "[MASK] "]),
        lambda: HookedEncoder.from_pretrained(""),
        lambda: HookedEncoder.from_pretrained(),
        *each(HookedEncoder.from_pretrained, "tiny-negation", model_name=["tiny-negation"], torch_dtype=["float32"]),
        *each(model.to_str_tokens, input=["", [], torch.tensor([[-1]]), torch.tensor(1)]),
        *each(model.tokens_to_residual_directions, tokens=[-1, 10**9, "a word", torch.zeros(0).long()]),
        *each(model.all_composition_scores, mode=["", "q", "O"]),
        *(lambda name=name: model.add_hook(name, print) for name in ("", "blocks.9.hook_resid_pre", "blocks.0")),
    ],
    "StatementPair": [
        lambda: StatementPair("", "a"),
        lambda: StatementPair("a", " \n"),
        lambda: StatementPair("a", "b", control=""),
        *each(StatementPair, "a", "b", cue_spans=[((-1, 1),), ((1, 1),), ((0, 9),)], affected_spans=[((1, 0),)]),
    ],
    "draw_figures": [
        *each(views.draw_figures, HERE / "study", figure_formats=[[], ["gif"]]),
        lambda: views.draw_figures(HERE / "no study", ["png"]),
    ],
    "patchable_pairs": [
        *each(patching.patchable_pairs, model, pairs=[[], [long], [silent], [pair, long, pair]]),
        *each(patching.patchable_pairs(model, pairs).sample, n=[0, -1]),
        lambda: patching.patchable_pairs(model, pairs).sample(1, seed=-1),
    ],
    "planned_sweeps": [
        *each(patching.planned_sweeps, sites=[["x"], [""]], by=[[], ["head", "head"], ["role", "position"]]),
        *each(patching.planned_sweeps, how=["x", "knock_out"], keys=["x", "cue"], directions=[["x"]]),
        lambda: patching.planned_sweeps(renormalize=True),
    ],
    "run_sweeps": [
        lambda: list(patching.run_sweeps(model, {}, planned)),
        lambda: list(patching.run_sweeps(model, {0: long}, planned)),
        lambda: list(patching.run_sweeps(model, {0: pair}, [])),
    ],
    "sweep_averages": [
        lambda: patching.sweep_averages(planned[0], empty),
        *each(patching.sweep_averages, planned[0], sweep, seed=[-1]),
    ],
    "estimate_agreement": [
        *each(patching.estimate_agreement, model, {0: pair}, planned[0], sweep, steps=[[], [0], [None]]),
        lambda: patching.estimate_agreement(model, {0: pair}, patching.planned_sweeps(["z"], how="zero")[0], sweep),
    ],
    "readable_pairs": each(patching.readable_pairs, model, pairs=[[], [long], [silent], [pair, long, pair]]),
    "builtin_pairs": [statements.builtin_pairs],
    "change_pairs": [statements.change_pairs],
    "load_pairs": [
        statements.load_pairs,
        *(lambda given=given: statements.load_pairs(given) for given in ("", ".x", HERE)),
    ],
    "patch_sweep": [
        *(lambda given=given: patching.patch_sweep(model, given, "z", by="head") for given in ([], long, silent)),
        *(sweeps(site=name) for name in ("", "x", "blocks.0.hook_z", "pattern", "token_type_embed")),
        *(sweeps(by=by) for by in ("", "x", [], ["head", "head"], ["role", "position"], "head")),
        *(sweeps(direction=name) for name in ("", "x")),
        *(sweeps(how=name) for name in ("", "x", "knock_out", "mean", "resample", "zero")),
        *(sweeps(site="attn_scores", how="knock_out", keys=name) for name in ("", "x", "cue", None)),
        *(sweeps(keys="cue"), sweeps(renormalize=True), sweeps(site="pattern", how="zero", renormalize=True)),
        sweeps(how="mean", reference=[]),
        sweeps(how="resample", seed=-1),
        sweeps(objective=patching.class_logit_difference),
        sweeps(objective=patching.embedding_contrast),
        sweeps(objective=patching.cosine_to("")),
        sweeps(objective=patching.objective_from(lambda output, of: output)),
        sweeps(objective=patching.objective_from(lambda output, of: torch.full((len(output),), NAN))),
    ],
    "effect": [lambda given=given: patching.effect(given) for given in (empty, lost, metrics, sweep.drop_vars("base"))],
    "mean_effect": [
        lambda given=given: patching.mean_effect(given) for given in (empty, lost, metrics, sweep.drop_vars("source"))
    ],
    "averages": [
        *each(patching.averages, sweep, n_resamples=[0, -1, 1], confidence=[0.0, 1.0, NAN, -1.0], seed=[-1]),
        *(lambda given=given: patching.averages(given) for given in (empty, lost, metrics)),
    ],
    "save_results": [
        lambda: patching.save_results(sweep, HERE / "x.txt"),
        lambda: patching.save_results(sweep, HERE / "no" / "x.nc"),
        lambda: patching.save_results(sweep, ""),
        lambda: patching.save_results(metrics, HERE / "x.nc"),
        lambda: patching.save_results(empty, HERE / "x.parquet"),
        lambda: patching.save_results(sweep, HERE / "a\0b.nc"),
    ],
    "read_results": [
        lambda path=path: patching.read_results(HERE / path)
        for path in ("no.nc", "a.csv", "a\0b.nc", ".", "words.nc", "tests.nc")
    ],
    "agreement": [
        *each(patching.agreement, sweep, sweep, n_worst=[0, -1]),
        lambda: patching.agreement(sweep, by_role),
        lambda: patching.agreement(empty, empty),
        lambda: patching.agreement(lost, lost),
        lambda: patching.agreement(metrics, sweep),
        lambda: statistics.agreement(tests, "x", "norm_to_cue"),
        lambda: statistics.agreement(tests, "attention_to_cue", "norm_to_cue", alpha=NAN),
    ],
    "answerable": [lambda given=given: patching.answerable(model, given) for given in ([], [long], [silent])],
    "objective_values": [
        lambda given=given: patching.objective_values(model, given) for given in ([], [long], [silent])
    ],
    "attribute": [
        *each(attributes, sites=[[], ["x"], ["z", "z"], ["pattern"]], by=["", "x", []]),
        *each(attributes, steps=[0, -1], direction=["x"], objective=[patching.kl_divergence]),
        *each(attributes, given=[[], long, silent]),
    ],
    "attribute_edges": [
        *each(patching.attribute_edges, model, pair, direction=["x"], layer_norm=["x"]),
        *(lambda given=given: patching.attribute_edges(model, given) for given in ([], long, silent)),
    ],
    "find_circuit": [
        *each(patching.find_circuit, model, pairs, ranking=["x"], ablation=["x"], direction=["x"], seed=[-1]),
        *each(patching.find_circuit, model, pairs, threshold=[0.0, -1.0, NAN, INF], held_out=[0.0, 1.0, -1.0, NAN]),
        *(
            lambda given=given: patching.find_circuit(model, given)
            for given in ([], pairs[:1], [long] * 4, [silent] * 4)
        ),
    ],
    "Circuit": [
        lambda: Circuit.load(HERE / "no.json"),
        lambda: circuit.save(""),
        lambda: circuit.save(HERE),
        lambda: circuit.save(HERE / "no" / "x.json"),
        lambda: circuit.run([]),
        lambda: circuit.run(long),
        lambda: circuit.run(pairs, reference=[]),
    ],
    "Component": [lambda: patching.Component(-1, -1)],
    "Patch": [
        *(
            lambda one=one: patching.patch(model, pair, one)
            for one in (
                [],
                Patch("x", 0),
                Patch("z", 9),
                Patch("z", -1),
                Patch("z", 0, 9),
                Patch("z", 0, -1),
                Patch("resid_pre", 0, 1),
                Patch("z", 0, role="x"),
                Patch("z", 0, position=99),
                Patch("z", 0, position=-1),
                Patch("z", 0, key_role="cue"),
            )
        ),
    ],
    "patch": [
        *(lambda given=given: patching.patch(model, given, Patch("z", 0)) for given in ([], long, silent)),
        *each(patching.patch, model, pair, Patch("z", 0), direction=["x"], seed=[-1]),
        *each(patching.patch, model, pair, [Patch("z", 0), Patch("z", 1)], together=[None, True, False]),
        lambda: patching.patch(model, pair, [[Patch("z", 0)]], together=True),
    ],
    "path_patch": [
        *each(
            patching.path_patch,
            model,
            pair,
            receivers=["x", [], [(9, 0, "q")], [(0, 9, "q")], [(0, 0, "x")], [(-1, 0, "q")]],
        ),
        *each(
            lambda **options: patching.path_patch(model, pair, receivers="output", **options),
            mlps=["x"],
            direction=["x"],
        ),
        *(lambda given=given: patching.path_patch(model, given, receivers="output") for given in ([], long, silent)),
    ],
    "cosine_to": [sweeps(objective=patching.cosine_to(text)) for text in ("", "a " * 100, "a")],
    "objective_from": [sweeps(objective=patching.objective_from(lambda output, of: None))],
    "objective_named": each(
        partial(patching.objective_named, model), name=["", "x", "single_logit", "cosine:", "cosine:a", "cosine:\ud800"]
    ),
    **{
        name: [
            sweeps(objective=getattr(patching, name)),
            lambda name=name: patching.patch_sweep(model, silent, "z", by="head", objective=getattr(patching, name)),
        ]
        for name in (
            "class_logit_difference",
            "embedding_contrast",
            "kl_divergence",
            "logit_difference",
            "score_margin",
            "single_logit",
            "target_probability",
        )
    },
    "default_objective": [lambda: patching.default_objective(model)],
    "added_cues": [lambda: statements.added_cues("", ""), lambda: statements.added_cues("a", "")],
    "find_cues": [lambda: statements.find_cues("")],
    "english_lexicon": [lambda: statements.english_lexicon(classes=("x",))],
    "lexicon_in_use": [statements.lexicon_in_use],
    "read_lexicon": each(statements.read_lexicon, path=["", "missing.toml", ".", "a\0b", "\ud800"]),
    "align": [
        lambda: statements.align(tokenized, statements.tokenize("x", model.tokenizer)),
        lambda: statements.align(tokenized, tokenized, links=[]),
        lambda: statements.align(tokenized, tokenized, links=["equal"]),
    ],
    "control_swap": [
        lambda: statements.control_swap(long, model.tokenizer),
        lambda: statements.control_swap(StatementPair("a", "b  not", cue_spans=((1, 3),)), model.tokenizer),
    ],
    "prepare": [
        lambda: statements.prepare(long, model.tokenizer, n_ctx=8),
        lambda: statements.prepare(StatementPair("a", "a"), model.tokenizer, n_ctx=8),
        lambda: statements.prepare(StatementPair("a", "b  not", cue_spans=((1, 3),)), model.tokenizer, n_ctx=8),
    ],
    "document_pair": [
        *each(partial(statements.document_pair, "a"), document=["", "a [SEP] b", "\ud800"]),
        *each(partial(statements.document_pair, "a", "b", counterfactual_query="c"), other_document=["", "[MASK]"]),
        lambda: statements.document_pair("a", "b", counterfactual_query="\ud800"),
        lambda: statements.document_pair("a", "b", counterfactual_document="c", control_query="d"),
    ],
    "complete": [
        lambda: statements.complete(long, model.tokenizer),
        lambda: statements.complete(StatementPair("a", "b not", cue="x", cue_spans=((0, 1),)), model.tokenizer),
        lambda: statements.complete(StatementPair("a", "b  not", cue_spans=((1, 3),)), model.tokenizer),
    ],
    "clustered_by": [
        *each(statements.clustered_by, [silent], column=["", "x", "category", "\ud800"]),
        lambda: statements.clustered_by([], "cue"),
        lambda: statements.clustered_by([long], "cue"),
    ],
    "overview": [
        *(lambda given=given: statements.overview(given, model.tokenizer, n_ctx=9) for given in ([], [long], [silent])),
        *each(statements.overview, [silent], model.tokenizer, n_ctx=[0, -1]),
    ],
    "from_control": [lambda: statements.from_control(silent)],
    "length_matched_control": [
        lambda cue=cue: statements.length_matched_control("It is not.", cue, model.tokenizer)
        for cue in (
            Cue("not", "not", (90, 99)),
            Cue("not", "not", (-5, -2)),
            Cue("not", "not", (5, 5)),
            Cue("x", "x", (0, 1)),
        )
    ],
    "roles": [
        *each(
            statements.roles, tokenized, model.tokenizer, cue_spans=[[(90, 99)], [(-5, -1)], [(3, 3)]], target=["", "x"]
        ),
    ],
    "original_roles": [
        lambda: statements.original_roles(tokenized, [], statements.align(tokenized, tokenized), model.tokenizer)
    ],
    "tokenize": [lambda text=text: statements.tokenize(text, model.tokenizer) for text in ("", " ", "[SEP]", "\ud800")],
    "tokenize_all": [lambda: statements.tokenize_all([], model.tokenizer)],
    "unknown_words": [lambda: statements.unknown_words(tokenized, model.tokenizer)],
    "contributions": [
        *(lambda name=name: attention.contributions(model, tokens, mask, name) for name in ("", "x")),
        lambda: attention.contributions(model, tokens, mask[:, 1:], "rollout"),
        lambda: attention.contributions(model, tokens, mask * 0, "rollout"),
        lambda: attention.contributions(model, tokens[:, :0], None, "rollout"),
        lambda: attention.contributions(model, tokens + 10**6, None, "rollout"),
        lambda: attention.contributions(model, tokens, None, "rollout", include_bias=False),
    ],
    "head_story": [lambda at=at: attention.head_story(readings, *at) for at in ((9, 0), (0, 9), (-1, 0), (0, -1))],
    "accuracy": [lambda: behaviour.accuracy([], []), lambda: behaviour.accuracy(["a"], [])],
    "preference": [lambda: behaviour.preference([NAN], [1.0]), lambda: behaviour.preference([1.0], [])],
    "sensitivity": [lambda: behaviour.sensitivity([[]], [["a"]]), lambda: behaviour.sensitivity([["a"]], [])],
    "share": [lambda: behaviour.share([])],
    "top_k_accuracy": [
        *(lambda k=k: behaviour.top_k_accuracy([["a", "b"]], ["b"], k) for k in (0, -1, 99)),
        lambda: behaviour.top_k_accuracy([["a"]], [], 1),
    ],
    "builtin_set": [behaviour.builtin_set],
    "evaluate": [
        lambda: behaviour.evaluate([]),
        lambda: behaviour.evaluate([], model),
        lambda: behaviour.evaluate(sets, model, predictions=[]),
        lambda: behaviour.evaluate(sets, predictions=[]),
        lambda: behaviour.evaluate(sets, predictions=[[]] * sets[0].n_statements),
    ],
    "pseudo_log_likelihoods": [
        *each(behaviour.pseudo_log_likelihoods, model, ["a"], batch_size=[0, -1]),
        *(lambda texts=texts: behaviour.pseudo_log_likelihoods(model, texts) for texts in ([], [""], ["a " * 100])),
    ],
    "read_gaps": [
        *each(behaviour.read_gaps, model, ["It is [MASK]."], [["a"]], k=[0, -1, 10**9], batch_size=[0, -1]),
        *(lambda texts=texts: behaviour.read_gaps(model, texts, [["a"]]) for texts in ([], ["a"], ["[MASK]"] * 2)),
        lambda: behaviour.read_gaps(model, ["It is [MASK]."], [["", "\ud800", "a b"]]),
    ],
    "read_predictions": [lambda: behaviour.read_predictions("")],
    "scored_sets": [lambda: behaviour.scored_sets("")],
    "negation_effects": [lambda given=given: statistics.negation_effects(given) for given in (sweep, xr.Dataset())],
    "effect_tests": [
        *each(statistics.effect_tests, effects, n_resamples=[0, -1], seed=[-1]),
        *each(statistics.effect_tests, effects, clusters=[[], ["a"], {}, {"noun": []}, pd.DataFrame()]),
        *(
            lambda given=given: statistics.effect_tests(given, n_resamples=9)
            for given in (
                xr.Dataset(),
                effects.isel(pair=[]),
                effects * NAN,
                effects * INF,
                effects.isel(pair=[0]),
                metrics,
            )
        ),
    ],
    "effects_table": [lambda: statistics.effects_table(tests)],
    "responding": each(statistics.responding, tests, smallest_effect=[NAN, INF, -1.0], alpha=[NAN, -1.0, 2.0]),
    "intraclass_correlations": [
        *(lambda groups=groups: statistics.intraclass_correlations(effects, groups) for groups in ([], ["a"])),
        lambda: statistics.intraclass_correlations(effects * NAN, ["a"] * len(pairs)),
    ],
    "holds_for_new": [
        *each(statistics.holds_for_new, effects, ["a"] * len(pairs), min_pairs=[0, -1]),
        *(lambda groups=groups: statistics.holds_for_new(effects, groups) for groups in ([], ["a"])),
        lambda: statistics.holds_for_new(effects * NAN, ["a"] * len(pairs)),
    ],
    "survivors": each(statistics.survivors, tests, alpha=[NAN, -1.0, 2.0]),
    "replication": [
        *each(statistics.replication, effects, ["a"] * len(pairs), min_pairs=[0, -1, 99], at_least=[0, -1, 9]),
        *each(statistics.replication, effects, ["a"] * len(pairs), alpha=[NAN, -1.0], n_resamples=[0], seed=[-1]),
        *(lambda groups=groups: statistics.replication(effects, groups) for groups in ([], ["a"], [""] * len(pairs))),
    ],
    "rank_correlation": [
        lambda: statistics.rank_correlation(np.array([]), np.array([])),
        lambda: statistics.rank_correlation(np.array([NAN, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])),
        lambda: statistics.rank_correlation(np.arange(3.0), np.arange(4.0)),
    ],
    "run_study": [
        lambda: run_study(model, []),
        lambda: run_study(model, [long]),
        *each(run_study, model, pairs[:2], patch_pairs=[-1], circuit_pairs=[-1], contribution_pairs=[-1], seed=[-1]),
    ],
    "read_study": [lambda path=path: read_study(path) for path in ("", HERE, HERE / "none", HERE / "a\0b", "\udcff")],
    "write_study": [
        *(lambda out=out: views.write_study(studied, out) for out in (HERE / "study" / "report.html", HERE / "a\0b")),
    ],
}

MAPS = {
    "four_heatmaps": comparison,
    "difference_map": comparison,
    "raw_beside_value_weighted": comparison.original,
}
for name, given in MAPS.items():
    draw = getattr(views, name)
    CASES[name] = [
        *(lambda draw=draw, given=given, at=at: draw(given, *at) for at in ((9, 0), (0, 9), (-1, 0), (0, -1))),
        *figure(draw, given, 0, 0),
    ]
CASES["difference_map"] += each(views.difference_map, comparison, 0, 0, measure=["", "x"])
BY_ROLE = patching.averages(by_role)
FIGURES: dict[str, tuple[tuple[Any, ...], list[tuple[Any, ...]]]] = {
    "attention_distance_by_layer": ((metrics,), [(sweep,), (metrics.isel(pair=[]),), (xr.Dataset(),)]),
    "attribution_agreement": (
        (patching.mean_effect(sweep), patching.mean_effect(sweep)),
        [(patching.mean_effect(sweep), patching.mean_effect(by_role)), (patching.mean_effect(lost),) * 2],
    ),
    "causal_against_attention": (
        (patching.mean_effect(sweep), tests["effect"].isel(metric=0, drop=True), "x"),
        [(patching.mean_effect(by_role), tests["effect"], "x"), (patching.mean_effect(lost), tests["effect"][0], "x")],
    ),
    "circuit_graph": ((circuit,), [(circuit, sweep), (circuit, xr.Dataset())]),
    "cue_shares_by_layer": ((shares,), [(shares.isel(pair=[]),), (shares * NAN,), (sweep["patched"],)]),
    "diffusion_by_role": ((metrics,), [(sweep,), (metrics.isel(pair=[]),), (xr.Dataset(),)]),
    "effect_by_role": (
        (BY_ROLE,),
        [
            (BY_ROLE.isel(role=[]),),
            (xr.Dataset(),),
            (BY_ROLE * NAN,),
            (BY_ROLE.drop_vars("low"),),
            (BY_ROLE.to_dataframe(),),
            (metrics,),
            (pd.DataFrame(),),
        ],
    ),
    "effect_map": (
        (tests, "norm_to_cue"),
        [(tests, ""), (tests, "x"), (sweep, "norm_to_cue"), (tests * NAN, "norm_to_cue")],
    ),
    "faithfulness_curve": ((circuit,), []),
    "metric_overview": (
        (comparison,),
        [(comparison.metrics.isel(head=[]),), (xr.Dataset(),), (metrics,)],
    ),
    "patching_map": (
        (patching.mean_effect(sweep),),
        [
            (patching.effect(sweep),),
            (patching.mean_effect(lost),),
            (xr.DataArray(1.0),),
            (patching.mean_effect(empty),),
        ],
    ),
    "raw_against_norm": ((tests,), [(tests, "x"), (tests, "norm_to_cue", "x"), (sweep,), (tests * NAN,)]),
    "effect_by_group": ((replicated, "norm_to_cue"), [(tests, "norm_to_cue"), (replicated, "x"), (sweep, "x")]),
}
for name, (good, bad) in FIGURES.items():
    draw = getattr(views, name)
    CASES[name] = [lambda draw=draw, given=given: draw(*given) for given in bad] + figure(draw, *good)
CASES |= {
    "layer_head_map": [
        *(
            lambda table=table: views.layer_head_map(table, label="x")
            for table in (np.ones(2), np.ones((0, 0)), np.full((2, 2), NAN), np.array([["a"]]))
        ),
        *figure(partial(views.layer_head_map, label="x"), np.ones((2, 2))),
    ],
    "by_layer_and_head": [
        *(lambda name=name: views.by_layer_and_head(comparison.metrics, name) for name in ("", "x", "missing")),
        *(lambda name=name: views.by_layer_and_head(metrics, name) for name in ("js_divergence", "uniform_distance")),
        lambda: views.by_layer_and_head(xr.Dataset(), "x"),
    ],
    "head_sentence": [lambda: views.head_sentence(attention.head_story(readings, 0, 0))],
    "save_figure": [
        lambda path=path: views.save_figure(views.layer_head_map(np.ones((2, 2)), label="x"), path)
        for path in ("", HERE, HERE / "x", HERE / "x.exe", HERE / "no" / "x.png", HERE / "a\0b.png")
    ],
    "write_page": [
        *(
            lambda path=path: views.write_page([comparison], path, title="")
            for path in ("", HERE, HERE / "a\0b", "\udcff")
        ),
        lambda: views.write_page([], HERE / "x.html", title="x"),
        lambda: views.write_page([comparison], HERE / "x.html", title="\ud800</title>"),
        lambda: views.write_page([comparison], HERE / "x.html", title="x", sweeps=[sweep, metrics]),
    ],
    "comparison_page": [
        lambda: views.comparison_page([], title=""),
        lambda: views.comparison_page([comparison], title="x", sweeps=[sweep]),
    ],
    "page_parts": [lambda: views.page_parts([]), lambda: views.page_parts([comparison], sweeps=[empty])],
}


# A call of each function that works; each of its arguments is then one of WRONG, the others as they are.
(HERE / "words.txt").write_text("['fish']\n")
(HERE / "pairs.csv").write_text(
    "original,counterfactual,target,foil\nThe door is [MASK].,The door is not [MASK].,open,closed\n"
)
circuit.save(HERE / "a.json")
patching.save_results(sweep, HERE / "b.nc")
(HERE / "words.nc").write_text("CDF\x01 words")
tests.to_netcdf(HERE / "tests.nc", engine="scipy")
PATCH = Patch("z", 0)
ALIGNED = statements.align(tokenized, tokenized)
WORKS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "AttentionProbe": (AttentionProbe, {"model": model, "batch_size": 2}),
    "AttentionProbe.run": (probe.run, {"statements": "The door."}),
    "AttentionProbe.compare": (probe.compare, {"pairs": pair, "counterfactual": None, "zeroing": False}),
    "AttentionProbe.metrics": (probe.metrics, {"pairs": pairs[:1]}),
    "AttentionProbe.cue_shares": (probe.cue_shares, {"pairs": pairs[:1]}),
    "AttentionProbe.readings": (probe.readings, {"pairs": pairs[:1]}),
    "AttentionProbe.html": (probe.html, {"pairs": pair, "path": HERE / "a.html", "max_bytes": 10**7}),
    "AttentionProbe.lengths": (probe.lengths, {"pairs": pairs[:1]}),
    "HookedEncoder": (
        model,
        {
            "input": tokens,
            "return_type": "logits",
            "token_type_ids": types,
            "one_zero_attention_mask": mask,
            "start_at_layer": None,
            "stop_at_layer": 1,
        },
    ),
    "HookedEncoder.from_pretrained": (
        HookedEncoder.from_pretrained,
        {"name_or_path": "tiny-negation", "revision": None, "device": "cpu", "dtype": torch.float32, "prompt": "a: "}
        | {"labels": None, "move_to_device": True, "model_name": None, "torch_dtype": None},
    ),
    "HookedEncoder.to_tokens": (model.to_tokens, {"input": "a"}),
    "HookedEncoder.to_str_tokens": (model.to_str_tokens, {"input": "a"}),
    "HookedEncoder.tokens_to_residual_directions": (model.tokens_to_residual_directions, {"tokens": "open"}),
    "HookedEncoder.all_composition_scores": (model.all_composition_scores, {"mode": "Q"}),
    "HookedEncoder.to_single_token": (model.to_single_token, {"word": "open"}),
    "HookedEncoder.word_logits": (
        model.word_logits,
        {"resid": model(tokens, stop_at_layer=1), "row": torch.tensor([0]), "pos": torch.tensor([1])},
    ),
    "StatementPair": (
        StatementPair,
        {"original": "a", "counterfactual": "b", "target": "c", "cue_spans": ((0, 1),), "extra": (("id", 1),)},
    ),
    "Cue": (Cue, {"text": "a", "kind": "not", "span": (0, 1)}),
    "Component": (patching.Component, {"layer": 0, "head": 0}),
    "Patch": (Patch, {"site": "z", "layer": 0, "head": 0, "role": "cue", "how": "swap"}),
    "Circuit.load": (Circuit.load, {"path": HERE / "a.json", "model": model}),
    "Circuit.save": (circuit.save, {"path": HERE / "c.json"}),
    "Circuit.run": (circuit.run, {"pairs": pairs[:1]}),
    "load_pairs": (lambda path, limit: statements.load_pairs(path, limit=limit), {"path": "builtin", "limit": 2}),
    "from_dataframe": (statements.from_dataframe, {"frame": statements.to_dataframe(pairs[:2]), "source": "x"}),
    "to_dataframe": (statements.to_dataframe, {"pairs": pairs[:2]}),
    "filled": (statements.filled, {"pair": pair}),
    "has_gap": (statements.has_gap, {"pair": pair}),
    "pair_notes": (statements.pair_notes, {"pairs": pairs[:2]}),
    "readable_by": (statements.readable_by, {"head": "none", "pairs": pairs[:2], "labels": ["a"]}),
    "patch_sweep": (
        patching.patch_sweep,
        {"model": model, "pairs": pair, "site": "z", "by": "head", "direction": "noising", "how": "swap", "keys": None}
        | {"renormalize": False, "reference": None, "seed": 0, "objective": None},
    ),
    "patch": (
        patching.patch,
        {"model": model, "pairs": pair, "patches": PATCH, "together": None, "direction": "noising", "seed": 0},
    ),
    "path_patch": (
        patching.path_patch,
        {"model": model, "pairs": pair, "receivers": [(1, 0, "q")], "direction": "noising", "mlps": "live"},
    ),
    "attribute": (patching.attribute, {"model": model, "pairs": pair, "sites": ["z"], "by": "head", "steps": None}),
    "attribute_edges": (patching.attribute_edges, {"model": model, "pairs": pair, "direction": "noising"}),
    "patchable_pairs": (patching.patchable_pairs, {"model": model, "pairs": pairs[:1], "with_control": True}),
    "planned_sweeps": (
        patching.planned_sweeps,
        {"sites": ["z"], "by": None, "heads_by": ["head"], "other_by": ["role"], "directions": ["noising"]}
        | {"how": "swap", "keys": None, "renormalize": False},
    ),
    "run_sweeps": (
        lambda **given: list(patching.run_sweeps(**given)),
        {"model": model, "pairs": {0: pair}, "sweeps": planned, "objective": None, "seed": 0},
    ),
    "sweep_averages": (patching.sweep_averages, {"sweep": planned[0], "results": sweep, "seed": 0}),
    "estimate_agreement": (
        patching.estimate_agreement,
        {"model": model, "pairs": dict(enumerate(pairs)), "sweep": planned[0], "exact": sweep, "steps": [None]},
    ),
    "readable_pairs": (patching.readable_pairs, {"model": model, "pairs": pairs[:1]}),
    "answerable": (patching.answerable, {"model": model, "pairs": pairs[:1]}),
    "objective_values": (patching.objective_values, {"model": model, "pairs": pairs[:1]}),
    "agreement": (patching.agreement, {"exact": sweep, "estimated": sweep, "n_worst": 1}),
    "effect": (patching.effect, {"results": sweep}),
    "mean_effect": (patching.mean_effect, {"results": sweep}),
    "averages": (patching.averages, {"results": sweep, "n_resamples": 9, "confidence": 0.9, "seed": 0}),
    "save_results": (patching.save_results, {"results": sweep, "path": HERE / "a.nc"}),
    "read_results": (patching.read_results, {"path": HERE / "b.nc"}),
    "cosine_to": (patching.cosine_to, {"reference": "a"}),
    "objective_from": (patching.objective_from, {"function": lambda output, of: output}),
    "objective_named": (patching.objective_named, {"model": model, "name": "kl_divergence", "pairs": pairs}),
    "default_objective": (patching.default_objective, {"model": model, "pairs": pairs}),
    "find_circuit": (
        patching.find_circuit,
        {"model": model, "pairs": pairs[:4], "ranking": "attribution", "ablation": "swap", "direction": "noising"}
        | {"objective": None, "threshold": 0.5, "effort": "fast", "held_out": 0.5, "mlps": False, "seed": 0},
    ),
    "added_cues": (statements.added_cues, {"original": "a", "counterfactual": "not a", "lexicon": None}),
    "find_cues": (statements.find_cues, {"text": "not a", "lexicon": statements.english_lexicon()}),
    "english_lexicon": (statements.english_lexicon, {"classes": ("lexical",)}),
    "read_lexicon": (statements.read_lexicon, {"path": CUES}),
    "use_lexicon": (statements.use_lexicon, {"lexicon": statements.english_lexicon()}),
    "align": (statements.align, {"original": tokenized, "counterfactual": tokenized, "links": ["same", "case"]}),
    "complete": (statements.complete, {"pair": pair, "tokenizer": model.tokenizer}),
    "clustered_by": (statements.clustered_by, {"pairs": pairs, "column": "cue"}),
    "document_pair": (
        statements.document_pair,
        {"query": "a", "document": "b", "counterfactual_query": "c", "counterfactual_document": None}
        | {"other_document": "d", "control_query": None},
    ),
    "control_swap": (statements.control_swap, {"pair": pair, "tokenizer": model.tokenizer}),
    "prepare": (statements.prepare, {"pair": pair, "tokenizer": model.tokenizer, "n_ctx": model.cfg.n_ctx}),
    "overview": (statements.overview, {"pairs": pairs, "tokenizer": model.tokenizer, "n_ctx": model.cfg.n_ctx}),
    "from_control": (statements.from_control, {"pair": pair}),
    "length_matched_control": (
        statements.length_matched_control,
        {"counterfactual": "It is not.", "cue": Cue("not", "not", (6, 9)), "tokenizer": model.tokenizer},
    ),
    "roles": (
        statements.roles,
        {"statement": tokenized, "tokenizer": model.tokenizer, "cue_spans": [(0, 1)], "target": None},
    ),
    "original_roles": (
        statements.original_roles,
        {
            "original": tokenized,
            "counterfactual_roles": ["other"] * len(tokenized),
            "alignment": ALIGNED,
            "tokenizer": model.tokenizer,
        },
    ),
    "tokenize": (statements.tokenize, {"text": "a", "tokenizer": model.tokenizer}),
    "tokenize_all": (statements.tokenize_all, {"texts": ["a"], "tokenizer": model.tokenizer}),
    "unknown_words": (statements.unknown_words, {"statement": tokenized, "tokenizer": model.tokenizer}),
    "contributions": (
        attention.contributions,
        {"model": model, "tokens": tokens, "mask": mask, "measure": "rollout", "token_type_ids": types},
    ),
    "head_story": (attention.head_story, {"readings": readings, "layer": 0, "head": 0}),
    "accuracy": (behaviour.accuracy, {"predicted": ["a"], "labels": ["a"]}),
    "preference": (behaviour.preference, {"wanted": [1.0], "unwanted": [0.0]}),
    "sensitivity": (behaviour.sensitivity, {"affirmative": [["a"]], "negated": [["b"]]}),
    "share": (behaviour.share, {"hits": [True]}),
    "top_k_accuracy": (behaviour.top_k_accuracy, {"predictions": [["a"]], "targets": ["a"], "k": 1}),
    "evaluate": (behaviour.evaluate, {"sets": sets, "model": model, "predictions": None}),
    "pseudo_log_likelihoods": (behaviour.pseudo_log_likelihoods, {"model": model, "texts": ["a"], "batch_size": 2}),
    "read_gaps": (
        behaviour.read_gaps,
        {"model": model, "texts": ["It is [MASK]."], "words": [["a"]], "k": 1, "batch_size": 2},
    ),
    "read_predictions": (behaviour.read_predictions, {"path": HERE / "words.txt"}),
    "scored_sets": (behaviour.scored_sets, {"path": HERE / "pairs.csv"}),
    "negation_effects": (statistics.negation_effects, {"metrics": metrics}),
    "effect_tests": (statistics.effect_tests, {"effects": effects, "clusters": None, "n_resamples": 9, "seed": 0}),
    "effects_table": (statistics.effects_table, {"tests": tests}),
    "responding": (statistics.responding, {"tests": tests, "smallest_effect": 0.5, "alpha": 0.05}),
    "intraclass_correlations": (
        statistics.intraclass_correlations,
        {"effects": effects, "groups": ["a"] * len(pairs)},
    ),
    "holds_for_new": (
        statistics.holds_for_new,
        {"effects": effects, "groups": ["a"] * len(pairs), "min_pairs": 1},
    ),
    "survivors": (statistics.survivors, {"tests": tests, "alpha": 0.05}),
    "statistics.agreement": (
        statistics.agreement,
        {"tests": tests, "one": "norm_to_cue", "other": "attention_to_cue", "alpha": 0.05},
    ),
    "replication": (
        statistics.replication,
        {"effects": effects, "groups": ["a"] * len(pairs), "clusters": None, "min_pairs": 2, "at_least": 1}
        | {"alpha": 0.05, "n_resamples": 9, "seed": 0},
    ),
    "rank_correlation": (statistics.rank_correlation, {"one": np.arange(3.0), "other": np.arange(3.0)}),
    "run_study": (
        run_study,
        {"model": model, "pairs": [silent], "source": "a", "dropped": ["a"], "patch_pairs": 0, "circuit_pairs": 0}
        | {"contribution_pairs": 0}
        | {
            "circuit_effort": "fast",
            "objective": None,
            "smallest_effect": 0.5,
            "seed": 0,
            "shards": None,
            "engine": None,
        }
        | {"progress": lambda step, done, total: None},
    ),
    "read_study": (read_study, {"folder": HERE / "study"}),
    "draw_figures": (views.draw_figures, {"folder": HERE / "study", "figure_formats": ["png"]}),
    "write_study": (
        views.write_study,
        {"results": studied, "out": HERE / "study", "command": "negprobe study", "figure_formats": []},
    ),
    **{
        name: (getattr(views, name), dict(zip(inspect.signature(getattr(views, name)).parameters, good, strict=False)))
        for name, (good, _) in FIGURES.items()
    },
    **{
        name: (
            getattr(views, name),
            {next(iter(inspect.signature(getattr(views, name)).parameters)): given, "layer": 0},
        )
        for name, given in MAPS.items()
    },
    "layer_head_map": (views.layer_head_map, {"values": np.ones((2, 2)), "label": "x"}),
    "by_layer_and_head": (views.by_layer_and_head, {"metrics": comparison.metrics, "name": "js_divergence"}),
    "head_sentence": (views.head_sentence, {"story": attention.head_story(readings, 0, 0)}),
    "save_figure": (
        views.save_figure,
        {"figure": views.layer_head_map(np.ones((2, 2)), label="x"), "path": HERE / "a.png"},
    ),
    "write_page": (views.write_page, {"comparisons": [comparison], "path": HERE / "a.html", "title": "x"} | PAGE),
    "comparison_page": (views.comparison_page, {"comparisons": [comparison], "title": "x", "sweeps": []} | PAGE),
    "page_parts": (views.page_parts, {"comparisons": [comparison], "sweeps": []} | PAGE),
}
for name in FIGURES.keys() | MAPS.keys() | {"layer_head_map"}:
    WORKS[name][1].update(width=3.3)
for name in MAPS:
    WORKS[name][1].update(head=0)

WRONG: tuple[Any, ...] = (
    None, True, -3, 2.5, NAN, 1j, "x", "\ud800", b"x", (), [], {}, [None], ["x", 3], {"x": 3}, {1}, object(), len, int,
    Path("x"), torch.ones(2), torch.zeros(1, 2, dtype=torch.bool), np.ones(2), np.array(["x"]), np.int64(0), 2**70,
    np.float32(0), xr.Dataset(), xr.DataArray(1.0), pd.DataFrame(), pd.Series([1.0]), pair, comparison, model,
)  # fmt: skip
CALLED = {"engine", "progress"}


def wrong_for(value: Any) -> list[Any]:
    """What takes a good value's place; where that is a sequence, also one with a stray item behind the good ones."""
    strays = [[*value, stray] for stray in (None, 3, "x")] if isinstance(value, (list, tuple)) else []
    return [*WRONG, *strays]


def owner(name: str) -> str:
    """The public function or class that a name in CASES or WORKS is of."""
    return name.removeprefix("statistics.").split(".")[0]


def calls(function: str) -> Iterator[tuple[str, Case]]:
    """The name of each call of a function or class with values of the right type, and the call."""
    for number, case in enumerate(CASES.get(function, [])):
        yield f"{function}, case {number}", case


def calls_of_any_type(function: str) -> Iterator[tuple[str, Case]]:
    """The name of each call of a function, or of a class's methods, with one argument of any type, and the call."""
    for name, (called, good) in WORKS.items():
        for argument in good if owner(name) == function else ():
            for value in wrong_for(good[argument]):
                # An error of a function that the caller gives is the caller's.
                if value is not good[argument] and not (argument in CALLED and callable(value)):
                    yield f"{name}({argument}={short(value)})", partial(called, **(good | {argument: value}))


def short(value: object) -> str:
    """A value on a part of a line."""
    return " ".join(quoted(value, 60).split())


def answer(case: Case) -> str:
    """What is wrong with the end of a call; empty if it gives a result or one clear error."""
    try:
        case()
    except NegprobeError as error:
        told = str(error)
        return "" if 20 < len(told) < 1000 else f"an error of {len(told)} characters: {told[:200]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        matplotlib.pyplot.close("all")
    return ""


def works(function: Callable[..., Any], good: dict[str, Any]) -> bool:
    """Whether a call gives a result."""
    try:
        function(**good)
    except NegprobeError:
        return False
    return True
