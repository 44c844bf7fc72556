"""The supported families of models, one file each."""

from negprobe.models.families.bert import BERT
from negprobe.models.families.deberta import DEBERTA, DEBERTA_V2
from negprobe.models.families.distilbert import DISTILBERT
from negprobe.models.families.electra import ELECTRA
from negprobe.models.families.family import Family, Weights
from negprobe.models.families.modernbert import MODERNBERT
from negprobe.models.families.mpnet import MPNET
from negprobe.models.families.roberta import ROBERTA

FAMILIES = {
    family.name: family for family in (BERT, DISTILBERT, ROBERTA, ELECTRA, MPNET, MODERNBERT, DEBERTA, DEBERTA_V2)
}
"""The families by name."""

FAMILY_OF = {model_type: family for family in FAMILIES.values() for model_type in family.model_types}
"""The family of each supported `model_type`."""

__all__ = ["FAMILIES", "FAMILY_OF", "Family", "Weights"]
