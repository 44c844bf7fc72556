"""Alignment of a statement's tokens with those of its counterfactual, where words were added, removed or replaced."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.tokens import TokenizedStatement

Match = tuple[int, int]

# Most cells of the table of edit costs; a larger one takes seconds and hundreds of megabytes.
_MOST_CELLS = 2**20


@dataclass(frozen=True)
class Alignment:
    """The corresponding positions of two tokenized statements, in ascending order.

    Attributes:
        original: Aligned positions of the original; the i-th corresponds to the i-th of `counterfactual`.
        counterfactual: Aligned positions of the counterfactual.
        unmatched_original: Positions of the original that correspond to no token of the counterfactual.
        unmatched_counterfactual: Positions of the counterfactual that correspond to no token of the original, such as
            that of an inserted cue.
    """

    original: tuple[int, ...]
    counterfactual: tuple[int, ...]
    unmatched_original: tuple[int, ...]
    unmatched_counterfactual: tuple[int, ...]


@checked
def align(original: TokenizedStatement, counterfactual: TokenizedStatement) -> Alignment:
    """The alignment of the tokens of two statements.

    Equal tokens are matched by `match_equal`. The tokens between two matches were replaced: if both statements have the
    same number of them, they are aligned one by one ("now" with "not"); otherwise all of them are unmatched ("is" and
    "isn ' t"). Special tokens are aligned only with special tokens.

    Raises:
        StatementError: if the statements differ over too many tokens (see `match_equal`).

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import align, tokenize
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> door = tokenize("The door is open.", tokenizer)
        >>> align(door, tokenize("The door is not open.", tokenizer)).unmatched_counterfactual
        (4,)
    """
    matches = match_equal(_keys(original), _keys(counterfactual))
    aligned: list[Match] = []
    i, j = 0, 0
    for match in [*matches, (len(original), len(counterfactual))]:
        # The tokens between the previous match and this one were replaced.
        if (i, j) != match:
            left, right = slice(i, match[0]), slice(j, match[1])
            if original.special[left] == counterfactual.special[right]:
                aligned += zip(range(i, match[0]), range(j, match[1]), strict=True)
        aligned.append(match)
        i, j = match[0] + 1, match[1] + 1
    aligned.pop()  # the position after the last token of both
    of_original, of_counterfactual = {i for i, _ in aligned}, {j for _, j in aligned}
    return Alignment(
        original=tuple(i for i, _ in aligned),
        counterfactual=tuple(j for _, j in aligned),
        unmatched_original=tuple(i for i in range(len(original)) if i not in of_original),
        unmatched_counterfactual=tuple(j for j in range(len(counterfactual)) if j not in of_counterfactual),
    )


def match_equal(first: Sequence[Any], second: Sequence[Any]) -> list[Match]:
    """Pairs of positions of equal items in two sequences, in ascending order.

    They are the items that a minimum edit distance alignment (insertion, deletion and replacement cost 1) leaves
    unchanged. Of several such alignments, the one with the fewest separate runs of edits is taken; of those, the one
    that matches the common end of both sequences, and then the one that matches earliest. Swapping the sequences swaps
    the positions.

    Raises:
        StatementError: if the table of edit costs for the part in which the sequences differ would be too large.

    Example:
        >>> from negprobe.statements.alignment import match_equal
        >>> match_equal("the door is open".split(), "the door is not open".split())
        [(0, 0), (1, 1), (2, 2), (3, 4)]
    """
    if (len(first), tuple(first)) > (len(second), tuple(second)):
        return [(i, j) for j, i in match_equal(second, first)]
    # Some minimum alignment matches the common beginning and end, which are most of a minimal pair.
    shortest = min(len(first), len(second))
    begin = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    end = next((k for k in range(shortest - begin) if first[-1 - k] != second[-1 - k]), shortest - begin)
    n, m = len(first) - end, len(second) - end
    if (n - begin) * (m - begin) > _MOST_CELLS:
        raise StatementError(
            f"Two statements of {len(first)} and {len(second)} words or tokens differ over {n - begin} and {m - begin} "
            f"of them; alignment supports differences over about {isqrt(_MOST_CELLS)} at most. Shorten the statements."
        )
    middle = _cheapest_matches(first[begin:n], second[begin:m]) if n > begin and m > begin else []
    return [
        *((i, i) for i in range(begin)),
        *((begin + i, begin + j) for i, j in middle),
        *((n + k, m + k) for k in range(end)),
    ]


def _cheapest_matches(first: Sequence[Any], second: Sequence[Any]) -> list[Match]:
    cost = _edit_costs(first, second)
    matches, i, j, editing = [], 0, 0, False
    while i < len(first) and j < len(second):
        if first[i] == second[j] and cost[editing][i][j] == cost[False][i + 1][j + 1]:
            matches.append((i, j))
            i, j, editing = i + 1, j + 1, False
            continue
        steps = [(i + 1, j + 1), (i, j + 1), (i + 1, j)]
        i, j = min(steps, key=lambda step: cost[True][step[0]][step[1]])
        editing = True
    return matches


def _edit_costs(first: Sequence[Any], second: Sequence[Any]) -> list[list[list[tuple[int, int]]]]:
    """`[editing][i][j]`: the fewest edits between `first[i:]` and `second[j:]`, and the number of runs they start.

    `editing` is whether the previous step was an edit, in which case another edit starts no new run.
    """
    n, m = len(first), len(second)
    # The extra row and column at the end mean "not possible".
    impossible = (n + m + 1, 0)
    cost = [[[impossible] * (m + 2) for _ in range(n + 2)] for _ in (False, True)]
    for i in range(n, -1, -1):
        for j in range(m, -1, -1):
            if i == n and j == m:
                cost[False][i][j] = cost[True][i][j] = (0, 0)
                continue
            edits, runs = min(cost[True][i + 1][j + 1], cost[True][i + 1][j], cost[True][i][j + 1])
            match = cost[False][i + 1][j + 1] if i < n and j < m and first[i] == second[j] else impossible
            cost[True][i][j] = min(match, (edits + 1, runs))
            cost[False][i][j] = min(match, (edits + 1, runs + 1))
    return cost


def _keys(statement: TokenizedStatement) -> list[tuple[bool, int]]:
    return list(zip(statement.special, statement.ids, strict=True))
