"""Attention of a statement and its counterfactual as one self-contained, interactive HTML page.

The maps are circuitsvis' `AttentionHeads`. Its bundle is inlined once, whatever the number of pairs, and the
page's content-security policy allows no other script and no network.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import xarray as xr
from jaxtyping import Float

from negprobe.attention import METRICS, AttentionProbe, Comparison, StatementAttention
from negprobe.attention.affordable import compared_for_page, fitting
from negprobe.base.arguments import checked
from negprobe.base.errors import ViewError
from negprobe.base.files import whole_file
from negprobe.base.texts import is_utf8, quoted
from negprobe.patching import effect
from negprobe.statements import StatementPair
from negprobe.views.labels import metric_name, metric_unit, patching_title
from negprobe.views.page.packing import MEASURES, PAGE_BYTES, bits_for, map_bytes, packed

# How many of the pairs that are left out the page names.
_NAMED = 10

_SCRIPTS = ("maps.js", "tokens.js", "overview.js", "pairs.js", "patching.js", "views.js")


class PageTooLargeError(ViewError):
    """Not even one pair fits on a page."""


@dataclass(frozen=True)
class PageParts:
    """The interactive views, to be put into a page: `head` goes into `<head>`, `body` anywhere into `<body>`.

    A page holds them once. `head` carries the content-security policy, which allows the scripts in `body`,
    inline styles and `data:` images, and nothing else.
    """

    head: str
    body: str


@checked
def comparison_page(
    comparisons: Sequence[Comparison],
    *,
    title: str,
    sweeps: Sequence[xr.Dataset] = (),
    max_bytes: int = PAGE_BYTES,
    left_out: Sequence[str] = (),
) -> str:
    """One self-contained HTML page with the attention of every pair, layer and head.

    Args:
        comparisons: The pairs, of one model.
        title: Of the page.
        sweeps: What `patch_sweep(..., by="position")` found for one pair each, to be shown on its tokens.
        max_bytes: As for `page_parts`.
        left_out: As for `page_parts`.

    Raises:
        ViewError: as `page_parts`, and for a title that UTF-8 cannot write.
    """
    if not is_utf8(title):
        raise ViewError(f"The title {quoted(title)} has half a surrogate pair, which no page can hold.")
    parts = page_parts(comparisons, sweeps=sweeps, max_bytes=max_bytes, left_out=left_out)
    return Template(_asset("page.html")).substitute(
        title=html.escape(title), head=parts.head, style=_asset("page.css"), body=parts.body
    )


@checked
def write_page(
    comparisons: Sequence[Comparison],
    path: str | Path,
    *,
    title: str,
    sweeps: Sequence[xr.Dataset] = (),
    max_bytes: int = PAGE_BYTES,
    left_out: Sequence[str] = (),
) -> Path:
    """Write `comparison_page` to `path`, as a whole or not at all, and return it.

    Raises:
        ViewError: as `page_parts`, and if the file cannot be written.
    """
    path = Path(path)
    page = comparison_page(comparisons, title=title, sweeps=sweeps, max_bytes=max_bytes, left_out=left_out)
    try:
        with whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ViewError(f"The page {path} cannot be written: {error}. Choose another place.") from error
    return path


def write_pairs_page(
    probe: AttentionProbe, pairs: Sequence[StatementPair], path: str | Path, *, max_bytes: int = PAGE_BYTES
) -> tuple[Path, list[str], list[str]]:
    """Compare the pairs whose maps fit on a page, and write the page.

    The size of a pair's maps follows from its number of tokens, so a pair that does not fit is not run at all.

    Returns:
        The page's path, a sentence on the pairs that were left out, and one on those without value zeroing; the lists
        are empty if there are no such pairs.

    Raises:
        ViewError: as `write_page`.
        StatementError, InputError: as `AttentionProbe.compare`.
    """
    cfg, lengths = probe.model.cfg, probe.lengths(pairs)
    shown, left_out = _fitting(pairs, [map_bytes(both, cfg.n_layers, cfg.n_heads) for both in lengths], max_bytes)
    title = f"Attention to negation in {Path(cfg.model_name).name}"
    compared = compared_for_page(probe, [pairs[index] for index in shown])
    page = write_page(compared, path, title=title, max_bytes=max_bytes, left_out=left_out)
    return page, left_out, _without_zeroing(compared)


@checked
def page_parts(
    comparisons: Sequence[Comparison],
    *,
    sweeps: Sequence[xr.Dataset] = (),
    max_bytes: int = PAGE_BYTES,
    left_out: Sequence[str] = (),
) -> PageParts:
    """The interactive views of some comparisons of one model, with their style, data and scripts.

    Args:
        comparisons: The pairs, of one model. What they have of `zeroing` is shown too.
        sweeps: What `patch_sweep(..., by="position")` found for one pair each, to be shown on its tokens.
        max_bytes: The most bytes that the maps may take before compression, which about halves them. Pairs that do not
            fit are left out, and named on the page.
        left_out: Sentences on pairs that were left out before, shown with those.

    Raises:
        ViewError: if there is nothing to show, no pair fits in `max_bytes`, the comparisons differ in layers or heads,
            a map does not fit its tokens, a value is not a finite number, no tokens are aligned, or a sweep is not of
            one pair by position.
    """
    if not all(map(is_utf8, left_out)):
        raise ViewError(f"left_out, {quoted(left_out)}, has half a surrogate pair, which no page can hold.")
    layers, heads = _layers_and_heads(comparisons)
    sizes = [map_bytes([len(side.statement.tokens) for side in _sides(one)], layers, heads) for one in comparisons]
    shown, more_left_out = _fitting([one.pair for one in comparisons], sizes, max_bytes)
    comparisons = [comparisons[index] for index in shown]
    notes = [*left_out, *more_left_out, *_without_zeroing(comparisons)]
    bits = bits_for(comparisons, max_bytes)
    names = [name for name in METRICS if any(name in comparison.metrics for comparison in comparisons)]
    index = {
        "bits": bits,
        "layers": layers,
        "heads": heads,
        "metrics": names,
        "names": {name: metric_name(name) for name in names},
        "units": {name: metric_unit(name) for name in names},
        "pairs": [_pair_data(comparison, names) for comparison in comparisons],
        "sweeps": [_sweep_data(sweep) for sweep in sweeps],
    }
    # Each pair by itself, so that the page opens before any is unpacked.
    data = [
        f'<script type="application/json" id="negprobe-index">{_json(index)}</script>',
        *(
            f'<script type="text/plain" id="negprobe-pair-{number}">{packed(comparison, bits)}</script>'
            for number, comparison in enumerate(comparisons)
        ),
    ]
    scripts = [_circuitsvis(), "\n".join(map(_asset, _SCRIPTS))]
    views = Template(_asset("views.html")).substitute(
        pairs=_options(_pair_name(comparison) for comparison in comparisons),
        layers=_options(str(layer) for layer in range(layers)),
        heads=_options(str(head) for head in range(heads)),
        precision=f"Values are quantised to 1/{2**bits - 1:,} of each head's maximum.",
        left_out="".join(f'<p class="negprobe-note">{html.escape(note)}</p>' for note in notes),
    )
    return PageParts(
        head=f"{_content_security_policy(scripts)}\n<style>\n{_asset('views.css')}</style>",
        body="\n".join([views, *data, *(f"<script>{script}</script>" for script in scripts)]),
    )


def _fitting(pairs: Sequence[StatementPair], sizes: Sequence[int], max_bytes: int) -> tuple[list[int], list[str]]:
    """The indices of the pairs whose maps fit on a page, and a sentence on the others, if there are any."""
    shown = fitting(sizes, max_bytes)
    if pairs and not shown:
        raise PageTooLargeError(
            f"No pair fits on the page: the maps of the smallest take up to {_megabytes(min(sizes))}, and max_bytes "
            f"allows {_megabytes(max_bytes)}. Raise max_bytes, or give shorter texts."
        )
    others = sorted({*range(len(pairs))} - {*shown})
    if not others:
        return shown, []
    named = [f"pair {i + 1} {quoted(pairs[i].counterfactual, 60)} ({_megabytes(sizes[i])})" for i in others]
    more = f", and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return shown, [
        f"{len(others)} of {len(pairs)} pairs are left out, because the maps of a page may take "
        f"{_megabytes(max_bytes)} before compression: {', '.join(named[:_NAMED])}{more}."
    ]


def _without_zeroing(comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence on the pairs that have no maps of value zeroing, if there are any."""
    n = sum(any(side.zeroing is None for side in _sides(one)) for one in comparisons)
    return [f"Value zeroing was not measured for {n} of {len(comparisons)} pairs."] if n else []


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.3g} MB"


