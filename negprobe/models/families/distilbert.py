"""DistilBERT."""

from functools import partial
from typing import Any

from negprobe.models.config import Head
from negprobe.models.families.bert_like import Names, weights_of
from negprobe.models.families.family import Family

NAMES = Names(
    prefix="distilbert",
    blocks="transformer.layer",
    attention_q="attention.q_lin",
    attention_k="attention.k_lin",
    attention_v="attention.v_lin",
    attention_out="attention.out_lin",
    ln1="sa_layer_norm",
    mlp_in="ffn.lin1",
    mlp_out="ffn.lin2",
    ln2="output_layer_norm",
    lm_dense="vocab_transform",
    lm_ln="vocab_layer_norm",
    lm_decoder="vocab_projector",
    lm_act=None,
    class_dense="pre_classifier",
    class_out="classifier",
    class_act="relu",
)


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return {
        "d_mlp": hf_config.hidden_dim,
        "n_ctx": hf_config.max_position_embeddings,
        "eps": 1e-12,
        "act_fn": hf_config.activation,
        "head_act": NAMES.class_act if head == "classification" else hf_config.activation,
    }


DISTILBERT = Family(
    name="distilbert",
    model_types=("distilbert",),
    prefixes=("DistilBert",),
    settings=_settings,
    weights=partial(weights_of, NAMES),
)
