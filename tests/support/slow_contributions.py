"""The measures of a whole layer, computed slowly from Hugging Face's own weights, activations and submodules."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SlowLayer:
    """One layer of one text, without padding: what goes in, what comes out, and a vector for every two tokens.

    `T[q, k]` is what token k writes into token q through all heads, `x` the layer's input, `resid_mid` and `resid_post`
    the sums after attention and after the MLP, `out` its output, and `zeroed` gives the output of the layer run again
    with one token's values replaced by zeros. The norms of a pre-norm layer do not act on the sums.
    """

    module: nn.Module
    A: Tensor
    T: Tensor
    x: Tensor
    resid_mid: Tensor
    resid_post: Tensor
    out: Tensor
    zeroed: Callable[[int], Tensor]
    is_pre: bool = False

    @property
    def ln1(self):
        is_bert = hasattr(self.module, "attention")
        return self.module.attention.output.LayerNorm if is_bert else self.module.post_attention_layernorm

    @property
    def ln2(self):
        return self.module.output.LayerNorm if hasattr(self.module, "attention") else self.module.post_mlp_layernorm


@torch.no_grad()
def slow_layers(model, inputs, include_bias=True):
    """Every layer of a BERT of Hugging Face's on one text, its linear maps cut into heads by hand."""
    out = model(**inputs, output_attentions=True, output_hidden_states=True)
    layers = []
    for index, module in enumerate(model.encoder.layer):
        x, A = out.hidden_states[index][0], out.attentions[index][0]
        attention = module.attention
        v = attention.self.value(x) - (0 if include_bias else attention.self.value.bias)
        size = v.shape[-1] // len(A)
        T = torch.zeros(len(x), len(x), x.shape[-1], dtype=x.dtype)
        z = []
        for head in range(len(A)):
            part = slice(head * size, (head + 1) * size)
            f = v[:, part] @ attention.output.dense.weight[:, part].T
            T += A[head][:, :, None] * f[None]
            z.append(A[head] @ attention.self.value(x)[:, part])
        resid_mid = x + attention.output.dense(torch.cat(z, dim=-1))
        h1 = attention.output.LayerNorm(resid_mid)
        resid_post = h1 + module.output.dense(module.intermediate(h1))
        zeroed = with_zeroed_values(module, attention.self.value, slice(None), (x[None],), {})
        layers.append(SlowLayer(module, A, T, x, resid_mid, resid_post, out.hidden_states[index + 1][0], zeroed))
    return layers


@torch.no_grad()
def slow_modernbert_layers(model, inputs, include_bias=True):
    """The same of a ModernBERT, whose queries, keys and values are rows of one map."""
    given = {}

    def keep(module, args, kwargs, output):
        given[module] = (args, kwargs, output)

    handles = [module.register_forward_hook(keep, with_kwargs=True) for module in model.layers]
    attentions = model(**inputs, output_attentions=True).attentions
    for handle in handles:
        handle.remove()
    layers = []
    for A, module in zip(attentions, model.layers, strict=True):
        args, kwargs, output = given[module]
        x, A, attn = args[0][0], A[0], module.attn
        width = x.shape[-1]
        values = slice(2 * width, 3 * width)
        written = attn.Wqkv(module.attn_norm(x))[:, values]
        v = written if include_bias or attn.Wqkv.bias is None else written - attn.Wqkv.bias[values]
        size = width // len(A)
        T, z = torch.zeros(len(x), len(x), width, dtype=x.dtype), []
        for head in range(len(A)):
            part = slice(head * size, (head + 1) * size)
            T += A[head][:, :, None] * (v[:, part] @ attn.Wo.weight[:, part].T)[None]
            z.append(A[head] @ written[:, part])
        resid_mid = x + attn.Wo(torch.cat(z, dim=-1))
        resid_post = resid_mid + module.mlp(module.mlp_norm(resid_mid))
        zeroed = with_zeroed_values(module, attn.Wqkv, values, args, kwargs)
        layers.append(SlowLayer(module, A, T, x, resid_mid, resid_post, output[0], zeroed, is_pre=True))
    return layers


