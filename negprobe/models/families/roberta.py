"""RoBERTa, XLM-RoBERTa and CamemBERT."""

from functools import partial
from typing import Any

from negprobe.models.config import Head
from negprobe.models.families.bert_like import Names, counting_from_padding, settings_of, weights_of
from negprobe.models.families.family import Family

NAMES = Names(
    prefix="roberta",
    lm_dense="lm_head.dense",
    lm_ln="lm_head.layer_norm",
    lm_decoder="lm_head.decoder",
    lm_act="gelu",
    class_dense="classifier.dense",
    class_out="classifier.out_proj",
    class_act="tanh",
)


def roberta_settings(hf_config: Any, head: Head) -> dict[str, Any]:
    """The settings of RoBERTa and its relatives, which count positions from the padding token's id."""
    return counting_from_padding(settings_of(NAMES, hf_config, head), hf_config.pad_token_id)


ROBERTA = Family(
    name="roberta",
    model_types=("roberta", "xlm-roberta", "camembert"),
    prefixes=("Roberta", "XLMRoberta", "Camembert"),
    settings=roberta_settings,
    weights=partial(weights_of, NAMES),
    unused_poolers=("RobertaModel", "XLMRobertaModel", "CamembertModel"),
    counts_from_padding=True,
)
