"""`EncoderCache`: the activations of a run, and each component's contribution to the residual stream.

TransformerLens's `ActivationCache` adds up the outputs of components. In a post-LayerNorm encoder every sum passes
through a LayerNorm, so these outputs do not add up to a state. But a LayerNorm is affine once its standard deviation is
frozen at the value σ(y) that it has in this run. For an input y that is the sum of terms c,

    LN(y) = Σ_c (c - mean(c)) / σ(y) · w + b.

This module carries each component's output through all later norms of the residual stream in this way, so that the
terms add up to the state. In a pre-norm encoder the only such norm is that of the embeddings.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities import Slice

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.base.texts import quoted
from negprobe.models.norms import AnyNorm, FrozenNorm, NoNorm

Terms = Float[Tensor, "term *batch_pos d_model"]
Labelled = Tensor | tuple[Tensor, list[str]]
SliceOrInput: TypeAlias = Slice | int | tuple[int | None, ...] | list[int] | np.ndarray | Tensor | None

_NO_LAST_MLP = "There is no MLP after the last layer; leave mlp_input=False."


class EncoderCache(ActivationCache):
    """TransformerLens's cache for a `HookedEncoder`.

    A state is the input of block `layer` (`blocks.L.hook_resid_pre`); `layer=n_layers`, -1 or None selects the last
    block's output. With `mlp_input` it is the sum after the block's attention (`blocks.L.hook_resid_mid`). With
    `apply_ln` it is that state after the norm that reads it: in a post-norm model, in which only `mlp_input` has one,
    the block's first norm; in a pre-norm model, the norm before attention, the norm before the MLP (`mlp_input`), or
    after the last block the last norm.

    Methods that decompose a state return terms that add up to it. The term "bias" collects everything that belongs to
    no other term, such as the norms' biases. Methods that are not defined for encoders raise `InputError`.

    In half precision the terms are computed in float32.
    """

    @checked
    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: SliceOrInput = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Labelled:
        """The contributions of the embeddings and of each layer's attention and MLP to a state.

        Returns:
            Terms `[term (batch) pos d_model]`: the embeddings, `attn_out` and `mlp_out` of each layer, and last the
            bias. They add up to the state. With a `mode` other than "all", or without `incl_embeds`, only the selected
            terms are returned, without the bias; these do not add up to the state.

        Raises:
            InputError: for `apply_ln` without `mlp_input` in a post-norm model, if the cache lacks an activation, or if
                a hook changed a state so that the terms do not add up.
        """
        decomposed = _Decomposition(self, layer, mlp_input, apply_ln, pos_slice)
        decomposed.check_sum()
        kept = {"all": ("attn_out", "mlp_out"), "attn": ("attn_out",), "mlp": ("mlp_out",)}[mode]
        is_complete = mode == "all" and incl_embeds
        labels = [
            label
            for label in decomposed.labels
            if (is_complete if label == "bias" else label.endswith(kept) or (incl_embeds and label.endswith("embed")))
        ]
        return _labelled(decomposed.terms_of(labels), labels, return_labels)

    @checked
    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: SliceOrInput = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Labelled:
        """The inputs of all blocks up to and including `layer`, `[state (batch) pos d_model]`.

        With `layer=None`, the last row is the last block's output. In a post-norm model every state is after a norm, as
        the next block or the head reads it. In a pre-norm model, the states after attention can be included: those of
        the blocks below `layer` (`incl_mid`) and that of `layer` itself (`mlp_input`); with `apply_ln`, each state is
        taken after the norm that reads it in the model.

        Raises:
            InputError: for `incl_mid`, `mlp_input` or `apply_ln` in a post-norm model, or if the cache lacks a state.
        """
        if not self._is_pre_norm and (incl_mid or mlp_input):
            raise InputError(
                "accumulated_resid returns states after LayerNorm, and hook_resid_mid comes before one; read "
                'cache["resid_mid", layer] separately.'
            )
        if not self._is_pre_norm and apply_ln:
            raise InputError("The states of accumulated_resid are already after LayerNorm; leave apply_ln=False.")
        last, n_layers = self._layer(layer), self.model.cfg.n_layers
        if mlp_input and last == n_layers:
            raise InputError(_NO_LAST_MLP)
        states, labels = [], []
        for index in range(last + 1):
            for is_mid in (False, *((True,) if (mlp_input if index == last else incl_mid) else ())):
                state = self._mid(index) if is_mid else self._state(index)
                states.append(self._reader(index, is_mid).like(state).normalized(state) if apply_ln else state)
                labels.append("final_post" if index == n_layers else f"{index}_{'mid' if is_mid else 'pre'}")
        return _labelled(torch.stack([_sliced(state, pos_slice, dim=-2) for state in states]), labels, return_labels)

    @checked
    def stack_head_results(
        self,
        layer: int | None = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: SliceOrInput = None,
        apply_ln: bool = False,
    ) -> Labelled:
        """The contribution of each head in the layers below to a state (a head's own output is `hook_result`).

        Returns:
            Terms `[term (batch) pos d_model]` named "L0H0", …, and with `incl_remainder` the rest of the state.

        Raises:
            InputError: for `apply_ln` in a post-norm model, where the state is already after a norm, or if the cache
                lacks an activation.
        """
        decomposed = _Decomposition(self, layer, False, apply_ln, pos_slice, split_attention=True)
        return decomposed.of_layers("H", incl_remainder, return_labels)

    @checked
    def stack_neuron_results(
        self,
        layer: int | None,
        pos_slice: SliceOrInput = None,
        neuron_slice: SliceOrInput = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        project_output_onto: Float[Tensor, "d_model *output"] | None = None,
        mlp_input: bool = False,
    ) -> Labelled:
        """The contribution of each MLP neuron in the layers below to a state.

        Returns:
            Terms `[term (batch) pos d_model]` named "L0N0", …, and with `incl_remainder` the rest of the state; all are
            multiplied by `project_output_onto`.

        Raises:
            InputError: for `apply_ln` without `mlp_input` in a post-norm model, or if the cache lacks an activation.
        """
        decomposed = _Decomposition(self, layer, mlp_input, apply_ln, pos_slice, split_mlps=True, neurons=neuron_slice)
        return decomposed.of_layers("N", incl_remainder, return_labels, project_output_onto)

    @checked
    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: SliceOrInput = None,
        return_labels: bool = False,
        project_output_onto: Float[Tensor, "d_model *output"] | None = None,
    ) -> Labelled:
        """The contributions of every head, every neuron (or MLP) and the embeddings to a state.

        Returns:
            Terms `[term (batch) pos d_model]`: heads, neurons or MLPs, embeddings, and the bias, which includes every
            bias of the model. They add up to the state; all are multiplied by `project_output_onto`.

        Raises:
            InputError: for `apply_ln` without `mlp_input` in a post-norm model, if the cache lacks an activation, or if
                a hook changed a state so that the terms do not add up.
        """
        decomposed = _Decomposition(
            self, layer, mlp_input, apply_ln, pos_slice, split_attention=True, split_mlps=expand_neurons
        )
        decomposed.check_sum()
        ranks = {"H": 0, "N": 1, "mlp_out": 1, "embed": 2, "bias": 3}

        def rank(label: str) -> int:
            return next(rank for part, rank in ranks.items() if part in label)

        labels = sorted(decomposed.labels, key=rank)
        return _labelled(_projected(decomposed.terms_of(labels), project_output_onto), labels, return_labels)

    @checked
    def stack_activation(
        self, activation_name: str, layer: int | None = -1, sublayer_type: str | None = None
    ) -> Float[Tensor, "layer ..."]:
        """One activation of every layer below `layer`, stacked along a new first axis.

        Raises:
            InputError: for `layer=0`, or if the cache lacks the activation.
        """
        last = self._layer(layer)
        if last == 0:
            raise InputError("There is no layer below layer 0; give a layer of at least 1.")
        try:
            return super().stack_activation(activation_name, last, sublayer_type)
        except KeyError as error:
            raise self._missing(str(error.args[0])) from error

    @checked
    def get_neuron_results(
        self,
        layer: int,
        neuron_slice: SliceOrInput = None,
        pos_slice: SliceOrInput = None,
        project_output_onto: Float[Tensor, "d_model *output"] | None = None,
    ) -> Tensor:
        """The output of each neuron of a layer; their sum plus `b_out` is `hook_mlp_out`.

        Raises:
            InputError: for a layer that the model does not have, or if the cache lacks `mlp.hook_post`.
        """
        n_layers = self.model.cfg.n_layers
        if not -n_layers <= layer < n_layers:
            raise InputError(f"There is no layer {layer}; the model has layers 0 to {n_layers - 1}.")
        layer %= n_layers
        post = _sliced(self.activation(f"blocks.{layer}.mlp.hook_post"), pos_slice, dim=-2)
        W_out = _sliced(self.model.blocks[layer].mlp.W_out, neuron_slice, dim=0)
        return _projected(_sliced(post, neuron_slice, dim=-1)[..., None] * W_out, project_output_onto)

    def compute_head_results(self) -> None:
        """Add each head's output (`hook_result`) to the cache; their sum plus `b_O` is `hook_attn_out`.

        Raises:
            InputError: if the cache lacks `attn.hook_z`.
        """
        for layer in range(self.model.cfg.n_layers):
            if f"blocks.{layer}.attn.hook_result" not in self.cache_dict:
                self.activation(f"blocks.{layer}.attn.hook_z")
        super().compute_head_results()

    @checked
    def apply_slice_to_batch_dim(self, batch_slice: SliceOrInput) -> "EncoderCache":
        """The cache of selected texts of the batch.

        Raises:
            InputError: for a cache without a batch axis.
        """
        if not self.has_batch_dim:
            raise InputError("The cache has no batch axis, so texts cannot be selected from it.")
        _sliced(torch.arange(self._batch_size()), batch_slice, dim=0)
        part = super().apply_slice_to_batch_dim(batch_slice)
        return EncoderCache(part.cache_dict, self.model, part.has_batch_dim)

    @checked
    def remove_batch_dim(self, batch_size: int | None = None) -> "EncoderCache":
        """This cache with the batch axis of its single text removed, in place.

        Raises:
            InputError: for a batch of several texts.
        """
        n_texts = self._batch_size() if batch_size is None else batch_size
        if self.has_batch_dim and n_texts != 1:
            raise InputError(f"Only the batch axis of one text can be removed; this batch has {n_texts}.")
        super().remove_batch_dim(n_texts)
        return self

    def apply_ln_to_stack(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not defined; raises `InputError`."""
        raise InputError(
            "A stack does not record which LayerNorms its terms have passed, and lacks their biases. Use "
            "decompose_resid, which applies all of them; for the MLP's input, with mlp_input=True and apply_ln=True."
        )

    def logit_attrs(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not defined; raises `InputError`."""
        raise InputError(
            "The head of an encoder is not linear, so logits are not a sum over components. Use "
            "negprobe.patching.attribute for first-order estimates, or patch_sweep for exact effects."
        )

    def logit_lens(self, **kwargs: Any) -> NoReturn:
        """Not defined; raises `InputError`."""
        raise InputError(
            "logit_lens is not defined for encoders. Apply the head to a state of accumulated_resid with "
            "model.head_output(state, mask)."
        )

    def ssm_layers(self, *args: Any, **kwargs: Any) -> list[int]:
        """The layers with a state-space mixer: an encoder has none."""
        return []

    def compute_ssm_state(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not defined; raises `InputError`."""
        raise InputError("An encoder has no state-space layers; its states are in accumulated_resid.")

    def compute_ssm_effective_attention(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not defined; raises `InputError`."""
        raise InputError('An encoder has no state-space layers; its attention is cache["pattern", layer].')

    def activation(self, name: str) -> Tensor:
        """An activation by its hook's full name; raises `InputError` if it was not cached."""
        if name not in self.cache_dict:
            raise self._missing(name)
        return self.cache_dict[name]

    def _missing(self, name: str) -> InputError:
        return InputError(
            f"The cache has no {name!r}; run the whole model with run_with_cache, without a names_filter that excludes "
            "it."
        )

    def _layer(self, layer: int | None) -> int:
        n_layers = self.model.cfg.n_layers
        if layer is None or layer == -1:
            return n_layers
        if not 0 <= layer <= n_layers:
            raise InputError(f"layer must be from 0 to {n_layers} (the last hidden states), got {layer}.")
        return layer

    @property
    def _is_pre_norm(self) -> bool:
        return self.model.architecture.norms == "pre"

    def _state(self, layer: int) -> Tensor:
        n_layers = self.model.cfg.n_layers
        if layer < n_layers:
            return self.activation(f"blocks.{layer}.hook_resid_pre")
        output = "resid_post" if self._is_pre_norm else "normalized_resid_post"
        return self.activation(f"blocks.{n_layers - 1}.hook_{output}")

    def _mid(self, layer: int) -> Tensor:
        return self.activation(f"blocks.{layer}.hook_resid_mid")

    def _reader(self, layer: int, is_mid: bool) -> AnyNorm:
        """The norm that reads a state."""
        if layer == self.model.cfg.n_layers:
            return self.model.ln_final
        block = self.model.blocks[layer]
        return block.ln2 if is_mid and self._is_pre_norm else block.ln1


class _Decomposition:
    """The terms of one state of a run, each carried through all later norms of the residual stream."""

    def __init__(
        self,
        cache: EncoderCache,
        layer: int | None,
        mlp_input: bool,
        apply_ln: bool,
        pos_slice: SliceOrInput,
        split_attention: bool = False,
        split_mlps: bool = False,
        neurons: SliceOrInput = None,
    ) -> None:
        """Decompose the input of a layer.

        Args:
            cache: The cache of the run.
            layer: The layer; None or -1 for the last hidden states.
            mlp_input: Whether to decompose the sum after the layer's attention instead of the layer's input.
            apply_ln: Whether to apply the norm that reads this state.
            pos_slice: The positions to keep.
            split_attention: Whether to split attention into heads.
            split_mlps: Whether to split MLPs into neurons.
            neurons: The neurons to keep; None for all.
        """
        last = cache._layer(layer)
        model = cache.model
        if model.architecture.convolves and last > 0:
            raise InputError(
                "States after the first layer of this model cannot be decomposed, because a convolution adds "
                "activations of neighbouring tokens; read them with accumulated_resid."
            )
        if mlp_input and last == model.cfg.n_layers:
            raise InputError(_NO_LAST_MLP)
        if apply_ln and not mlp_input and not cache._is_pre_norm:
            raise InputError(
                "The input of a layer is already after LayerNorm, and so are its terms; leave apply_ln=False."
            )
        self._cache, self._positions, self._neurons = cache, pos_slice, neurons
        self._split_attention, self._split_mlps = split_attention, split_mlps
        self._stacks: list[tuple[list[str], Tensor]] = []
        self._add_embeddings()
        for index in range(last):
            block = model.blocks[index]
            self._add_attention(index)
            if not cache._is_pre_norm:
                self._apply_norm(block.ln1, self._at(f"blocks.{index}.hook_resid_mid"))
            self._add_mlp(index)
            if not cache._is_pre_norm:
                self._apply_norm(block.ln2, self._at(f"blocks.{index}.hook_resid_post"))
        if mlp_input:
            self._add_attention(last)
        state = _sliced(_floating(cache._mid(last) if mlp_input else cache._state(last)), pos_slice, dim=-2)
        if apply_ln:
            norm = cache._reader(last, mlp_input)
            self._apply_norm(norm, state)
            state = norm.like(state).normalized(state)
        self.state = state

    @property
    def labels(self) -> list[str]:
        """The names of the terms in the order in which the model computes them, then "bias"."""
        return [label for labels, _ in self._stacks for label in labels] + ["bias"]

    def terms_of(self, labels: Sequence[str]) -> Terms:
        """The terms with these names."""
        by_label = {label: term for names, stack in self._stacks for label, term in zip(names, stack, strict=True)}
        by_label["bias"] = self._bias.expand_as(self.state)
        if not labels:
            return self.state.new_zeros(0, *self.state.shape)
        return torch.stack([by_label[label] for label in labels])

    def of_layers(
        self,
        kind: Literal["H", "N"],
        incl_remainder: bool,
        return_labels: bool,
        onto: Float[Tensor, "d_model *output"] | None = None,
    ) -> Labelled:
        """The terms of heads or neurons, and optionally the rest of the state."""
        labels = [label for label in self.labels if label.startswith("L") and kind in label]
        terms = self.terms_of(labels)
        if incl_remainder:
            terms = torch.cat([terms, (self.state - terms.sum(dim=0))[None]])
            labels = [*labels, "remainder"]
        return _labelled(_projected(terms, onto), labels, return_labels)

    def check_sum(self) -> None:
        """Check that the terms add up to the state.

        Raises:
            InputError: if they differ by more than rounding error.
        """
        total = sum((stack.sum(dim=0) for _, stack in self._stacks), self._bias)
        deviation = float((total - self.state).abs().max()) if self.state.numel() else 0.0
        allowed = torch.finfo(self._cache.activation(self._embedding_names()[0]).dtype).eps ** 0.5
        if not deviation <= allowed * max(1.0, float(self.state.abs().max())):
            raise InputError(
                f"The terms differ from the state by {deviation:.3g}: a hook changed a state of this run, or the "
                "model's parameters have changed since. Run the model again without such hooks."
            )

    def _at(self, name: str, dim: int = -2) -> Tensor:
        return _sliced(_floating(self._cache.activation(name)), self._positions, dim=dim)

    def _embedding_names(self) -> list[str]:
        return [f"embed.hook_{name}" for name in self._cache.model.embed.summand_names]

    def _add_embeddings(self) -> None:
        embed, project = self._cache.model.embed, self._cache.model.embed_project
        names = self._embedding_names()
        summands = torch.stack([self._at(name) for name in names])
        self._bias = torch.zeros_like(summands[0])
        self._stacks = [([name.removeprefix("embed.hook_") for name in names], summands)]
        self._apply_norm(embed.ln, summands.sum(dim=0))
        if not isinstance(project, torch.nn.Identity):
            weight, bias = (parameter.detach().to(self._bias) for parameter in (project.weight, project.bias))
            self._apply_affine(lambda terms: terms @ weight.T, bias)

    def _add_attention(self, layer: int) -> None:
        attn = self._cache.model.blocks[layer].attn
        if not self._split_attention:
            self._stacks.append(([f"{layer}_attn_out"], self._at(f"blocks.{layer}.hook_attn_out")[None]))
            return
        name = f"blocks.{layer}.attn.hook_result"
        if name in self._cache.cache_dict:
            results = self._at(name, dim=-3)
        else:
            z = self._at(f"blocks.{layer}.attn.hook_z", dim=-3)
            results = torch.einsum("...hd,hdm->...hm", z, attn.W_O.detach().to(z))
        n_heads = results.shape[-2]
        self._stacks.append(([f"L{layer}H{head}" for head in range(n_heads)], results.movedim(-2, 0)))
        self._bias = self._bias + attn.b_O.detach().to(self._bias)

    def _add_mlp(self, layer: int) -> None:
        if not self._split_mlps:
            self._stacks.append(([f"{layer}_mlp_out"], self._at(f"blocks.{layer}.hook_mlp_out")[None]))
            return
        mlp = self._cache.model.blocks[layer].mlp
        post, W_out = self._at(f"blocks.{layer}.mlp.hook_post"), mlp.W_out.detach()
        indices = torch.atleast_1d(_sliced(torch.arange(len(W_out)), self._neurons, dim=0))
        terms = post[..., indices, None] * W_out[indices].to(post)
        self._stacks.append(([f"L{layer}N{neuron}" for neuron in indices.tolist()], terms.movedim(-2, 0)))
        self._bias = self._bias + mlp.b_out.detach().to(self._bias)

    def _apply_norm(self, norm: AnyNorm, y: Tensor) -> None:
        """Carry every term through a norm whose input in this run is `y`."""
        if isinstance(norm, NoNorm):
            return
        norm = norm.like(y)
        bias = torch.zeros_like(norm.w) if norm.bias is None else norm.bias
        self._apply_affine(FrozenNorm.at(norm, y).carried, bias)

    def _apply_affine(self, linear: Callable[[Tensor], Tensor], bias: Tensor) -> None:
        self._stacks = [(labels, linear(stack)) for labels, stack in self._stacks]
        self._bias = linear(self._bias) + bias


def _floating(activation: Tensor) -> Tensor:
    """The activation in float32 or float64, so that the terms are not rounded a second time."""
    return activation.to(torch.promote_types(activation.dtype, torch.float32))


def _sliced(tensor: Tensor, selection: SliceOrInput, dim: int) -> Tensor:
    """Part of an axis, selected as in TransformerLens: by an index, a list of indices, or (start, stop, step)."""
    try:
        return (selection if isinstance(selection, Slice) else Slice(selection)).apply(tensor, dim=dim)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{quoted(selection)} does not fit an axis of length {tensor.shape[dim]}: {error}.") from error


def _projected(terms: Terms, onto: Float[Tensor, "width *output"] | None) -> Tensor:
    if onto is None:
        return terms
    if not 1 <= onto.ndim <= 2 or len(onto) != terms.shape[-1]:
        raise InputError(
            f"project_output_onto must have shape [{terms.shape[-1]}] or [{terms.shape[-1]}, outputs], "
            f"got {list(onto.shape)}."
        )
    return terms @ onto.to(terms)


def _labelled(terms: Tensor, labels: list[str], return_labels: bool) -> Labelled:
    return (terms, labels) if return_labels else terms
