"""Path patching: the direct effect of a head on another head's queries, keys or values, or on the output.

Sources: Wang et al. 2022 ("Interpretability in the Wild", section 3.1 and appendix B) and Goldowsky-Dill et al. 2023
("Localizing Model Behavior with Path Patching").
"""

from collections.abc import Iterable, Sequence
from typing import Literal, cast, get_args

import numpy as np
import torch
import xarray as xr
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.progress import Progress
from negprobe.models import HookedEncoder
from negprobe.models.block import Block
from negprobe.patching.edits import Edit
from negprobe.patching.engine import BaseRun, base_runs, chunks, has_hooks, run_edited
from negprobe.patching.margins import with_margins
from negprobe.patching.objectives import Objective, Readout, default_objective, readout_for
from negprobe.patching.replacements import onto_base
from negprobe.patching.runs import (
    Direction,
    PairRuns,
    check_no_convolution,
    chosen_pairs,
    pair_batches,
    pair_coordinates,
    pair_runs,
)
from negprobe.patching.sites import SITES
from negprobe.patching.sweep import attributes
from negprobe.statements import Swappable

Input = Literal["q", "k", "v"]
"""An input of a head: its queries, keys or values."""

Receiver = tuple[int, int, Input]
"""Layer, head, and which of its inputs."""

MLPs = Literal["live", "frozen"]
"""Whether the MLPs between sender and receiver respond to the change ("live") or keep their base output ("frozen")."""


