"""RoBERTas whose norms precede attention and the MLP: fairseq's pre-norm RoBERTa, and XLM-RoBERTa XL and XXL.

Goyal et al. 2021, "Larger-Scale Transformers for Multilingual Masked Language Modeling".
"""

from dataclasses import replace
from functools import partial
from typing import Any

from negprobe.models.config import Head
from negprobe.models.families.bert_like import weights_of
from negprobe.models.families.family import Family
from negprobe.models.families.roberta import NAMES, roberta_settings

_NAMES = replace(
    NAMES,
    prefix="roberta_prelayernorm",
    ln1="attention.LayerNorm",
    ln2="intermediate.LayerNorm",
    ln_final="LayerNorm",
)
_XL_NAMES = replace(NAMES, ln1="attention.self_attn_layer_norm", ln2="LayerNorm", ln_final="encoder.LayerNorm")


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return roberta_settings(hf_config, head) | {"norms": "pre"}


def _xl_settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return _settings(hf_config, head) | {"embed_norm": False}


PRE_NORM_ROBERTA = Family(
    name="roberta-prelayernorm",
    model_types=("roberta-prelayernorm",),
    prefixes=("RobertaPreLayerNorm",),
    settings=_settings,
    weights=partial(weights_of, _NAMES),
    unused_poolers=("RobertaPreLayerNormModel",),
    counts_from_padding=True,
)

XLM_ROBERTA_XL = Family(
    name="xlm-roberta-xl",
    model_types=("xlm-roberta-xl",),
    prefixes=("XLMRobertaXL",),
    settings=_xl_settings,
    weights=partial(weights_of, _XL_NAMES),
    unused_poolers=("XLMRobertaXLModel",),
    counts_from_padding=True,
)
