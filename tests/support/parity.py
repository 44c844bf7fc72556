"""How far our model's numbers are from Hugging Face's, where tokens are real."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from negprobe import HookedEncoder
from tests.support import tiny_models
from tests.support.tiny_models import largest_difference


@torch.no_grad()
def differences(theirs: PreTrainedModel, ours: HookedEncoder, inputs: dict[str, Tensor], head: str) -> dict[str, float]:
    """The largest differences of the output, of the embeddings' sum and every block's output, and of every pattern."""
    real = inputs["attention_mask"].bool()
    expected = theirs(**inputs, output_hidden_states=True, output_attentions=True)
    output, cache = ours.run_with_cache(
        inputs["input_ids"],
        token_type_ids=inputs.get("token_type_ids"),
        one_zero_attention_mask=inputs["attention_mask"],
    )
    plain = ours(inputs["input_ids"], "logits", inputs.get("token_type_ids"), inputs["attention_mask"])
    wanted = tiny_models.hf_output(theirs, head, inputs)
    outputs = []
    for got in (output, plain):
        assert got.dtype == wanted.dtype
        at_real = (got[real], wanted[real]) if head == "masked_lm" else (got, wanted)
        outputs.append(largest_difference(*at_real))
    states = [cache["hook_full_embed"], *tiny_models.block_outputs(cache, ours.cfg.n_layers)]
    # Hugging Face's last state is the one after the last norm.
    states[-1] = ours.ln_final.normalized(states[-1])
    patterns = [cache["pattern", layer].transpose(1, 2)[real] for layer in range(ours.cfg.n_layers)]
    attentions = [attention.transpose(1, 2)[real] for attention in expected.attentions]
    return {
        "output": max(outputs),
        "states": _largest(states, expected.hidden_states, real),
        "patterns": max(largest_difference(a, b) for a, b in zip(patterns, attentions, strict=True)),
    }


def _largest(mine: list[Tensor], theirs: list[Tensor], real: Tensor) -> float:
    return max(largest_difference(a[real], b[real]) for a, b in zip(mine, theirs, strict=True))
