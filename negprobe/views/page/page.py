"""Attention of a statement and its counterfactual as one self-contained, interactive HTML page.

The maps are drawn by circuitsvis's `AttentionHeads`. Its bundle is inlined once for all pairs, and the page's
content-security policy forbids other scripts and network access.
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
from negprobe.base.texts import is_utf8, quoted
from negprobe.patching import effect
from negprobe.statements import StatementPair
from negprobe.views.html_file import write_html
from negprobe.views.labels import metric_name, metric_unit, patching_title
from negprobe.views.page.packing import MEASURES, PAGE_BYTES, bits_for, map_bytes, packed

# The maximum number of omitted pairs that the page lists by name.
_N_NAMED = 10

_SCRIPTS = ("maps.js", "tokens.js", "overview.js", "pairs.js", "patching.js", "views.js")


class PageTooLargeError(ViewError):
    """No pair fits on the page."""


@dataclass(frozen=True)
class PageParts:
    """The interactive views as HTML: `head` belongs in `<head>`, `body` anywhere in `<body>`.

    A page can contain them only once. `head` contains the content-security policy, which allows only the scripts in
    `body`, inline styles and `data:` images.
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
    """A self-contained HTML page with the attention of all pairs, layers and heads.

    Args:
        comparisons: The compared pairs, all from one model.
        title: The title of the page.
        sweeps: Results of `patch_sweep(..., by="position")` for one pair each, which are shown on its tokens.
        max_bytes: As for `page_parts`.
        left_out: As for `page_parts`.

    Raises:
        ViewError: as `page_parts`, and for a title that cannot be encoded in UTF-8.
    """
    if not is_utf8(title):
        raise ViewError(f"The title {quoted(title)} contains half a surrogate pair, which UTF-8 cannot encode; fix it.")
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
    """Write `comparison_page` to `path` atomically, and return the path.

    Raises:
        ViewError: as `page_parts`, and if the file cannot be written.
    """
    page = comparison_page(comparisons, title=title, sweeps=sweeps, max_bytes=max_bytes, left_out=left_out)
    return write_html(page, Path(path))


