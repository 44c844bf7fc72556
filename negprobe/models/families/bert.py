"""BERT."""

from dataclasses import replace
from functools import partial

from negprobe.models.config import HookedEncoderConfig
from negprobe.models.families.bert_like import Names, settings_of, weights_of
from negprobe.models.families.family import Family, Weights

NEXT_SENTENCE = ("isNext", "notNext")
"""The labels of next-sentence prediction: whether the second of two texts follows the first."""

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

_NEXT_SENTENCE_NAMES = replace(NAMES, class_out="cls.seq_relationship")


def _weights(source: Weights, cfg: HookedEncoderConfig) -> Weights:
    """The weights of a model with any of BERT's heads; that of next-sentence prediction is a classifier's."""
    is_next_sentence = cfg.head == "classification" and "cls.seq_relationship.weight" in source
    return weights_of(_NEXT_SENTENCE_NAMES if is_next_sentence else NAMES, source, cfg)


BERT = Family(
    name="bert",
    model_types=("bert",),
    prefixes=("Bert",),
    settings=partial(settings_of, NAMES),
    weights=_weights,
    other_classes={"BertForPreTraining": "masked_lm", "BertForNextSentencePrediction": "classification"},
    labels={"BertForNextSentencePrediction": NEXT_SENTENCE},
    unused_poolers=("BertModel",),
)
