"""`PreparedPair`: a pair tokenized, aligned and with roles, made once and used by every measurement of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.alignment import Alignment, align, align_by_position, alignment_of
from negprobe.statements.completion import complete
from negprobe.statements.controls import from_control, is_from_control
from negprobe.statements.gap_tokens import gap_token
from negprobe.statements.neutral_words import end_with_one
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.token_roles import changed_positions, original_roles, roles, with_changed
from negprobe.statements.tokens import TokenizedStatement, tokenize_all


@dataclass(frozen=True)
class Swap:
    """The two statements of a pair that patching swaps activations between, tokenized, aligned and with roles.

    One statement is the counterfactual. The other is the original or, in the variant made from a control, the control.

    Attributes:
        pair: The pair, with its cues found. In a swap with the control, its `original` is the control's text.
        statements: The original or the control, and the counterfactual.
        alignment: The alignment of the first with the second.
        roles: The role of each token of each statement.
        gap_tokens: The token of a word at the [MASK] of a statement (see `gap_tokens.gap_token`), by the text of the
            statement and the word. Words that are not included are looked up when they are needed.
    """

    pair: StatementPair
    statements: tuple[TokenizedStatement, TokenizedStatement]
    alignment: Alignment
    roles: tuple[tuple[str, ...], tuple[str, ...]]
    gap_tokens: Mapping[tuple[str, str], int | None] = field(default_factory=dict)

    @property
    def original(self) -> str:
        """The text of the original or the control."""
        return self.pair.original

    @property
    def counterfactual(self) -> str:
        """The text of the counterfactual."""
        return self.pair.counterfactual


Swappable = StatementPair | Swap
"""What patching takes: a pair, or one that was prepared before."""


@dataclass(frozen=True)
class PreparedPair:
    """A pair for one tokenizer: its statements tokenized, their tokens aligned, and their roles assigned.

    Attributes:
        pair: The pair, with its cues found.
        sides: The original, the counterfactual and, if the pair has a valid one (see `control_problem`), the control.
        alignments: The alignment of the original with each other side, restricted to the original's tokens that are
            matched in all of them.
        roles: The role of each token of the original and of the counterfactual. Those of the counterfactual also apply
            to the control, which has the same positions.
        cue: Positions of the cue in the counterfactual; in the control, the neutral words are at these positions.
        missing: Why some metrics of the pair are undefined; empty if all are defined.
    """

    pair: StatementPair
    sides: tuple[TokenizedStatement, ...]
    alignments: tuple[Alignment, ...]
    roles: tuple[tuple[str, ...], tuple[str, ...]]
    cue: tuple[int, ...]
    missing: str

    def __len__(self) -> int:
        """The number of tokens of the longest side."""
        return max(map(len, self.sides))

    @property
    def affected_is_aligned(self) -> bool | None:
        """Whether a token of an affected word is aligned with the original; None for a pair without such a word.

        Without an aligned token, the metrics of the role "affected" on aligned tokens are undefined.
        """
        affected = {at for span in self.pair.affected_spans for at in self.sides[1].positions(span)}
        return not affected.isdisjoint(self.alignments[0].counterfactual) if affected else None


def aligned_pair(
    pair: StatementPair, sides: Sequence[TokenizedStatement], tokenizer: PreTrainedTokenizerBase
) -> PreparedPair:
    """The sides of a completed pair (original, counterfactual and, if it is measured, control), aligned and with roles.

    Raises:
        StatementError: if a span of the pair contains no token.
    """
    counterfactual = sides[1]
    missing = []
    if sides[0].ids == counterfactual.ids:
        missing.append("the two statements are the same")
    if not pair.cue_spans:
        missing.append("no cue that the counterfactual has and the original lacks")
    if not pair.control:
        missing.append("no control")
    elif len(sides) == 3 and (problem := control_problem(pair, counterfactual, sides[2])):
        missing.append(problem)
        sides = sides[:2]
    whole = [align(sides[0], side) for side in sides[1:]]
    alignments = on_common_tokens(whole)
    if not any(not counterfactual.special[j] for j in alignments[0].counterfactual):
        missing.append("no word of the original is aligned")
    prepared = PreparedPair(
        pair=pair,
        sides=tuple(sides),
        alignments=tuple(alignments),
        roles=_roles(pair, sides[0], counterfactual, whole[0], tokenizer),
        cue=tuple(sorted({at for span in pair.cue_spans for at in counterfactual.positions(span)})),
        missing="",
    )
    if prepared.affected_is_aligned is False:
        missing.append("the affected word is not aligned")
    return replace(prepared, missing="; ".join(missing))


@checked
def prepare(pair: StatementPair, tokenizer: PreTrainedTokenizerBase, *, n_ctx: int) -> tuple[PreparedPair, str]:
    """A pair prepared for measuring, with its control if that is valid, and the reason why its own control is not.

    A pair without a valid control gets one that is found, if there is one (see `complete`).

    Args:
        pair: The pair, as the model reads it (see `readable_by`).
        tokenizer: The model's tokenizer.
        n_ctx: The largest number of tokens that the model reads.

    Raises:
        StatementError: for a statement that cannot be tokenized or is longer than `n_ctx`, and for two statements with
            the same tokens.
    """
    statements = tokenize_all([pair.original, pair.counterfactual], tokenizer)
    if statements[0].ids == statements[1].ids:
        raise StatementError("to this model the two statements are the same")
    longest = max(map(len, statements))
    # Before the search for cues and controls, which takes minutes on a statement that is much too long.
    if longest > n_ctx:
        raise StatementError(f"{longest} tokens, more than the {n_ctx} the model reads")
    completed = complete(pair, tokenizer)
    sides = statements + tokenize_all([completed.control] if completed.control else [], tokenizer)
    problem = control_problem(completed, *sides[1:]) if completed.control else ""
    if problem:
        completed = complete(replace(completed, control=None), tokenizer)
        sides = statements + tokenize_all([completed.control] if completed.control else [], tokenizer)
    return aligned_pair(completed, sides, tokenizer), problem


@checked
def control_swap(pair: StatementPair, tokenizer: PreTrainedTokenizerBase) -> Swap:
    """The swap of a pair with its control or, if it has none, with its original; with the tokens of target and foil.

    Args:
        pair: The pair, as the model reads it (see `readable_by`), completed.
        tokenizer: The model's tokenizer.

    Raises:
        StatementError: for a statement that cannot be tokenized, or a span that contains no token.
    """
    swapped = from_control(pair)
    other, counterfactual = tokenize_all([swapped.original, swapped.counterfactual], tokenizer)
    words = [word for word in (pair.target, pair.foil) if word]
    tokens = {
        (statement.text, word): gap_token(statement, word, tokenizer)
        for statement in (other, counterfactual)
        if statement.ids.count(tokenizer.mask_token_id) == 1
        for word in words
    }
    return replace(aligned_swap(complete(swapped), other, counterfactual, tokenizer), gap_tokens=tokens)


def aligned_swap(
    pair: StatementPair,
    other: TokenizedStatement,
    counterfactual: TokenizedStatement,
    tokenizer: PreTrainedTokenizerBase,
) -> Swap:
    """The swap of a pair whose cues are found and whose original is `other`.

    A valid control (see `control_problem`) is aligned by position, whatever its neutral words are.

    Raises:
        StatementError: for a span that contains no token.
    """
    by_position = is_from_control(pair) and not control_problem(pair, counterfactual, other)
    alignment = (align_by_position if by_position else align)(other, counterfactual)
    return Swap(pair, (other, counterfactual), alignment, _roles(pair, other, counterfactual, alignment, tokenizer))


def _roles(
    pair: StatementPair,
    original: TokenizedStatement,
    counterfactual: TokenizedStatement,
    alignment: Alignment,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The roles of the tokens of both statements, assigned in the counterfactual and transferred by the alignment.

    Without a cue, the words that differ have the role "changed".
    """
    names = roles(
        counterfactual, tokenizer, cue_spans=pair.cue_spans, affected_spans=pair.affected_spans, target=pair.target
    )
    both = original_roles(original, names, alignment, tokenizer, pair.target), names
    if pair.cue_spans:
        return both
    in_original, in_counterfactual = changed_positions(original, counterfactual, alignment)
    return with_changed(both[0], in_original), with_changed(both[1], in_counterfactual)


