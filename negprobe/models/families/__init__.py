"""The supported families of models, one file each."""

from negprobe.models.families.albert import ALBERT
from negprobe.models.families.bert import BERT
from negprobe.models.families.data2vec import DATA2VEC
from negprobe.models.families.deberta import DEBERTA, DEBERTA_V2
from negprobe.models.families.distilbert import DISTILBERT
from negprobe.models.families.electra import ELECTRA
from negprobe.models.families.ernie import ERNIE
from negprobe.models.families.eurobert import EUROBERT
from negprobe.models.families.family import Family, Weights
from negprobe.models.families.gte import GTE
from negprobe.models.families.jina_v3 import JINA_V3
from negprobe.models.families.megatron_bert import MEGATRON_BERT
from negprobe.models.families.modernbert import MODERNBERT
from negprobe.models.families.mpnet import MPNET
from negprobe.models.families.nomic_bert import NOMIC_BERT
from negprobe.models.families.pre_norm_roberta import PRE_NORM_ROBERTA, XLM_ROBERTA_XL
from negprobe.models.families.roberta import ROBERTA

_ALL = (
    *(BERT, DISTILBERT, ROBERTA, ELECTRA, MPNET, ALBERT, DEBERTA, DEBERTA_V2),
    *(NOMIC_BERT, GTE, JINA_V3, MODERNBERT, EUROBERT),
    *(ERNIE, DATA2VEC, MEGATRON_BERT, PRE_NORM_ROBERTA, XLM_ROBERTA_XL),
)

FAMILIES = {family.name: family for family in _ALL}
"""The families by name."""

FAMILY_OF = {model_type: family for family in FAMILIES.values() for model_type in family.model_types}
"""The family of each supported `model_type`."""

__all__ = ["FAMILIES", "FAMILY_OF", "Family", "Weights"]