def write_pairs_page(
    probe: AttentionProbe, pairs: Sequence[StatementPair], path: str | Path, *, max_bytes: int = PAGE_BYTES
) -> tuple[Path, list[str], list[str]]:
    """Compare the pairs whose maps fit on a page, and write the page.

    The number of tokens of a pair determines the size of its maps, so pairs that do not fit are not run.

    Returns:
        The path of the page, a list with a sentence about omitted pairs, and a list with a sentence about pairs without
        value zeroing; a list is empty if there are no such pairs.

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
    """The interactive views of comparisons from one model, with their style, data and scripts.

    Args:
        comparisons: The compared pairs, all from one model. Value zeroing is shown for pairs that have it.
        sweeps: Results of `patch_sweep(..., by="position")` for one pair each, which are shown on its tokens.
        max_bytes: Maximum size of the maps in bytes before compression, which about halves it. Pairs that do not fit
            are omitted and listed on the page.
        left_out: Sentences about pairs that were omitted earlier, to be shown as well.

    Raises:
        ViewError: if there are no comparisons, no pair fits in `max_bytes`, the comparisons differ in layers or heads,
            a map does not fit its tokens, a value is not finite, no tokens of a pair are aligned, or a sweep does not
            have exactly one pair and the axes layer and position.
    """
    if not all(map(is_utf8, left_out)):
        raise ViewError(
            f"left_out ({quoted(left_out)}) contains half a surrogate pair, which UTF-8 cannot encode; fix it."
        )
    layers, heads = _layers_and_heads(comparisons)
    sizes = [map_bytes([len(side.statement.tokens) for side in _sides(one)], layers, heads) for one in comparisons]
    shown, more_left_out = _fitting([one.pair for one in comparisons], sizes, max_bytes)
    comparisons = [comparisons[index] for index in shown]
    notes = [*left_out, *more_left_out, *_without_zeroing(comparisons)]
    bits = bits_for(comparisons, max_bytes)
    names = [name for name in METRICS if all(name in comparison.metrics for comparison in comparisons)]
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
    # Pairs are stored separately, so that the page opens before any of them is decoded.
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
    """The indices of the pairs whose maps fit on a page, and a list with a sentence about the others, if any."""
    shown = fitting(sizes, max_bytes)
    if pairs and not shown:
        raise PageTooLargeError(
            f"No pair fits on the page: the maps of the smallest pair need up to {_megabytes(min(sizes))}, but "
            f"max_bytes allows {_megabytes(max_bytes)}. Increase max_bytes, or use shorter texts."
        )
    others = sorted({*range(len(pairs))} - {*shown})
    if not others:
        return shown, []
    named = [f"pair {i + 1} {quoted(pairs[i].counterfactual, 60)} ({_megabytes(sizes[i])})" for i in others]
    more = f", and {len(named) - _N_NAMED} more" if len(named) > _N_NAMED else ""
    return shown, [
        f"{len(others)} of {len(pairs)} pairs are left out, because the maps of a page are limited to "
        f"{_megabytes(max_bytes)} before compression: {', '.join(named[:_N_NAMED])}{more}."
    ]


def _without_zeroing(comparisons: Sequence[Comparison]) -> list[str]:
    """A list with a sentence about the pairs without maps of value zeroing, if any."""
    n = sum(any(side.zeroing is None for side in _sides(one)) for one in comparisons)
    return [f"Value zeroing was not computed for {n} of {len(comparisons)} pairs."] if n else []


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.3g} MB"


def _sides(comparison: Comparison) -> tuple[StatementAttention, StatementAttention]:
    return comparison.original, comparison.counterfactual


def _layers_and_heads(comparisons: Sequence[Comparison]) -> tuple[int, int]:
    if not comparisons:
        raise ViewError("There are no comparisons to show; give at least one.")
    sides = [side for comparison in comparisons for side in _sides(comparison)]
    in_heads = [measure for measure in MEASURES if measure != "zeroing"]
    shapes = sorted({tuple(getattr(side, measure).shape[:2]) for side in sides for measure in in_heads})
    if len(shapes) > 1:
        raise ViewError(
            f"A page shows one model, but the comparisons have different numbers of (layers, heads): {shapes}; "
            "write one page per model."
        )
    layers, heads = shapes[0]
    return layers, heads


def _pair_data(comparison: Comparison, names: Sequence[str]) -> dict[str, object]:
    alignment = comparison.alignment
    if not alignment.original:
        raise ViewError(
            f"No token of {comparison.pair.original!r} is aligned with one of "
            f"{comparison.pair.counterfactual!r}; omit this pair."
        )
    sides = _sides(comparison)
    metrics = comparison.metrics[[*names]].sortby(["layer", "head"]).transpose("layer", "head")
    return {
        "name": _pair_name(comparison),
        "original": comparison.original.statement.tokens,
        "counterfactual": comparison.counterfactual.statement.tokens,
        "cue": comparison.cue_positions,
        "aligned": [alignment.original, alignment.counterfactual],
        "zeroing": all(side.zeroing is not None for side in sides),
        "metrics": {name: _numbers(metrics[name].values.ravel()) for name in names},
    }


def _sweep_data(sweep: xr.Dataset) -> dict[str, object]:
    """The effects of one pair by layer and token, as `patching.js` shows them."""
    if "patched" not in sweep or set(sweep["patched"].dims) != {"pair", "layer", "position"} or "token" not in sweep:
        dims = ", ".join(map(str, sweep["patched"].dims)) if "patched" in sweep else "no patched runs"
        raise ViewError(
            f"A page shows sweeps of one pair with the axes pair, layer and position, but this sweep has {dims}; make "
            'it with patch_sweep(model, pair, site, by="position").'
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
    """Values with four significant digits, enough for a colour; None for NaN, which JSON does not have."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def _json(data: object) -> str:
    # In a script element, only "<" can start a tag or a comment.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _pair_name(comparison: Comparison) -> str:
    return f"{comparison.pair.original} → {comparison.pair.counterfactual}"


def _options(names: Iterable[str]) -> str:
    return "".join(f'<option value="{i}">{html.escape(name)}</option>' for i, name in enumerate(names))


def _circuitsvis() -> str:
    bundle = files("circuitsvis").joinpath("dist", "cdn", "iife.js").read_text(encoding="utf-8")
    # The source map is not available on the page, and "</script" in a string of the bundle would end the element.
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