def _sides(comparison: Comparison) -> tuple[StatementAttention, StatementAttention]:
    return comparison.original, comparison.counterfactual


def _layers_and_heads(comparisons: Sequence[Comparison]) -> tuple[int, int]:
    if not comparisons:
        raise ViewError("There is no comparison to show; give the page at least one.")
    sides = [side for comparison in comparisons for side in _sides(comparison)]
    in_heads = [measure for measure in MEASURES if measure != "zeroing"]
    shapes = sorted({tuple(getattr(side, measure).shape[:2]) for side in sides for measure in in_heads})
    if len(shapes) > 1:
        raise ViewError(
            f"A page shows one model, but the comparisons have different (layers, heads): {shapes}; "
            "write a page for each model."
        )
    layers, heads = shapes[0]
    return layers, heads


def _pair_data(comparison: Comparison, names: Sequence[str]) -> dict[str, object]:
    alignment = comparison.alignment
    if not alignment.original:
        raise ViewError(
            f"No token of {comparison.pair.original!r} is aligned with one of "
            f"{comparison.pair.counterfactual!r}; leave this pair out."
        )
    sides = _sides(comparison)
    metrics = comparison.metrics.sort_values(["layer", "head"]).reindex(columns=[*names])
    return {
        "name": _pair_name(comparison),
        "original": comparison.original.statement.tokens,
        "counterfactual": comparison.counterfactual.statement.tokens,
        "cue": comparison.cue_positions,
        "aligned": [alignment.original, alignment.counterfactual],
        "zeroing": all(side.zeroing is not None for side in sides),
        "metrics": {name: _numbers(metrics[name].to_numpy(dtype=float)) for name in names},
    }