@checked
@with_margins
def path_patch(
    model: HookedEncoder,
    pairs: Swappable | Sequence[Swappable],
    *,
    receivers: Literal["output"] | Sequence[Receiver] = "output",
    direction: Direction = "noising",
    objective: Objective | None = None,
    mlps: MLPs = "live",
    progress: Progress | None = None,
) -> xr.Dataset:
    """The objective of patching the direct path from each head to each receiver.

    The z of the sender is replaced by the source's at the aligned tokens, and the z of all other heads is held at its
    base value. The change therefore reaches later layers only through the residual stream, the LayerNorms and, if
    "live", the MLPs. In a second run, only the receiver's input gets the changed value. For head h in layer l, with x'
    the changed input of that block,

        q_h = x' W_Q^h + b_Q^h   (k and v likewise).

    From there, the base run continues as usual. For the receiver "output", the changed value is the last hidden states.

    Every path contains LayerNorms, so effects do not add up over senders, even with "frozen" MLPs.

    Args:
        model: The model, without hooks.
        pairs: One pair, or several of any length.
        receivers: "output", or heads' inputs as (layer, head, "q" | "k" | "v").
        direction: "noising" puts the counterfactual's activation into the original's run, "denoising" the reverse.
        objective: The objective; by default `default_objective(model, pairs)`.
        mlps: "live", as in Wang et al., or "frozen", so that only LayerNorms are between sender and receiver.
        progress: Called after each batch of pairs.

    Returns:
        A dataset with `patched` `[pair sender receiver]`, the objective of each patched run (NaN unless the sender is
        in a lower layer than the receiver), and `base` and `source` `[pair]`. Senders are named "0.3", with the
        coordinates `sender_layer` and `sender_head`, and receivers "output" or "2.1 q". `effects.effect` and
        `effects.mean_effect` normalise it.

    Raises:
        PatchingError: for a receiver or objective that the model or a pair does not have, for an empty list of
            receivers or pairs, for a model with hooks, and for one with a convolution.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    if has_hooks(model):
        raise PatchingError(
            "The model has hooks, which path patching would bypass; remove them first with model.reset_hooks()."
        )
    check_no_convolution(model, "Paths cannot be patched")
    heads = [] if isinstance(receivers, str) and receivers == "output" else _checked(model, receivers)
    objective = objective or default_objective(model)
    shape = (len(chosen), model.cfg.n_layers * model.cfg.n_heads, max(1, len(heads)))
    patched = np.full(shape, np.nan)
    base, source = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    done = 0
    for indices in pair_batches(model, chosen):
        with torch.no_grad():
            runs = pair_runs(model, [chosen[i] for i in indices], direction)
            values = _path_batch(model, runs, heads, mlps, objective)
        patched[indices], base[indices], source[indices] = (value.cpu().double().numpy() for value in values)
        done += len(indices)
        if progress is not None:
            progress("patching paths", done, len(chosen))
    senders = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    return xr.Dataset(
        {"patched": (("pair", "sender", "receiver"), patched), "base": ("pair", base), "source": ("pair", source)},
        coords={
            "pair": np.arange(len(chosen)),
            **pair_coordinates(chosen, direction),
            "sender": [f"{layer}.{head}" for layer, head in senders],
            "receiver": [f"{layer}.{head} {site}" for layer, head, site in heads] or ["output"],
            "sender_layer": ("sender", [layer for layer, _ in senders]),
            "sender_head": ("sender", [head for _, head in senders]),
        },
        attrs={"site": "path", "how": "swap", "mlps": mlps} | attributes(model, direction, objective),
    )


def _checked(model: HookedEncoder, receivers: str | Sequence[tuple[int, int, str]]) -> list[Receiver]:
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    chosen = [] if isinstance(receivers, str) or not isinstance(receivers, Iterable) else list(receivers)
    if not chosen:
        raise PatchingError(
            f"receivers must be 'output' or at least one (layer, head, 'q'|'k'|'v'), got {receivers!r}."
        )
    known = {(layer, head, site) for layer in range(n_layers) for head in range(n_heads) for site in get_args(Input)}
    for receiver in chosen:
        if not isinstance(receiver, tuple) or receiver not in known:
            raise PatchingError(
                f"There is no receiver {receiver!r}; layers go from 0 to {n_layers - 1}, heads from 0 to "
                f"{n_heads - 1}, and inputs are 'q', 'k' and 'v', as in (1, 0, 'q')."
            )
    if all(layer == 0 for layer, _, _ in chosen):
        raise PatchingError("No head is below layer 0; give a receiver in layer 1 or above.")
    return [(layer, head, cast(Input, site)) for layer, head, site in chosen]


def _path_batch(
    model: HookedEncoder, runs: PairRuns, receivers: Sequence[Receiver], mlps: MLPs, objective: Objective
) -> tuple[Float[Tensor, "pair sender receiver"], Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """The objective of all paths of a batch of pairs, and of its unpatched base and source runs."""
    base, source = base_runs(model, runs.base, runs.source)
    readout = readout_for(objective, model, runs, runs.base)
    all_pairs = torch.arange(len(runs.pairs), device=model.device)
    base_values = readout(base.resid[-1], all_pairs)
    source_values = readout_for(objective, model, runs, runs.source)(source.resid[-1], all_pairs)
    where = runs.aligned
    if not receivers and readout.positions is not None:
        # No change moves between tokens, so only the positions that the objective reads matter.
        where = where & torch.zeros_like(where).scatter(1, readout.positions, True)
    pair, pos = where.nonzero(as_tuple=True)
    patched = torch.full(
        (len(runs.pairs), model.cfg.n_layers, model.cfg.n_heads, max(1, len(receivers))),
        torch.nan,
        device=model.device,
        dtype=base_values.dtype,
    )
    blocks = [cast(Block, block) for block in model.blocks]
    attn_out = [block.attn.out(z[pair, pos])[:, None] for block, z in zip(blocks, base.z, strict=True)]
    mlp_out = [
        block.mlp_out(x[pair, pos][:, None], written) if mlps == "frozen" else None
        for block, x, written in zip(blocks, base.resid, attn_out, strict=False)
    ]
    last = max((layer for layer, _, _ in receivers), default=model.cfg.n_layers)
    for sender in range(last):
        change = onto_base(source.z[sender], runs.source_of, SITES["z"]) - base.z[sender]
        x = rearrange(base.resid[sender][pair, pos], "row d_model -> row 1 d_model")
        x = x + blocks[sender].attn.result(change[pair, pos])
        for layer in range(sender, last):
            # The head outputs, and the MLP output if frozen, keep their base values.
            x = blocks[layer].after_attention(x, attn_out[layer], mlp_out=mlp_out[layer])
            for site in get_args(Input):
                indices = [i for i, receiver in enumerate(receivers) if (receiver[0], receiver[2]) == (layer + 1, site)]
                if indices:
                    heads = torch.tensor([receivers[i][1] for i in indices], device=model.device)
                    patched[:, sender, :, indices] = _received(model, base, where, x, layer + 1, site, heads, readout)
        if not receivers:
            patched[:, sender, :, 0] = _at_output(base, where, x, readout)
    by_name = rearrange(patched, "pair layer head receiver -> pair (layer head) receiver")
    return by_name, base_values, source_values


def _at_output(
    base: BaseRun, where: Bool[Tensor, "pair pos"], x: Float[Tensor, "row sender d_model"], readout: Readout
) -> Float[Tensor, "pair sender"]:
    """The objective with these rows of the last hidden states replaced by `x`."""
    n_pairs, n_senders = len(where), x.shape[1]
    final = repeat(base.resid[-1], "pair pos d_model -> pair pos sender d_model", sender=n_senders).clone()
    final[where] = x
    pair = torch.arange(n_pairs, device=x.device).repeat_interleave(n_senders)
    values = readout(rearrange(final, "pair pos sender d_model -> (pair sender) pos d_model"), pair)
    return values.unflatten(0, (n_pairs, n_senders))


def _received(
    model: HookedEncoder,
    base: BaseRun,
    where: Bool[Tensor, "pair pos"],
    x: Float[Tensor, "row sender d_model"],
    layer: int,
    site: Input,
    heads: Int[Tensor, " receiver"],
    readout: Readout,
) -> Float[Tensor, "pair sender receiver"]:
    """The objective of runs in which one input of one head is computed from the rows `x` instead of the base's."""
    projected = cast(Block, model.blocks[layer]).project(site, x, heads)
    n_pairs, n_pos = where.shape
    shape = (n_pairs, x.shape[1], len(heads))
    values = projected.new_zeros(n_pairs, n_pos, *projected.shape[1:])
    values[where] = projected
    values = rearrange(values, "pair pos sender receiver d_head -> (pair sender receiver) pos 1 d_head")
    values = values.expand(-1, -1, model.cfg.n_heads, -1)
    pair, _, receiver = (
        index.flatten() for index in torch.meshgrid(*(torch.arange(n, device=x.device) for n in shape), indexing="ij")
    )
    is_receiver = heads[:, None] == torch.arange(model.cfg.n_heads, device=heads.device)
    found = torch.empty(len(pair), dtype=x.dtype, device=x.device)
    for chunk in chunks(model, len(pair), n_pos):
        chosen = where[pair[chunk], :, None] & is_receiver[receiver[chunk], None]
        edit = Edit(site, layer, chosen, values, torch.arange(chunk.start, chunk.stop, device=x.device))
        found[chunk] = run_edited(model, base, pair[chunk], [edit], readout)
    return found.unflatten(0, shape)