def control_problem(pair: StatementPair, counterfactual: TokenizedStatement, control: TokenizedStatement) -> str:
    """Why a control is not valid for the counterfactual; empty if it is.

    A valid control differs from the counterfactual only in the tokens of the words that contain a cue.
    """
    if len(control) != len(counterfactual):
        return f"the control has {len(control)} tokens and the counterfactual {len(counterfactual)}"
    differing = {at for at, (a, b) in enumerate(zip(counterfactual.ids, control.ids, strict=True)) if a != b}
    if not differing:
        return "the control is identical to the counterfactual"
    words = (_whole_words(counterfactual.text, span) for span in pair.cue_spans)
    if pair.cue_spans and not differing <= {at for span in words for at in counterfactual.positions(span)}:
        return "the control differs from the counterfactual in more than the cue"
    return ""


def _whole_words(text: str, span: Span) -> Span:
    """The span extended to the spaces around it, because the control of "isn't" is "is now really".

    "no one" counts as one word, of which "no" is the cue.
    """
    start, end = span[0], end_with_one(text, span)
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return start, end


def on_common_tokens(alignments: Sequence[Alignment]) -> list[Alignment]:
    """Alignments of the same original, restricted to the original's tokens that are matched in all of them."""
    common = set.intersection(*(set(alignment.original) for alignment in alignments))
    cut = []
    for alignment in alignments:
        if len(alignment.original) == len(common):
            cut.append(alignment)
            continue
        links = zip(alignment.original, alignment.counterfactual, alignment.kinds, strict=True)
        kept = [link for link in links if link[0] in common]
        unmatched = alignment.unmatched_original, alignment.unmatched_counterfactual
        cut.append(alignment_of(kept, *(len(alignment.original) + len(side) for side in unmatched)))
    return cut