def _sweep_data(sweep: xr.Dataset) -> dict[str, object]:
    """One pair's effects by layer and token, as they are told in `patching.js`."""
    if "patched" not in sweep or set(sweep["patched"].dims) != {"pair", "layer", "position"} or "token" not in sweep:
        dims = ", ".join(map(str, sweep["patched"].dims)) if "patched" in sweep else "no patched runs"
        raise ViewError(
            f"A sweep is shown on the tokens of one pair, by layer and position, but this has {dims}; make it with "
            'patch_sweep(model, pair, site, by="position").'
        )
    effects = effect(sweep).squeeze("pair").transpose("layer", "position")
    before = "before " if sweep.attrs["site"] == "resid_pre" else ""
    return {
        "title": f"{', '.join(patching_title(effects))}: {' '.join(map(str, sweep['token'].values))}",
        "tokens": [str(token) for token in sweep["token"].values],
        "layers": [f"{before}layer {layer}" for layer in effects["layer"].values],
        "effects": [_numbers(row) for row in effects.values],
    }


def _numbers(values: Float[np.ndarray, " value"]) -> list[float | None]:
    """Four digits are as much as is read off a colour; JSON has no NaN."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def _json(data: object) -> str:
    # Inside a script element only "<" can start something else than text.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _pair_name(comparison: Comparison) -> str:
    return f"{comparison.pair.original} → {comparison.pair.counterfactual}"


def _options(names: Iterable[str]) -> str:
    return "".join(f'<option value="{i}">{html.escape(name)}</option>' for i, name in enumerate(names))


def _circuitsvis() -> str:
    bundle = files("circuitsvis").joinpath("dist", "cdn", "iife.js").read_text(encoding="utf-8")
    # The source map is not here to be fetched, and "</script" in one of its strings would end the element.
    code = bundle.partition("//# sourceMappingURL=")[0]
    return code.replace("</script", "<\\/script")


def _content_security_policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return files("negprobe.views").joinpath("assets", name).read_text(encoding="utf-8")
