"""Megatron-LM's BERT, whose norms precede attention and the MLP. Shoeybi et al. 2019, "Megatron-LM", section 5.3."""

from dataclasses import replace
from functools import partial
from typing import Any

from negprobe.models.config import Head
from negprobe.models.families.bert import NAMES
from negprobe.models.families.bert_like import settings_of, weights_of
from negprobe.models.families.family import Family

_NAMES = replace(NAMES, ln1="attention.ln", ln2="ln", ln_final="encoder.ln")


def _settings(hf_config: Any, head: Head) -> dict[str, Any]:
    return settings_of(_NAMES, hf_config, head) | {"norms": "pre", "embed_norm": False}


MEGATRON_BERT = Family(
    name="megatron-bert",
    model_types=("megatron-bert",),
    prefixes=("MegatronBert",),
    settings=_settings,
    weights=partial(weights_of, _NAMES),
    other_classes={"MegatronBertForPreTraining": "masked_lm"},
    unused_poolers=("MegatronBertModel",),
)
