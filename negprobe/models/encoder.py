"""`HookedEncoder`: an encoder in which every activation can be read, replaced and differentiated."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias, overload

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import FactoredMatrix, HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities import composition_scores
from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, ModelError
from negprobe.base.memory import explaining_out_of_memory
from negprobe.base.texts import is_utf8, quoted
from negprobe.models.architecture import Architecture
from negprobe.models.attention import AttentionContext, key_mask
from negprobe.models.block import Block
from negprobe.models.cache import EncoderCache
from negprobe.models.config import HookedEncoderConfig
from negprobe.models.convert import convert, encoder_config, head_of
from negprobe.models.embed import Embed
from negprobe.models.families.bert import NEXT_SENTENCE
from negprobe.models.folder import padding_id
from negprobe.models.heads import Classifier, EmbeddingHead, MaskedLMHead, Unembed, pooled_mask
from negprobe.models.hooked import is_hooked
from negprobe.models.labels import predicted_labels, renamed_labels
from negprobe.models.live import FLOAT_DTYPES, read_model
from negprobe.models.loading import check_given_tokenizer, find_checkpoint, read_checkpoint, read_tokenizer
from negprobe.models.norms import AnyNorm, norm_of
from negprobe.models.positions import RelativeBias, RelativeEmbed
from negprobe.models.sentence_folder import apply_sentence_folder, chosen_prompt, read_sentence_folder
from negprobe.models.tied import complete_tied, tie
from negprobe.models.tokenizing import encode, prompted, with_prompt

Text = str | tuple[str, str]
"""One text, or a pair of texts read together (premise and hypothesis)."""

Output = Tensor | str | list[str] | None

_NamedHooks: TypeAlias = Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]]

_ON_REQUEST = {
    "use_attn_result": ("hook_result",),
    "use_split_qkv_input": ("hook_q_input", "hook_k_input", "hook_v_input"),
    "use_hook_mlp_in": ("hook_mlp_in",),
}
"""The hooks that are listed and cached on request, by the setting that requests them."""


class HookedEncoder(HookedRootModule):
    """An encoder language model with TransformerLens's hooks, names and per-head parameters.

    Supports BERT, DistilBERT, RoBERTa (XLM-R and XLM-R XL, CamemBERT, data2vec, the pre-norm RoBERTa), ELECTRA, MPNet,
    ALBERT, ModernBERT (Ettin, mmBERT), DeBERTa (v1, v2, v3), NomicBERT, GTE, jina-embeddings-v3, EuroBERT, ERNIE and
    Megatron-BERT, with a masked-LM head, a sequence classifier, or no head, in which case the output is the pooled
    sentence embedding. The output equals that of Hugging Face's model in evaluation mode; there is no dropout.
    `transformer_lens.patching` works on it. Blocks that share their weights (ALBERT) share parameters, but each has its
    own hooks: an edit at a hook is of one call, a changed weight changes all of them.

    Hook points, in the order they fire (`x` is a block's input):

    | hook | shape | what it is |
    |---|---|---|
    | `embed.hook_embed`, `embed.hook_token_type_embed`, `embed.hook_pos_embed` | batch pos d_embed | embeddings |
    | `embed.hook_task_type_embed` | batch pos d_embed | ERNIE's embedding of task 0 |
    | `hook_full_embed` | batch pos d_model | their sum after LayerNorm |
    | `rel_embed.hook_embed` | 1 bucket d_model | DeBERTa: embeddings of distances, before their LayerNorm |
    | `blocks.L.hook_resid_pre` | batch pos d_model | x |
    | `blocks.L.hook_q_input`, `hook_k_input`, `hook_v_input` | batch pos head d_model | each head's own copy of x * |
    | `blocks.L.attn.hook_q`, `hook_k`, `hook_v` | batch pos head d_head | projections with bias |
    | `blocks.L.attn.hook_rot_q`, `hook_rot_k` | batch pos head d_head | rotated by their positions; only if rotary |
    | `blocks.L.attn.hook_c2p`, `hook_p2c` | batch head query key | DeBERTa: terms of the scores by distance |
    | `blocks.L.attn.hook_attn_scores`, `hook_pattern` | batch head query key | before and after the softmax |
    | `blocks.L.attn.hook_z` | batch pos head d_head | pattern · v |
    | `blocks.L.attn.hook_result` | batch pos head d_model | z W_O * |
    | `blocks.L.hook_attn_out` | batch pos d_model | sum over heads + b_O |
    | `blocks.L.hook_resid_mid` | batch pos d_model | x + attn_out, before LN1 |
    | `blocks.L.hook_mlp_in` | batch pos d_model | a copy of resid_mid, which LN1 reads * |
    | `blocks.L.mlp.hook_pre`, `hook_post` | batch pos d_mlp | before and after the activation function |
    | `blocks.L.mlp.hook_pre_linear` | batch pos d_mlp | what multiplies the activations; only if gated |
    | `blocks.L.hook_mlp_out` | batch pos d_model | output of the MLP |
    | `blocks.L.hook_resid_post` | batch pos d_model | LN1(resid_mid) + mlp_out, before LN2 |
    | `blocks.L.hook_normalized_resid_post` | batch pos d_model | LN2(resid_post), the next block's x |
    | `blocks.0.conv.hook_pre`, `hook_post` | batch pos d_model | DeBERTa's convolution: before, after its activation |
    | `unembed.hook_in`, `unembed.hook_out` | batch pos d_embed, batch pos d_vocab | the head's vector, and the logits |
    | `embedding_head.hook_pooled` | batch d_pooled | pooled embedding; only if `cfg.embedding_steps` follow |
    | `embedding_head.steps.N.hook_pre`, `hook_post` | batch d_out | before and after a `DenseStep`'s activation |

    Each norm (`embed.ln`, `blocks.L.ln1`, `blocks.L.ln2`, `mlm_head.ln`, `classifier.ln`, where the model has them) has
    `hook_scale`, what it divides by, `hook_normalized`, the quotient, and `hook_out`, its output. The hooks marked *
    are in `hook_dict` and in caches on request: `set_use_split_qkv_input`, `set_use_attn_result`,
    `set_use_hook_mlp_in`. A hook added by name always acts.

    In a pre-norm model (ModernBERT, EuroBERT) LN1 and LN2 come before attention and the MLP, `hook_resid_mid` is what
    LN2 reads, `hook_resid_post` is `resid_mid + mlp_out`, the next block's x, and `ln_final` follows the last block;
    there is no `hook_normalized_resid_post`. LN1 then reads the head's copies of x, and LN2 reads `hook_mlp_in`, which
    the residual stream bypasses.

    Where groups of heads share keys and values (EuroBERT), each head has a copy: `W_K`, `W_V`, `hook_k` and `hook_v`
    have one entry per head. A write to one head's key or value leaves the rest of its group alone; to patch what the
    group shares, patch all its heads, `n_heads / cfg.n_key_value_groups` consecutive ones.

    Names and meanings are those of TransformerLens 3's `HookedEncoder`: `model.embed(tokens)` is the sum of the
    embeddings after LayerNorm, and `return_type="predictions"` returns a string for one row. Another `HookedRootModule`
    that contains the encoder renames all hook points; the encoder's own methods and caches keep the names above.

    Example:
        >>> from negprobe import HookedEncoder
        >>> model = HookedEncoder.from_pretrained("tiny-negation")
        >>> model("The door is not open. So the door is [MASK].", return_type="predictions")
        'closed'
        >>> _, cache = model.run_with_cache("The door is not open.")
        >>> cache["pattern", 0].shape
        torch.Size([1, 4, 8, 8])
    """

    context_level: int

    @torch.inference_mode(False)
    def __init__(self, cfg: HookedEncoderConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Create the modules with uninitialised weights; use `from_pretrained` to load a model."""
        super().__init__()
        # A copy, because two models with the same configuration can be moved to different devices or dtypes.
        self.cfg = cfg = replace(cfg)
        self.tokenizer = with_prompt(tokenizer, cfg.prompt)
        self.embed = Embed(cfg)
        self.embed_project = nn.Linear(cfg.d_embed, cfg.d_model) if cfg.projects_embedding else nn.Identity()
        self.hook_full_embed = HookPoint()
        self.architecture = Architecture.of(cfg)
        if cfg.positions == "relative":
            self.position_bias = RelativeBias(cfg)
        if cfg.positions == "disentangled":
            self.rel_embed = RelativeEmbed(cfg)
        self.blocks = nn.ModuleList([Block(self.architecture, layer) for layer in range(cfg.n_layers)])
        tie(self.blocks, cfg.tied_to)
        self.ln_final = norm_of(cfg.normalization_type, cfg.d_model, cfg.eps, exists=cfg.norms == "pre")
        if cfg.head == "masked_lm":
            self.mlm_head = MaskedLMHead(cfg) if cfg.head_transform else nn.Identity()
            self.unembed = Unembed(cfg)
        elif cfg.head == "classification":
            self.classifier = Classifier(cfg)
        else:
            self.embedding_head = EmbeddingHead(cfg)
        self.setup()
        # These are large or rarely needed, so they are listed and cached only on request. Hooks can always be added by
        # name.
        self._hooks_on_request = {
            flag: {name: point for name, point in self.hook_dict.items() if name.endswith(ends)}
            for flag, ends in _ON_REQUEST.items()
        }
        for flag in _ON_REQUEST:
            self._list_hooks(flag, getattr(cfg, flag))
        # Other names of TransformerLens 4.
        self.mod_dict["hook_embed"] = self.hook_full_embed
        if cfg.norms == "pre":
            for name, point in self._hooks_on_request["use_split_qkv_input"].items():
                self.mod_dict[name.replace(".hook_", ".attn.hook_")] = point
        self.register_load_state_dict_pre_hook(_accept_earlier_names)
        self.register_load_state_dict_pre_hook(_complete_tied)
        self.register_load_state_dict_post_hook(_sync_after_loading)
        if self.device.type != "meta":
            self.to(device=cfg.device, dtype=cfg.dtype)
        self._sync_config()

    @classmethod
    @torch.inference_mode(False)  # tensors created in inference mode cannot be used in autograd later
    @explaining_out_of_memory(
        "There is not enough memory to load the model. Free some, or choose a smaller model or a smaller dtype, such "
        "as torch.bfloat16."
    )
    @checked
    def from_pretrained(
        cls,
        name_or_path: str | Path | nn.Module | None = None,
        *,
        hf_model: nn.Module | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        architecture: str | None = None,
        prompt: str | None = None,
        labels: Mapping[str, str] | Sequence[str] | None = None,
        move_to_device: bool = True,
        model_name: str | Path | nn.Module | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> "HookedEncoder":
        """A pretrained encoder, in evaluation mode.

        Args:
            name_or_path: "tiny-negation" (bundled), a local folder in Hugging Face's format, a hub name, or a loaded
                Hugging Face model. Only safetensors are read, and no remote code is run. The settings of a
                sentence-transformers folder are applied: pooling, the modules after it, lower-casing, the default
                prompt, and `max_seq_length`, which becomes `cfg.n_ctx`.
            hf_model: A loaded Hugging Face model; `name_or_path` is then only its name.
            tokenizer: The tokenizer for strings; by default the one in the folder. Its padding token becomes
                `cfg.pad_token_id`. If a sentence-transformers folder sets `do_lower_case`, the model gets a copy that
                lower-cases texts.
            revision: A branch, tag or commit of a hub model; by default "main". The name can contain it instead:
                "owner/name@v1". The commit is stored in `cfg.revision`.
            device: "cpu", "cuda" (one of several: "cuda:1") or "mps"; by default a CUDA GPU, if any, else the CPU.
            dtype: Dtype of the parameters: `torch.float64`, `float32`, `float16` or `bfloat16`; by default `float32`.
            architecture: The transformers class to read the model as, such as "BertForSequenceClassification", or
                "BertForNextSentencePrediction" for a BERT that was saved with this head; by default the one named in
                config.json, the loaded model's own, or, for a sentence-transformers encoder, its family's class without
                a head. If this class has a different head, the sentence-transformers
                settings are not applied. A loaded model of a class derived from a transformers class is read only if
                `architecture` names that base class; modules that the derived class adds are ignored.
            prompt: Text to put before each text, such as "query: ", or the name of one of the prompts of a
                sentence-transformers folder; "" for none. By default the folder's default prompt, if it has one. The
                text is in `cfg.prompt`, and the model's tokenizer is then a copy that adds it.
            labels: Names of a classifier's labels, for one whose configuration has only "LABEL_0", "LABEL_1", …: all
                names in the order of the logits, or a dict from present to new names. By default those of config.json.
            move_to_device: Whether to move the model to the device; otherwise it stays on the CPU.
            model_name: TransformerLens's name of `name_or_path`.
            torch_dtype: TransformerLens's other name of `dtype`.

        Raises:
            ModelError: if the model cannot be found, read or moved to the device, is not a supported encoder, or does
                not compute what its class and configuration describe (an adapter, quantized weights, a changed module);
                and for labels that do not fit the model, for no name, and for an argument under two names.
        """
        _check_given_once(name_or_path=name_or_path, model_name=model_name)
        _check_given_once(dtype=dtype, torch_dtype=torch_dtype)
        name_or_path = model_name if name_or_path is None else name_or_path
        if name_or_path is None:
            raise ModelError("No model was given; give a folder, a hub name, a loaded model or 'tiny-negation'.")
        dtype = dtype or torch_dtype or torch.float32
        if not move_to_device and device is not None:
            raise ModelError(f"move_to_device=False leaves the model on the CPU, but device={str(device)!r}; omit one.")
        device = _device_for(device if move_to_device else "cpu", dtype)
        if isinstance(name_or_path, nn.Module):
            if hf_model is not None:
                raise ModelError("name_or_path and hf_model are both models; give one model, optionally with a name.")
            hf_model = name_or_path
            name = str(getattr(getattr(hf_model, "config", None), "name_or_path", None) or "model")
        else:
            name = str(name_or_path)
        if hf_model is not None and revision is not None:
            raise ModelError(f"revision={revision!r} applies to hub models only, but a loaded model was given.")
        folder, commit, sentence = None, "", None
        if hf_model is not None:
            config, architecture = read_model(hf_model, architecture, name)
        else:
            checkpoint = find_checkpoint(name, revision)
            name, folder, commit = checkpoint.name, checkpoint.folder, checkpoint.revision
            sentence = read_sentence_folder(folder, name)
            if sentence is not None:
                folder = sentence.encoder
                if architecture is not None and head_of(architecture) != sentence.head:
                    sentence = None
            without_head = sentence is not None and sentence.head == "none"
            hf_model, architecture = read_checkpoint(folder, name, dtype, architecture, without_head=without_head)
            config = hf_model.config
        if tokenizer is not None:
            check_given_tokenizer(tokenizer, config, name)
        elif folder is not None:
            tokenizer = read_tokenizer(folder, hf_model, name)
        cfg = encoder_config(config, architecture, name)
        cfg.dtype, cfg.revision = dtype, commit
        if labels is not None:
            cfg.labels = renamed_labels(cfg, labels)
        if tokenizer is not None:
            cfg.pad_token_id = padding_id(tokenizer, config, name)
        cfg.prompt = chosen_prompt(prompt, sentence, name)
        if sentence is not None:
            tokenizer = apply_sentence_folder(sentence, cfg, tokenizer)
        with torch.device("meta"):
            model = cls(cfg, tokenizer)
        weights = {**convert(hf_model, cfg), **({} if sentence is None else sentence.embedding.weights)}
        if folder is None:
            # Without a copy, changing one model would change the other. The copy is on the CPU, because the given
            # model may be on a device that does not support `dtype`.
            weights = {key: tensor.to("cpu", copy=True) for key, tensor in weights.items()}
        weights = {key: tensor.to(dtype) for key, tensor in weights.items()}
        broken = next((key for key, tensor in weights.items() if not bool(tensor.isfinite().all())), None)
        if broken is not None:
            raise ModelError(
                f"The weights of {name!r} contain values that are not finite, in {broken}. Download them again, or "
                "retrain the model."
            )
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise ModelError(f"The weights of {name!r} do not fit its configuration: {error}") from error
        model.eval()
        try:
            return model.to(device)
        except Exception as error:  # of many types: torch built without CUDA raises an AssertionError
            reason = " ".join(str(error).split()).rstrip(".")
            raise ModelError(
                f"The model cannot be moved to {device!r}: {reason}. Choose an available device with enough memory, "
                "such as 'cpu'."
            ) from error

    def __repr__(self) -> str:
        """The modules with parameters, as torch shows them; the hook points are in `hook_dict`."""
        return "\n".join(line for line in super().__repr__().splitlines() if ": HookPoint(" not in line)

    @checked
    def forward(
        self,
        input: Text | Sequence[Text] | Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_model"],
        return_type: Literal["logits", "predictions"] | None = "logits",
        token_type_ids: Int[Tensor, "batch pos"] | None = None,
        one_zero_attention_mask: Int[Tensor, "batch pos"] | None = None,
        *,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        truncate: bool = False,
    ) -> Output:
        """Run the model.

        Args:
            input: A text, a pair of texts, a list of either, token ids, or, with `start_at_layer`, that block's input.
            return_type: "logits" for the head's output, "predictions" for words or label names (a string for one row, a
                list for several), None for no output. A classifier has predictions only if its labels are mutually
                exclusive.
            token_type_ids: Segment of each token; by default the tokenizer's, or 0 if `input` is token ids.
            one_zero_attention_mask: 1 for real tokens, 0 for padding; by default every `pad_token_id` is padding. With
                `start_at_layer`, by default there is no padding.
            start_at_layer: Skip the embeddings and the blocks before this one.
            stop_at_layer: Stop before this block and return its input; `n_layers` gives the last hidden states.
            truncate: Cut texts that are longer than `cfg.n_ctx` tokens instead of raising.

        Returns:
            Logits `[batch pos d_vocab]` of a masked LM, `[batch label]` of a classifier, embeddings
            `[batch d_embedding]` without a head, or, with `stop_at_layer`, a residual stream `[batch pos d_model]`.

        Raises:
            InputError: for empty or over-long texts, wrong shapes or types, ids outside the vocabulary, a layer the
                model does not have, or "predictions" from a model without a head, a regression model, or a classifier
                with one label or with labels that are not mutually exclusive.
            ModelError: if the parameters differ in dtype or device.
        """
        self.check_parameters()
        self._check_layers(start_at_layer=start_at_layer, stop_at_layer=stop_at_layer)
        if start_at_layer is None:
            tokens, token_type_ids, mask = self._inputs(input, token_type_ids, one_zero_attention_mask, truncate)
            resid = self.embed_tokens(tokens, token_type_ids)
        else:
            tokens, resid, mask = None, *self._residual(input, one_zero_attention_mask)
        context = self.attention_context(mask)
        for block in self.blocks[start_at_layer:stop_at_layer]:
            resid = block(resid, context)
        if stop_at_layer is not None:
            return resid
        if return_type is None:
            return None
        output = self.head_output(resid, mask)
        if return_type == "logits":
            return output
        if return_type == "predictions":
            predicted = self._predictions(output, tokens)
            return predicted[0] if len(predicted) == 1 else predicted
        raise InputError(f"return_type must be 'logits', 'predictions' or None, got {return_type!r}.")

    def encoder_output(
        self,
        tokens: Text | Sequence[Text] | Int[Tensor, "batch pos"],
        token_type_ids: Int[Tensor, "batch pos"] | None = None,
        one_zero_attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The last block's output, as `forward` with `stop_at_layer=n_layers`, which has the arguments and errors."""
        resid = self(tokens, None, token_type_ids, one_zero_attention_mask, stop_at_layer=self.cfg.n_layers)
        assert isinstance(resid, Tensor)
        return resid

    @checked
    def embed_tokens(
        self, tokens: Int[Tensor, "batch pos"], token_type_ids: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The first block's input: the sum of the embeddings after LayerNorm (and ELECTRA's projection)."""
        return self.hook_full_embed(self.embed_project(self.embed(tokens, token_type_ids)))

    def attention_context(self, mask: Int[Tensor, "batch pos"]) -> AttentionContext:
        """What attention depends on besides queries, keys and values, for texts with this 1/0 mask."""
        bias = self.position_bias(mask.shape[1]) if self.cfg.positions == "relative" else None
        relative = self.rel_embed(mask.shape[1]) if self.cfg.positions == "disentangled" else None
        return AttentionContext(key_mask(mask), bias, relative)

    @checked
    def head_output(
        self, resid: Float[Tensor, "batch pos d_model"], mask: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch *output"]:
        """The head's output for the last block's output: vocabulary logits, label logits, or the pooled embedding."""
        if self.cfg.head == "masked_lm":
            return self.vocabulary_logits(resid)
        resid = self.ln_final(resid)
        if self.cfg.head == "classification":
            return self.classifier(resid, mask)
        return self.embedding_head(resid, mask)

    @checked
    def word_logits(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        row: Int[Tensor, " word"],
        pos: Int[Tensor, " word"],
    ) -> Float[Tensor, "word d_vocab"]:
        """A masked LM's vocabulary logits at the given rows and positions of the last hidden states.

        The head runs on these positions only, unless it has hooks; then it runs on all positions, as in `forward`.

        Raises:
            InputError: without a masked-LM head, or for an index out of range.
        """
        for axis, index in zip(resid.shape, (row, pos), strict=False):
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < axis:
                raise InputError(
                    f"row or pos must be from 0 to {axis - 1}, got {int(index.min())} to {int(index.max())}."
                )
        if is_hooked(self._unembed, self.mlm_head, self.ln_final):
            return self.vocabulary_logits(resid)[row, pos]
        return self.vocabulary_logits(resid[row, pos])

    def vocabulary_logits(self, resid: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_vocab"]:
        """A masked LM's vocabulary logits for rows of the last block's output."""
        return self.unembed(self.mlm_head(self.ln_final(resid)))

    @overload
    def run_with_cache(
        self, *args: Any, return_cache_object: Literal[True] = True, **kwargs: Any
    ) -> tuple[Output, EncoderCache]: ...
    @overload
    def run_with_cache(
        self, *args: Any, return_cache_object: Literal[False], **kwargs: Any
    ) -> tuple[Output, dict[str, Tensor]]: ...
    def run_with_cache(
        self,
        *args: Any,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        **kwargs: Any,
    ) -> tuple[Output, EncoderCache | dict[str, Tensor]]:
        """The model's output and an `EncoderCache` of its activations.

        The arguments are those of `forward` and of TransformerLens's method. Cache methods that TransformerLens defines
        for pre-LayerNorm decoders either return correct values for encoders or raise `InputError`.
        """
        input = args[0] if args else kwargs.get("input")
        if remove_batch_dim and not isinstance(input, (str, tuple)) and input is not None and len(input) != 1:
            raise InputError(f"Only the batch axis of one text can be removed; this batch has {len(input)}.")
        output, cache = super().run_with_cache(*args, remove_batch_dim=remove_batch_dim, **kwargs)
        if not return_cache_object:
            return output, cache
        return output, EncoderCache(cache, self, has_batch_dim=not remove_batch_dim)

    def get_caching_hooks(
        self, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Tensor], list[tuple[str, Callable[..., None]]], list[tuple[str, Callable[..., None]]]]:
        """As in TransformerLens, but the cache keys are the encoder's own names, even inside another module."""
        cache, fwd, bwd = super().get_caching_hooks(*args, **kwargs)
        named = [[(name, _under_name(name, save)) for name, save in hooks] for hooks in (fwd, bwd)]
        return cache, named[0], named[1]

    def add_caching_hooks(self, *args: Any, cache: dict[str, Tensor] | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """As in TransformerLens, but the cache keys are the encoder's own names, even inside another module."""
        cache, fwd, bwd = self.get_caching_hooks(*args, cache=cache, **kwargs)
        for direction, hooks in (("fwd", fwd), ("bwd", bwd)):
            for name, save in hooks:
                self.add_hook(name, save, direction)
        return cache

    @contextmanager
    def hooks(
        self, fwd_hooks: _NamedHooks = (), bwd_hooks: _NamedHooks = (), *args: Any, **kwargs: Any
    ) -> Iterator["HookedEncoder"]:
        """As in TransformerLens, but removing these hooks keeps those that an enclosing module added.

        Raises:
            InputError: for a hook point that the model does not have.
        """
        for name, _ in (*fwd_hooks, *bwd_hooks):
            self._check_hook_point(name)
        own = self.context_level
        points = self.hook_points()
        handles = [handle for point in points for handle in (*point.fwd_hooks, *point.bwd_hooks)]
        self.context_level = max([own, *(handle.context_level or 0 for handle in handles)])
        try:
            with super().hooks(fwd_hooks, bwd_hooks, *args, **kwargs):
                yield self
        finally:
            self.context_level = own

    def add_hook(self, name: str | Callable[[str], bool], *args: Any, **kwargs: Any) -> None:
        """As in TransformerLens; raises `InputError` for a hook point that the model does not have."""
        self._check_hook_point(name)
        super().add_hook(name, *args, **kwargs)

    def _check_hook_point(self, name: str | Callable[[str], bool]) -> None:
        if not isinstance(name, str) or isinstance(self.mod_dict.get(name), HookPoint):
            return
        close = get_close_matches(name, [key for key, point in self.mod_dict.items() if isinstance(point, HookPoint)])
        raise InputError(
            f"There is no hook point {quoted(name)} in this model"
            f"{'; did you mean ' + ' or '.join(map(repr, close)) if close else ''}. help(HookedEncoder) lists them."
        )

    @checked
    def to_tokens(
        self, input: Text | Sequence[Text], truncate: bool = False, *, move_to_device: bool = True
    ) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        """Token ids, token-type ids and the 1/0 attention mask of texts, padded on the right, on the model's device.

        The model's prompt, `cfg.prompt`, is put before each text. With `move_to_device=False` they stay on the CPU.

        Raises:
            InputError: for an empty text, a text longer than `cfg.n_ctx` tokens (unless `truncate`), a text that the
                tokenizer fails on, or a model without a tokenizer.
        """
        if self.tokenizer is None:
            raise InputError(
                "This model was loaded without a tokenizer; pass one to from_pretrained, or use token ids."
            )
        texts = [input] if isinstance(input, (str, tuple)) else list(input)
        _check_texts(texts)
        pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
        first, second = [a for a, _ in pairs], [b for _, b in pairs]
        if any(b is None for b in second) and any(b is not None for b in second):
            raise InputError(
                "A batch must contain either single texts or pairs of texts, not both; split it into two calls."
            )
        encoded = encode(
            self.tokenizer,
            prompted(first, self.tokenizer),
            None if second[0] is None else second,
            padding=True,
            padding_side="right",
            truncation=truncate,
            max_length=self.cfg.n_ctx if truncate else None,
            return_attention_mask=True,
            return_tensors="pt",
            verbose=False,
        )
        lengths = encoded["attention_mask"].sum(dim=1)
        if lengths.min() == 0:
            raise InputError(f"The tokenizer produces no tokens for text {int(lengths.argmin())}; change or remove it.")
        if lengths.max() > self.cfg.n_ctx:
            longest = int(lengths.argmax())
            raise InputError(
                f"Text {longest} has {int(lengths[longest])} tokens, but the model reads at most {self.cfg.n_ctx}: "
                f"{str(texts[longest])[:60]!r}… Shorten it, or pass truncate=True to cut it."
            )
        tokens, device = encoded["input_ids"], self.device if move_to_device else "cpu"
        # The tokenizer of a model without token types returns none.
        types = encoded.get("token_type_ids", torch.zeros_like(tokens))
        return tokens.to(device), types.to(device), encoded["attention_mask"].to(device)

    @checked
    def to_str_tokens(
        self, input: Text | Sequence[Text] | Tensor, truncate: bool = False
    ) -> list[str] | list[list[str]]:
        """The text of each token, decoded alone, special tokens included and padding left out.

        Returns:
            A list for one text or one row of token ids, a list of lists for several. Unlike in TransformerLens, a
            tensor of token ids can have several rows.

        Raises:
            InputError: as `to_tokens`, and for token ids that are not a non-empty tensor of integers in the vocabulary.
        """
        if isinstance(input, Tensor):
            tokens = self._checked_tokens(input[None] if input.ndim == 1 else input, truncate)
            _check_ids("Token", tokens, self.cfg.d_vocab)
            if self.tokenizer is None:
                raise InputError("This model was loaded without a tokenizer; pass one to from_pretrained.")
            rows, is_one = tokens.tolist(), len(tokens) == 1
        else:
            tokens, _, mask = self.to_tokens(input, truncate)
            rows = [row[real.bool()].tolist() for row, real in zip(tokens, mask, strict=True)]
            is_one = isinstance(input, (str, tuple))
        assert self.tokenizer is not None
        texts = [[str(self.tokenizer.decode([token])) for token in row] for row in rows]
        return texts[0] if is_one else texts

    @checked
    def tokens_to_residual_directions(self, tokens: str | int | Tensor) -> Float[Tensor, "*rows d_embed"]:
        """The unembedding vectors of tokens, the columns of `W_U`.

        The inner product of such a vector with `unembed.hook_in`, plus `b_U`, is the token's logit. The vectors are not
        directions of the residual stream: a masked LM's head is not linear.

        Args:
            tokens: A word that is a single token, or token ids. As in TransformerLens, one id gives one vector without
                an axis for tokens, whatever the shape of its tensor.

        Raises:
            InputError: without a masked-LM head, for a word that is not one token, or an id outside the vocabulary.
        """
        W_U = self.W_U
        if isinstance(tokens, Tensor):
            if not tokens.numel():
                raise InputError("There are no token ids; give at least one.")
            if tokens.is_floating_point() or tokens.dtype == torch.bool:
                raise InputError(f"Token ids must be integers, got {tokens.dtype}.")
            _check_ids("Token", tokens, self.cfg.d_vocab)
            return W_U.T[tokens.squeeze() if tokens.numel() == 1 else tokens]
        index = self.to_single_token(tokens) if isinstance(tokens, str) else tokens
        if not 0 <= index < self.cfg.d_vocab:
            raise InputError(f"Token ids must be from 0 to {self.cfg.d_vocab - 1} for this model, got {index}.")
        return W_U[:, index]

    @checked
    def all_composition_scores(self, mode: Literal["Q", "K", "V"]) -> Float[Tensor, "layer head later later_head"]:
        """By how much what each head writes can be read by the queries, keys or values of each head of a later layer.

        `‖W_OV W‖ / (‖W_OV‖ ‖W‖)` in Frobenius norms, where W is the later head's `W_Q W_K^T` (for "K" its transpose)
        or, for "V", its `W_V W_O`; 0 for heads of the same or an earlier layer. The norms between the two heads are
        left out, as in TransformerLens. Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
        """
        right = {"Q": self.QK, "K": self.QK.T, "V": self.OV}[mode]
        scores = composition_scores(self.OV, right, broadcast_dims=True)
        layers = torch.arange(self.cfg.n_layers, device=scores.device)
        is_later = rearrange(layers, "layer -> layer 1 1 1") < rearrange(layers, "later -> later 1")
        return torch.where(is_later, scores, torch.zeros_like(scores))

    @checked
    def to_single_token(self, word: str) -> int:
        """The id of a word that is a single token.

        Raises:
            InputError: if the tokenizer splits the word, or the word is not in the vocabulary.
        """
        if self.tokenizer is None:
            raise InputError("This model was loaded without a tokenizer; pass one to from_pretrained.")
        if not is_utf8(word):
            raise InputError(f"{quoted(word)} is not valid UTF-8 text; choose a word that is a single token.")
        ids = encode(self.tokenizer, [word], add_special_tokens=False)["input_ids"][0]
        if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            raise InputError(
                f"{quoted(word)} is not a single token of this model's vocabulary (its tokens: {quoted(pieces)}); "
                "choose a word that is."
            )
        return int(ids[0])

    @checked
    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Include or exclude per-head results in `hook_dict` and caches; they take `n_heads` times a residual."""
        self._list_hooks("use_attn_result", use_attn_result)

    @checked
    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Include or exclude each head's inputs of queries, keys and values in `hook_dict` and caches.

        `blocks.L.hook_q_input`, `hook_k_input` and `hook_v_input` take `3 n_heads` times a residual.
        """
        self._list_hooks("use_split_qkv_input", use_split_qkv_input)

    @checked
    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Include or exclude `blocks.L.hook_mlp_in` in `hook_dict` and caches."""
        self._list_hooks("use_hook_mlp_in", use_hook_mlp_in)

    def _list_hooks(self, flag: str, listed: bool) -> None:
        setattr(self.cfg, flag, listed)
        for name, point in self._hooks_on_request[flag].items():
            if listed:
                self.hook_dict[name] = point
            else:
                self.hook_dict.pop(name, None)

    def hook_points(self) -> list[HookPoint]:
        """Every hook point, including those on request even while `hook_dict` omits them."""
        return [module for module in self.mod_dict.values() if isinstance(module, HookPoint)]

    @torch.inference_mode(False)
    def _apply(self, *args: Any, **kwargs: Any) -> "HookedEncoder":
        """Convert the parameters and update `cfg`; `to`, `double`, `half`, `cuda` and others call this."""
        super()._apply(*args, **kwargs)
        self._sync_config()
        return self

    def _sync_config(self) -> None:
        """Copy the parameters' dtype and device into `cfg`, where TransformerLens's functions look for them."""
        self.cfg.device, self.cfg.dtype = str(self.device), self.dtype

    def check_parameters(self) -> None:
        """Check that all parameters have one dtype and device, unlike after `model.blocks[0].double()`.

        Raises:
            ModelError: if they differ.
        """
        kinds: dict[tuple[torch.dtype, torch.device], str] = {}
        for name, module in self.mod_dict.items():
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    kinds.setdefault((parameter.dtype, parameter.device), f"{name}.{key}")
        if len(kinds) > 1:
            found = ", ".join(f"{name} is {dtype} on {device}" for (dtype, device), name in kinds.items())
            raise ModelError(
                f"The parameters of {self.cfg.model_name!r} differ in dtype or device: {found}. Convert the whole "
                "model, as in model.to(torch.float64)."
            )

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.embed.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.embed.W_E.dtype

    @property
    def ln_embed(self) -> AnyNorm:
        """The LayerNorm after the sum of the embeddings, `embed.ln`."""
        return self.embed.ln

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_embed"]:
        """Token embeddings."""
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "position d_embed"]:
        """Position embeddings; raises `InputError` in a model without them."""
        if not self.cfg.embeds_positions:
            raise InputError(f"{self.cfg.model_name!r} has no position embeddings.")
        return self.embed.W_pos

    @property
    def W_E_pos(self) -> Float[Tensor, "d_vocab_and_position d_embed"]:
        """Token embeddings, then position embeddings; raises `InputError` in a model without position embeddings."""
        return torch.cat([self.W_E, self.W_pos])

    @property
    def W_U(self) -> Float[Tensor, "d_embed d_vocab"]:
        """Unembedding; raises `InputError` without a masked-LM head."""
        return self._unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """Bias of the unembedding; raises `InputError` without a masked-LM head."""
        return self._unembed.b_U

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Query projections."""
        return self._stacked("attn.W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Key projections."""
        return self._stacked("attn.W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Value projections."""
        return self._stacked("attn.W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Output projections."""
        return self._stacked("attn.W_O")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Query biases."""
        return self._stacked("attn.b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """Key biases."""
        return self._stacked("attn.b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """Value biases."""
        return self._stacked("attn.b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Output biases."""
        return self._stacked("attn.b_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """MLP input weights."""
        return self._stacked("mlp.W_in")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """MLP input biases."""
        return self._stacked("mlp.b_in")

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """MLP output weights."""
        return self._stacked("mlp.W_out")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """MLP output biases."""
        return self._stacked("mlp.b_out")

    @property
    def QK(self) -> FactoredMatrix:
        """`W_Q W_K^T` of every head, `[layer head d_model d_model]`, factored.

        With `architecture.positions` "rotary" or "disentangled", scores also depend on the positions of query and key,
        so this matrix alone does not give them: rotary models rotate queries and keys in between, and DeBERTa adds
        `attn.hook_c2p` and `attn.hook_p2c`.
        """
        return FactoredMatrix(self.W_Q, rearrange(self.W_K, "layer head d_model d_head -> layer head d_head d_model"))

    @property
    def OV(self) -> FactoredMatrix:
        """`W_V W_O` of every head, `[layer head d_model d_model]`, factored."""
        return FactoredMatrix(self.W_V, self.W_O)

    def all_head_labels(self) -> list[str]:
        """ "L0H0", "L0H1", … in the order of a flattened `[layer head]` array."""
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads)]

    def _stacked(self, name: str) -> Float[Tensor, "layer ..."]:
        return torch.stack([block.get_parameter(name) for block in self.blocks])

    @property
    def _unembed(self) -> Unembed:
        if self.cfg.head != "masked_lm":
            raise InputError(f"{self.cfg.model_name!r} has no masked-LM head, so it has no unembedding.")
        return self.unembed

    def _check_layers(self, **layers: int | None) -> None:
        n = self.cfg.n_layers
        for name, layer in layers.items():
            if layer is not None and not -n <= layer <= n:
                raise InputError(f"{name} must be from {-n} to {n}, as the model has {n} layers; got {layer}.")

    def _residual(
        self, resid: Any, mask: Int[Tensor, "batch pos"] | None
    ) -> tuple[Float[Tensor, "batch pos d_model"], Int[Tensor, "batch pos"]]:
        is_residual = isinstance(resid, Tensor) and resid.is_floating_point() and resid.ndim == 3
        if not is_residual or resid.shape[-1] != self.cfg.d_model:
            shape = list(resid.shape) if isinstance(resid, Tensor) else type(resid).__name__
            raise InputError(
                f"With start_at_layer, the input must be that block's input, a floating-point tensor of shape "
                f"[batch, pos, {self.cfg.d_model}]; got {shape}."
            )
        if mask is None:
            mask = torch.ones(resid.shape[:2], dtype=torch.long)
        mask = _with_shape("attention mask", mask, resid.shape[:2]).to(resid.device)
        _check_rows(mask, self.cfg.pool_from)
        return resid, mask

    def _inputs(
        self,
        input: Any,
        token_type_ids: Int[Tensor, "batch given"] | None,
        mask: Int[Tensor, "batch given"] | None,
        truncate: bool,
    ) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"] | None, Int[Tensor, "batch pos"]]:
        if isinstance(input, Tensor):
            tokens, types, shape = self._checked_tokens(input, truncate).to(self.device), None, input.shape
            own_mask = (tokens != self.cfg.pad_token_id).long()
        else:
            tokens, types, own_mask = self.to_tokens(input, truncate)
            shape = tokens.shape
        pos = tokens.shape[1]
        _check_ids("Token", tokens, self.cfg.d_vocab)
        mask = own_mask if mask is None else _with_shape("attention mask", mask, shape)[:, :pos].to(self.device)
        _check_rows(mask, self.cfg.pool_from)
        if token_type_ids is not None:
            types = _with_shape("token-type tensor", token_type_ids, shape)[:, :pos].to(self.device)
        if types is not None and self.cfg.n_token_types:
            _check_ids("Token-type", types, self.cfg.n_token_types)
        return tokens, types, mask

    def _checked_tokens(self, tokens: Tensor, truncate: bool) -> Int[Tensor, "batch pos"]:
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.numel() == 0:
            raise InputError(
                f"Token ids must be a non-empty integer tensor of shape [batch, pos]; got shape {list(tokens.shape)} "
                f"and {tokens.dtype}. To pass a block's input instead, give the block's index as start_at_layer."
            )
        if tokens.shape[1] > self.cfg.n_ctx and not truncate:
            raise InputError(
                f"The input has {tokens.shape[1]} tokens, but the model reads at most {self.cfg.n_ctx}; shorten it, "
                "or pass truncate=True to cut it."
            )
        return tokens[:, : self.cfg.n_ctx]

    def _predictions(self, output: Tensor, tokens: Int[Tensor, "batch pos"] | None) -> list[str]:
        if self.cfg.head == "classification":
            return predicted_labels(output, self.cfg)
        if self.cfg.head == "none":
            raise InputError(
                "A model without a head returns embeddings and has no predictions; use return_type='logits'."
            )
        if self.tokenizer is None or tokens is None:
            raise InputError(
                "return_type='predictions' needs a tokenizer and texts or token ids as input, not a residual stream."
            )
        is_mask = tokens == self.tokenizer.mask_token_id
        if not bool(is_mask.any(dim=1).all()):
            raise InputError(f"A masked LM predicts words at {self.tokenizer.mask_token}; every text must contain one.")
        best = output.argmax(dim=-1)
        return [self.tokenizer.decode(ids[masked]) for ids, masked in zip(best, is_mask, strict=True)]


def _check_given_once(**names: object) -> None:
    """Check that an argument with several names is given under one of them at most.

    Raises:
        ModelError: if it is not.
    """
    if sum(value is not None for value in names.values()) > 1:
        raise ModelError(f"{' and '.join(names)} are two names of one argument; give only one of them.")


def _device_for(requested: str | torch.device | None, dtype: torch.dtype) -> str:
    """The requested device; for None, a CUDA GPU if there is one, otherwise the CPU.

    Raises:
        ModelError: for an unsupported device or dtype, or a dtype that the device does not support.
    """
    if dtype not in FLOAT_DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(map(str, FLOAT_DTYPES))}; got {dtype}.")
    if requested is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    device = str(requested)
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", device):
        raise ModelError(
            f"The model cannot be moved to {quoted(device)}; choose 'cpu', 'cuda' (one of several: 'cuda:1') or 'mps'."
        )
    if device.startswith("mps") and dtype == torch.float64:
        raise ModelError("MPS does not support float64; choose dtype=torch.float32 or device='cpu'.")
    return device


def _check_texts(texts: list[Any]) -> None:
    if not texts:
        raise InputError("There are no texts; give at least one.")
    for index, text in enumerate(texts):
        parts = text if isinstance(text, tuple) else (text,)
        if not 1 <= len(parts) <= 2 or not all(isinstance(part, str) for part in parts):
            raise InputError(f"Text {index} must be a string or a pair of strings, got {quoted(text)}.")
        if not all(part.strip() for part in parts):
            raise InputError(f"Text {index} is empty; every text needs at least one word.")
        if not all(map(is_utf8, parts)):
            raise InputError(f"Text {index}, {quoted(text)}, is not valid UTF-8 text; correct it.")


def _check_ids(kind: str, ids: Int[Tensor, "*any"], size: int) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise InputError(f"{kind} ids must be from 0 to {size - 1} for this model, got {low} to {high}.")


def _check_rows(mask: Int[Tensor, "batch pos"], pool_from: int) -> None:
    if not bool(mask.any(dim=1).all()):
        raise InputError("A row of the batch consists of padding only; remove it.")
    if pool_from and not bool(pooled_mask(mask, pool_from).any(dim=1).all()):
        raise InputError(
            f"A row of the batch has no token to pool: the model pools from position {pool_from} on, after its prompt. "
            "Token ids must include the prompt."
        )


def _with_shape(name: str, given: Int[Tensor, "batch pos"], shape: Sequence[int]) -> Int[Tensor, "batch pos"]:
    if tuple(given.shape) != tuple(shape):
        raise InputError(f"The {name} must have the input's shape {list(shape)}, got {list(given.shape)}.")
    return given


_TRANSFORMER_LENS_3 = {
    "embed.embed.W_E": "embed.W_E",
    "embed.pos_embed.W_pos": "embed.W_pos",
    "embed.token_type_embed.W_token_type": "embed.W_token_type",
}
"""The names of weights of TransformerLens 3's `HookedEncoder` that differ from ours, with ours."""

_TRANSFORMER_LENS_3_NEXT_SENTENCE = {
    "pooler.W": "classifier.W_pool",
    "pooler.b": "classifier.b_pool",
    "nsp_head.W": "classifier.W_label",
    "nsp_head.b": "classifier.b_label",
}
"""Those of the head that says whether the second of two texts follows the first."""


def _accept_earlier_names(model: HookedEncoder, weights: dict[str, Tensor], prefix: str, *args: object) -> None:
    """Rename the weights of models of earlier versions, and of TransformerLens 3's `HookedEncoder`.

    In earlier versions the embeddings' LayerNorm was `ln_embed`. TransformerLens 3 saves constants of attention, and
    both heads of BERT's pre-training, of which a model here has one at most.
    """
    renamed = {f"ln_embed.{name}": f"embed.ln.{name}" for name in ("w", "b")} | _TRANSFORMER_LENS_3
    if f"{prefix}embed.embed.W_E" in weights:
        unused = [r"blocks\.\d+\.attn\.(mask|IGNORE)"]
        unused += [r"(mlm_head|unembed)\..*"] if model.cfg.head != "masked_lm" else []
        if model.cfg.labels == NEXT_SENTENCE:
            renamed |= _TRANSFORMER_LENS_3_NEXT_SENTENCE
        else:
            unused.append(r"(pooler|nsp_head)\..*")
        for key in [key for key in weights if re.fullmatch("|".join(unused), key.removeprefix(prefix))]:
            del weights[key]
    for theirs, ours in renamed.items():
        if f"{prefix}{theirs}" in weights:
            weights[f"{prefix}{ours}"] = weights.pop(f"{prefix}{theirs}")


def _complete_tied(model: HookedEncoder, weights: dict[str, Tensor], prefix: str, *args: object) -> None:
    complete_tied(weights, f"{prefix}blocks.", model.cfg.tied_to)


def _sync_after_loading(model: HookedEncoder, keys: object) -> None:
    # Loading with `assign` gives each block parameters of its own.
    tie(model.blocks, model.cfg.tied_to)
    model._sync_config()


def _under_name(name: str, save: Callable[..., None]) -> Callable[..., None]:
    """A TransformerLens caching hook that stores the activation under `name` instead of the hook point's name."""

    def save_under_name(activation: Tensor, hook: HookPoint) -> None:
        save(activation, hook=SimpleNamespace(name=name))

    return save_under_name
