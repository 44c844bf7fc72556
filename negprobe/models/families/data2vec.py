"""Data2vec for text, which is a RoBERTa. Baevski et al. 2022, "data2vec"."""

from dataclasses import replace
from functools import partial

from negprobe.models.families.bert_like import weights_of
from negprobe.models.families.family import Family
from negprobe.models.families.roberta import NAMES, roberta_settings

DATA2VEC = Family(
    name="data2vec-text",
    model_types=("data2vec-text",),
    prefixes=("Data2VecText",),
    settings=roberta_settings,
    weights=partial(weights_of, replace(NAMES, prefix="data2vec_text")),
    unused_poolers=("Data2VecTextModel",),
    counts_from_padding=True,
)
