"""The built-in pairs: sentences of the grammar about combinations of noun and scale that training never shows."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import cycle, islice

from negprobe.base.arguments import checked
from negprobe.base.reprs import Listed
from negprobe.statements import grammar
from negprobe.statements.grammar import CONTROLS, FRAME_CUES, INNER_CUES, NEGATIONS, PLAIN, UNMARKED, Clause
from negprobe.statements.lexicon import Combination, held_out_combinations
from negprobe.statements.pair import Span, StatementPair

_SINGLES_PER_COMBINATION = 3


@cache
def _pairs() -> tuple[StatementPair, ...]:
    return (*_single_clause_pairs(), *_two_clause_pairs(), *_framed_pairs())


@checked
def builtin_pairs() -> list[StatementPair]:
    """Minimal pairs with target, foil and control for a masked language model, the same ones on every call.

    They cover every kind of cue in `grammar.NEGATIONS` and every scale of the lexicon. The word at [MASK] is one of the
    two states in the pair's category: "The door is open. So the door is [MASK]." Three quarters have one clause. The
    others have two clauses and a cue in one of them, or put the clause, negated or not, into a frame such as "it is not
    true that". Every word is a single token of BERT's English vocabulary, so that every English BERT knows it. Pairs
    about one noun form a cluster.

    The controls are those of the grammar and not those that `complete` finds, because the model was trained on such
    words: "is always open" for "is never open" asserts the same state as "is open", which is all that the answer at
    [MASK] depends on.

    Example:
        >>> from negprobe import builtin_pairs
        >>> pair = builtin_pairs()[0]
        >>> pair.counterfactual, pair.target, pair.foil
        ('The window was not clean. So the window was [MASK].', 'clean', 'dirty')
    """
    return Listed(_pairs())


def _single_clause_pairs() -> Iterator[StatementPair]:
    """ "The door is open." and "The door is not open.": three pairs per combination, cycling through the cues."""
    cues = cycle(NEGATIONS)
    for number, combination in enumerate(held_out_combinations()):
        for turn, cue in enumerate(islice(cues, _SINGLES_PER_COMBINATION)):
            clause = _clause(combination, state=number + turn, past=number % 3 == 0 and cue != "cannot")
            yield _pair(cue, *_negated(clause, cue), write=grammar.conclusion)


def _two_clause_pairs() -> Iterator[StatementPair]:
    """ "The bath is hot and the door is not open.": every second combination, together with another one."""
    combinations = held_out_combinations()
    cues = cycle(NEGATIONS)
    for number, combination in enumerate(combinations):
        if number % 2 == 0:
            continue
        following = (*combinations[number + 1 :], *combinations)
        other = next(candidate for candidate in following if candidate.noun != combination.noun)
        other_clause = _clause(other, state=number // 4)
        write = partial(_two_clauses, other_clause, first=number % 4 == 1, connective=grammar.CONNECTIVES[number % 3])
        cue = next(cues)
        yield _pair(cue, *_negated(_clause(combination, state=number // 2), cue), write=write)


def _framed_pairs() -> Iterator[StatementPair]:
    """ "It is not true that the door is open." and double negations, for the other combinations."""
    inner_cues = cycle(INNER_CUES)
    for number, combination in enumerate(held_out_combinations()[::2]):
        clause = _clause(combination, state=number // 2)
        cue = FRAME_CUES[number // 3 % len(FRAME_CUES)]
        inner = clause.stating(NEGATIONS[next(inner_cues)])
        changed = {
            0: _denied(clause, cue),
            1: _denied(inner, cue),
            2: _negated(clause.framed(NEGATIONS["not"]), cue),
        }[number % 3]
        yield _pair(cue, *changed, write=grammar.conclusion)


def _clause(combination: Combination, *, state: int, past: bool = False) -> Clause:
    return Clause(combination.noun, combination.scale, combination.scale.states[state % 2], past=past)


def _negated(clause: Clause, cue: str) -> tuple[Clause, Clause, Clause]:
    """Original, counterfactual and control, with the cue before the state."""
    return clause.stating(UNMARKED[cue]), clause.stating(NEGATIONS[cue]), clause.stating(CONTROLS[cue])


def _denied(clause: Clause, cue: str) -> tuple[Clause, Clause, Clause]:
    """Original, counterfactual and control, with the cue in "it is not true that"."""
    return clause.framed(PLAIN), clause.framed(NEGATIONS[cue]), clause.framed(CONTROLS[cue])


def _two_clauses(other: Clause, clause: Clause, *, first: bool, connective: str) -> str:
    """A statement of two clauses whose conclusion is about `clause`, which comes first or second."""
    clauses = (clause, other) if first else (other, clause)
    return grammar.conclusion(*clauses, about=0 if first else 1, connective=connective)


def _pair(
    cue: str, original: Clause, counterfactual: Clause, control: Clause, *, write: Callable[[Clause], str]
) -> StatementPair:
    """The pair of two clauses that differ by `cue`; `write` makes a statement of a clause."""
    text = write(counterfactual)
    start = text.lower().index(counterfactual.text)
    cue_start, state_start = _starts(cue, original, counterfactual)
    return StatementPair(
        original=write(original),
        counterfactual=text,
        target=original.truth,
        foil=counterfactual.truth,
        control=write(control),
        cue=cue,
        cue_spans=(_span(start + cue_start, cue),),
        affected_spans=(_span(start + state_start, counterfactual.state),),
        category=counterfactual.scale.name,
        source="built-in",
        cluster=counterfactual.noun,
    )


def _starts(cue: str, original: Clause, counterfactual: Clause) -> tuple[int, int]:
    """The offsets in the counterfactual clause at which the changed cue and the state start."""
    text = counterfactual.text
    # A frame begins the clause; a phrase ends at the state.
    state = len(text) - len(counterfactual.state)
    return (text.index(cue) if original.frame != counterfactual.frame else text.rindex(cue, 0, state)), state


def _span(start: int, word: str) -> Span:
    return start, start + len(word)
