"""BERT."""

from functools import partial

from negprobe.models.families.bert_like import Names, settings_of, weights_of
from negprobe.models.families.family import Family

NAMES = Names(
    prefix="bert",
    lm_dense="cls.predictions.transform.dense",
    lm_ln="cls.predictions.transform.LayerNorm",
    lm_decoder="cls.predictions.decoder",
    lm_act=None,
    class_dense="bert.pooler.dense",
    class_out="classifier",
    class_act="tanh",
)

BERT = Family(
    name="bert",
    model_types=("bert",),
    prefixes=("Bert",),
    settings=partial(settings_of, NAMES),
    weights=partial(weights_of, NAMES),
    other_classes={"BertForPreTraining": "masked_lm"},
    unused_poolers=("BertModel",),
)