@torch.no_grad()
def slow_rotary_layers(model, inputs, include_bias=True):
    """The same of a NomicBERT, GTE, jina-embeddings-v3 or, with norms before attention and the MLP, EuroBERT."""
    given = {}

    def keep(module, args, kwargs, output):
        given[module] = (args, kwargs, output)

    handles = [module.register_forward_hook(keep, with_kwargs=True) for module in model.layers]
    attentions = model(**inputs, output_attentions=True).attentions
    for handle in handles:
        handle.remove()
    layers = []
    for A, module in zip(attentions, model.layers, strict=True):
        args, kwargs, output = given[module]
        x, A, attn = args[0][0], A[0], module.self_attn
        is_pre = hasattr(module, "input_layernorm")
        written = attn.v_proj(module.input_layernorm(x) if is_pre else x)
        v = written if include_bias or attn.v_proj.bias is None else written - attn.v_proj.bias
        size = attn.o_proj.in_features // len(A)
        heads_per_group = len(A) * size // v.shape[-1]
        T, z = torch.zeros(len(x), len(x), x.shape[-1], dtype=x.dtype), []
        for head in range(len(A)):
            part, group = (slice(n * size, (n + 1) * size) for n in (head, head // heads_per_group))
            T += A[head][:, :, None] * (v[:, group] @ attn.o_proj.weight[:, part].T)[None]
            z.append(A[head] @ written[:, group])
        resid_mid = x + attn.o_proj(torch.cat(z, dim=-1))
        normed = module.post_attention_layernorm(resid_mid)
        resid_post = (resid_mid if is_pre else normed) + module.mlp(normed)
        zeroed = with_zeroed_values(module, attn.v_proj, slice(None), args, kwargs)
        out = output if isinstance(output, Tensor) else output[0]
        layers.append(SlowLayer(module, A, T, x, resid_mid, resid_post, out[0], zeroed, is_pre))
    return layers


def with_zeroed_values(layer, linear, columns, args, kwargs):
    """Runs a layer again with one token's values replaced by zeros in the output of the map that computes them."""

    @torch.no_grad()
    def zeroed(t):
        def zero(module, inputs, output):
            output = output.clone()
            output[:, t, columns] = 0
            return output

        handle = linear.register_forward_hook(zero)
        output = layer(*args, **kwargs)
        handle.remove()
        return output[0] if isinstance(output, Tensor) else output[0][0]

    return zeroed


def g(layer_norm, summand, whole):
    """One summand's part in a LayerNorm's output at the input `whole` (Kobayashi et al. 2021), without the bias."""
    deviation = torch.sqrt(((whole - whole.mean()) ** 2).mean() + layer_norm.eps)
    return (summand - summand.mean()) / deviation * layer_norm.weight.detach()


def slow_all_heads_norm(layer):
    return layer.T.norm(dim=-1)


def parts(layer, both=False):
    """`g(T_qk + δ_qk x_q)` of every two tokens, through the first LayerNorm, both, or if pre-norm none."""
    n = len(layer.x)
    vectors = torch.zeros_like(layer.T)
    for q in range(n):
        for k in range(n):
            part = layer.T[q, k] + (layer.x[q] if q == k else 0)
            if not layer.is_pre:
                part = g(layer.ln1, part, layer.resid_mid[q])
                part = g(layer.ln2, part, layer.resid_post[q]) if both else part
            vectors[q, k] = part
    return vectors


def slow_residual(layer, both=False):
    return parts(layer, both).norm(dim=-1)


def slow_mixing_ratio(layer, both=False):
    ratios = []
    for q, row in enumerate(parts(layer, both)):
        context = torch.stack([part for k, part in enumerate(row) if k != q]).sum(dim=0).norm()
        ratios.append(context / (context + row[q].norm()))
    return torch.stack(ratios)


@torch.no_grad()
def slow_zeroing(layer):
    """The layer run again for every token, its output for that token's values replaced by zeros."""
    columns = [1 - F.cosine_similarity(layer.zeroed(t), layer.out, dim=-1) for t in range(len(layer.x))]
    return torch.stack(columns, dim=-1)


def slow_rollout(layers):
    product = torch.eye(len(layers[0].x), dtype=layers[0].x.dtype)
    products = []
    for layer in layers:
        product = (0.5 * layer.A.mean(dim=0) + 0.5 * torch.eye(len(product))) @ product
        products.append(product)
    return torch.stack(products)


def slow_globenc(layers):
    product = torch.eye(len(layers[0].x), dtype=layers[0].x.dtype)
    products = []
    for layer in layers:
        product = slow_residual(layer, both=True) @ product
        products.append(product / product.sum(dim=-1, keepdim=True))
    return torch.stack(products)
