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

from negprobe.arguments import checked
from negprobe.attention import METRICS, Comparison
from negprobe.errors import ViewError
from negprobe.files import whole_file
from negprobe.patching import effect
from negprobe.texts import is_utf8, quoted
from negprobe.views.labels import metric_name, metric_unit, patching_title
from negprobe.views.packing import MEASURES, bits_for, packed

_SCRIPTS = ("maps.js", "tokens.js", "overview.js", "pairs.js", "patching.js", "views.js")


@dataclass(frozen=True)
class PageParts:
    """The interactive views, to be put into a page: `head` goes into `<head>`, `body` anywhere into `<body>`.

    A page holds them once. `head` carries the content-security policy, which allows the scripts in `body`,
    inline styles and `data:` images, and nothing else.
    """

    head: str
    body: str


@checked
def comparison_page(comparisons: Sequence[Comparison], *, title: str, sweeps: Sequence[xr.Dataset] = ()) -> str:
    """One self-contained HTML page with the attention of every pair, layer and head.

    Args:
        comparisons: The pairs, of one model.
        title: Of the page.
        sweeps: What `patch_sweep(..., by="position")` found for one pair each, to be shown on its tokens.

    Raises:
        ViewError: as `page_parts`, and for a title that UTF-8 cannot write.
    """
    if not is_utf8(title):
        raise ViewError(f"The title {quoted(title)} has half a surrogate pair, which no page can hold.")
    parts = page_parts(comparisons, sweeps=sweeps)
    return Template(_asset("page.html")).substitute(
        title=html.escape(title), head=parts.head, style=_asset("page.css"), body=parts.body
    )


@checked
def write_page(
    comparisons: Sequence[Comparison], path: str | Path, *, title: str, sweeps: Sequence[xr.Dataset] = ()
) -> Path:
    """Write `comparison_page` to `path`, as a whole or not at all, and return it.

    Raises:
        ViewError: as `page_parts`, and if the file cannot be written.
    """
    path = Path(path)
    page = comparison_page(comparisons, title=title, sweeps=sweeps)
    try:
        with whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ViewError(f"The page {path} cannot be written: {error}. Choose another place.") from error
    return path


@checked
def page_parts(comparisons: Sequence[Comparison], *, sweeps: Sequence[xr.Dataset] = ()) -> PageParts:
    """The interactive views of some comparisons of one model, with their style, data and scripts.

    Args:
        comparisons: The pairs, of one model. What they have of `zeroing` is shown too.
        sweeps: What `patch_sweep(..., by="position")` found for one pair each, to be shown on its tokens.

    Raises:
        ViewError: if there is nothing to show, the comparisons differ in layers or heads, a map does not fit
            its tokens, a value is not a finite number, no tokens are aligned, or a sweep is not of one pair by
            position.
    """
    layers, heads = _layers_and_heads(comparisons)
    bits = bits_for(comparisons)
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
        precision=f"Values are told to a {2**bits - 1:,}th of the largest of their head.",
    )
    return PageParts(
        head=f"{_content_security_policy(scripts)}\n<style>\n{_asset('views.css')}</style>",
        body="\n".join([views, *data, *(f"<script>{script}</script>" for script in scripts)]),
    )


def _layers_and_heads(comparisons: Sequence[Comparison]) -> tuple[int, int]:
    if not comparisons:
        raise ViewError("There is no comparison to show; give the page at least one.")
    sides = [side for comparison in comparisons for side in (comparison.original, comparison.counterfactual)]
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
    sides = (comparison.original, comparison.counterfactual)
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
