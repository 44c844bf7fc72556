"""Path patching: what a head tells another head's queries, keys or values, or the output, directly and nothing else.

Wang et al. 2022 ("Interpretability in the Wild", section 3.1 and appendix B), Goldowsky-Dill et al. 2023 ("Localizing
Model Behavior with Path Patching").
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
from negprobe.models.layers import Block
from negprobe.patching.edits import Edit
from negprobe.patching.engine import BaseRun, base_runs, chunks, has_hooks, run_edited
from negprobe.patching.objectives import Objective, Readout, default_objective, readout_for
from negprobe.patching.replacements import onto_base
from negprobe.patching.runs import Direction, PairRuns, chosen_pairs, pair_batches, pair_runs, run_names
from negprobe.patching.sites import SITES
from negprobe.patching.sweep import attributes
from negprobe.statements import Swappable

Input = Literal["q", "k", "v"]
"""What a head reads the residual stream by."""

Receiver = tuple[int, int, Input]
"""Layer, head, and which of its inputs."""

MLPs = Literal["live", "frozen"]
"""Whether the MLPs on the way see the sender's change, or write what they write in the base run."""


@checked
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
    """Patch the direct path from every head to each of some receivers.

    A sender's z is the source's at the aligned tokens, and every other head's z, in every layer, stays the base's. So
    its change runs along the residual stream, token by token, through the LayerNorms and, if they are "live", the MLPs.
    What then arrives at a receiver replaces one of its inputs and nothing else: of head h in layer l, with x' the
    changed input of that block,

        q_h = x' W_Q^h + b_Q^h   (k and v likewise),

    from where the base run goes on as usual. The output receives what arrives at the last hidden states.

    There are LayerNorms on every way, so that even with "frozen" MLPs what two senders do together is not the sum of
    what each does.

    Args:
        model: The model, without hooks of your own.
        pairs: One pair, or several of any length.
        receivers: "output", or heads' inputs as (layer, head, "q" | "k" | "v").
        direction: "noising" puts the counterfactual's activation into the original's run, "denoising" the other way.
        objective: What is read from a run; by default `default_objective(model)`.
        mlps: "live", as in Wang et al., or "frozen", which leaves the residual stream alone.
        progress: Called after each batch of pairs.

    Returns:
        A dataset with `patched` `[pair sender receiver]`, the objective of each patched run, NaN where the sender is
        not in a layer below the receiver's, and `base` and `source` `[pair]`. Senders are named "0.3", with the
        coordinates `sender_layer` and `sender_head`, and receivers "output" or "2.1 q". `effects.effect` and
        `effects.mean_effect` normalise it.

    Raises:
        PatchingError: for a receiver or objective that the model or a pair does not have, no receivers, a
            model with hooks, or no pairs at all.
        StatementError, InputError: for a statement that cannot be run.
    """
    chosen = chosen_pairs(pairs)
    if has_hooks(model):
        raise PatchingError("The model has hooks, which a path would pass by; remove them (model.reset_hooks()) first.")
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
            **run_names(chosen, direction),
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
        raise PatchingError(f"Receivers are 'output' or at least one (layer, head, 'q'|'k'|'v'), not {receivers!r}.")
    known = {(layer, head, site) for layer in range(n_layers) for head in range(n_heads) for site in get_args(Input)}
    for receiver in chosen:
        if not isinstance(receiver, tuple) or receiver not in known:
            raise PatchingError(
                f"There is no receiver {receiver!r}; layers go from 0 to {n_layers - 1}, heads from 0 to "
                f"{n_heads - 1}, and inputs are 'q', 'k' and 'v', as in (1, 0, 'q')."
            )
    if all(layer == 0 for layer, _, _ in chosen):
        raise PatchingError("No head lies below layer 0; give a receiver in layer 1 or above.")
    return [(layer, head, cast(Input, site)) for layer, head, site in chosen]


def _path_batch(
    model: HookedEncoder, runs: PairRuns, receivers: Sequence[Receiver], mlps: MLPs, objective: Objective
) -> tuple[Float[Tensor, "pair sender receiver"], Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """The objective of every path of a batch of pairs, and of its unpatched base and source runs."""
    base, source = base_runs(model, runs.base, runs.source)
    read = readout_for(objective, model, runs, runs.base)
    every = torch.arange(len(runs.pairs), device=model.device)
    base_values = read(base.resid[-1], every)
    source_values = readout_for(objective, model, runs, runs.source)(source.resid[-1], every)
    where = runs.aligned
    if not receivers and read.positions is not None:
        # Nothing moves from one token to another, so that only those that are read count.
        where = where & torch.zeros_like(where).scatter(1, read.positions, True)
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
            # The senders' change passes by what the heads write, and by the MLP if that is frozen.
            x = blocks[layer].after_attention(x, attn_out[layer], mlp_out=mlp_out[layer])
            for site in get_args(Input):
                here = [i for i, receiver in enumerate(receivers) if (receiver[0], receiver[2]) == (layer + 1, site)]
                if here:
                    heads = torch.tensor([receivers[i][1] for i in here], device=model.device)
                    patched[:, sender, :, here] = _received(model, base, where, x, layer + 1, site, heads, read)
        if not receivers:
            patched[:, sender, :, 0] = _read_out(base, where, x, read)
    by_name = rearrange(patched, "pair layer head receiver -> pair (layer head) receiver")
    return by_name, base_values, source_values


def _read_out(
    base: BaseRun, where: Bool[Tensor, "pair pos"], x: Float[Tensor, "row sender d_model"], read: Readout
) -> Float[Tensor, "pair sender"]:
    """The objective where these rows of the last hidden states are changed."""
    n_pairs, n_senders = len(where), x.shape[1]
    final = repeat(base.resid[-1], "pair pos d_model -> pair pos sender d_model", sender=n_senders).clone()
    final[where] = x
    of = torch.arange(n_pairs, device=x.device).repeat_interleave(n_senders)
    values = read(rearrange(final, "pair pos sender d_model -> (pair sender) pos d_model"), of)
    return values.unflatten(0, (n_pairs, n_senders))


def _received(
    model: HookedEncoder,
    base: BaseRun,
    where: Bool[Tensor, "pair pos"],
    x: Float[Tensor, "row sender d_model"],
    layer: int,
    site: Input,
    heads: Int[Tensor, " receiver"],
    read: Readout,
) -> Float[Tensor, "pair sender receiver"]:
    """The objective of runs in which one head of a layer reads these rows, not the base's, by one of its inputs."""
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
    for some in chunks(model, len(pair), n_pos):
        chosen = where[pair[some], :, None] & is_receiver[receiver[some], None]
        edit = Edit(site, layer, chosen, values, torch.arange(some.start, some.stop, device=x.device))
        found[some] = run_edited(model, base, pair[some], [edit], read)
    return found.unflatten(0, shape)
