"""The display of a statement, a comparison or a circuit in a notebook: a few lines and a figure, without scripts.

Notebooks are often viewed where scripts do not run, so the interactive page is a separate file (`Comparison.html`,
`AttentionProbe.html`).
"""

import base64
import html
import io
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.figure import Figure

from negprobe.attention import MAP_METRICS, Comparison, StatementAttention
from negprobe.patching.circuits import Circuit
from negprobe.views.figures.attention import four_heatmaps, raw_beside_value_weighted

_DPI = 110
_N_HEADS = 5


def attention_summary(attention: StatementAttention) -> str:
    """HTML with the tokens of a statement, and the maps of the head with the most concentrated attention."""
    layers, heads, n, _ = attention.raw.shape
    # Concentration is the mean over queries of the largest weight.
    sharpest = attention.raw.amax(dim=-1).mean(dim=-1)
    layer, head = (int(index) for index in np.unravel_index(int(sharpest.argmax()), (layers, heads)))
    return _block(
        f"{n} tokens, {layers} layers of {heads} heads. Head {layer}.{head}, whose attention is the sharpest:",
        _tokens(attention.statement.tokens),
        _image(raw_beside_value_weighted(attention, layer, head), f"Head {layer}.{head} before and after the values"),
    )


def comparison_summary(comparison: Comparison) -> str:
    """HTML with both statements, the heads whose attention changes most, and the heatmaps of the first of them."""
    heads = comparison.metrics[list(MAP_METRICS)].reset_coords(drop=True).to_dataframe().reset_index()
    strongest = heads.sort_values("mean_attention_diff", ascending=False).head(_N_HEADS)
    layer, head = (int(strongest.iloc[0][name]) for name in ("layer", "head"))
    shown = strongest.rename(columns=lambda name: name.replace("_", " "))
    return _block(
        "The heads whose attention changes most; Comparison.html(path) writes an interactive page.",
        _tokens(comparison.original.statement.tokens),
        _tokens(comparison.counterfactual.statement.tokens, marked=comparison.cue_positions),
        shown.to_html(index=False, border=0, float_format="{:.3f}".format, escape=True),
        _image(four_heatmaps(comparison, layer, head), f"Head {layer}.{head} of original and counterfactual"),
    )


def circuit_summary(circuit: Circuit) -> str:
    """HTML with a sentence about a circuit, and its diagram."""
    return _block(f"{circuit}.", _image(circuit.draw(), f"{len(circuit)} components of {circuit.model_name}"))


def _tokens(tokens: Sequence[str], marked: Collection[int] = ()) -> str:
    words = (f"<bdi>{html.escape(token)}</bdi>" for token in tokens)
    return " ".join(f"<b><u>{word}</u></b>" if at in marked else word for at, word in enumerate(words))


def _image(figure: Figure, alt: str) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI)
    source = base64.b64encode(data.getvalue()).decode()
    return f'<img src="data:image/png;base64,{source}" alt="{html.escape(alt)}" style="max-width:100%;background:#fff">'


def _block(sentence: str, *parts: str) -> str:
    return f"<div><p>{html.escape(sentence)}</p>{''.join(f'<div>{part}</div>' for part in parts)}</div>"
