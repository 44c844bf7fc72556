"""What a `HookedEncoder` has to know about its architecture."""

from dataclasses import dataclass
from typing import Literal, get_args

from transformer_lens.config import TransformerLensConfig

Head = Literal["masked_lm", "classification", "none"]
Pooling = Literal["mean", "cls"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)


@dataclass
class HookedEncoderConfig(TransformerLensConfig):
    """TransformerLens's configuration, with what only encoders have.

    Attributes:
        model_name: The name or folder the model came from.
        family: The architecture: "bert", "distilbert", "roberta" or "electra".
        head: What stands on the last block: a masked LM, a classifier, or nothing (a pooled embedding).
        d_embed: Width of the embeddings before they are projected to `d_model` (ELECTRA), else `d_model`.
        n_token_types: Number of token types (segments); 0 where the family has none.
        pad_token_id: The token that is masked wherever it stands.
        first_position: Index of the first position embedding (RoBERTa counts from `pad_token_id + 1`).
        head_act: Activation inside the head.
        labels: The classifier's label names, in the order of its logits.
        problem_type: What the classifier's logits say about its labels, as its config.json has it; None where that
            says nothing (see `labels.label_function`).
        pooling: How the last hidden states become one embedding where there is no head.
        normalize: Whether that embedding is scaled to length 1.
    """

    model_name: str = ""
    family: str = "bert"
    head: Head = "none"
    d_embed: int = 0
    n_token_types: int = 0
    pad_token_id: int = 0
    first_position: int = 0
    head_act: str = "gelu"
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    pooling: Pooling = "mean"
    normalize: bool = False
