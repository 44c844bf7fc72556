"""Which token of a statement is which of its counterfactual, when words came, went or changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.tokens import TokenizedStatement

Match = tuple[int, int]

# Items of one sequence times those of the other, where they differ: more take seconds and hundreds of megabytes.
_MOST_CELLS = 2**20


@dataclass(frozen=True)
class Alignment:
    """Positions of two tokenized statements that belong together, in order.

    Attributes:
        original: Aligned positions of the original, pairwise with `counterfactual`.
        counterfactual: Aligned positions of the counterfactual.
        unmatched_original: Positions that have no counterpart in the counterfactual.
        unmatched_counterfactual: Positions that have none in the original, such as an inserted cue's.
    """

    original: tuple[int, ...]
    counterfactual: tuple[int, ...]
    unmatched_original: tuple[int, ...]
    unmatched_counterfactual: tuple[int, ...]


@checked
def align(original: TokenizedStatement, counterfactual: TokenizedStatement) -> Alignment:
    """Align the tokens of two statements.

    Equal tokens are matched as `match_equal` says. What stands between two matches on either side is a
    replaced run: of equal length it is aligned token by token ("now" with "not"), otherwise all of it is
    unmatched ("is" and "isn ' t"). Special tokens are only ever aligned with special tokens.

    Raises:
        StatementError: as `match_equal`.
    """
    matches = match_equal(_keys(original), _keys(counterfactual))
    aligned: list[Match] = []
    i, j = 0, 0
    for match in [*matches, (len(original), len(counterfactual))]:
        # What stands before the match on either side was replaced.
        if (i, j) != match:
            left, right = slice(i, match[0]), slice(j, match[1])
            if original.special[left] == counterfactual.special[right]:
                aligned += zip(range(i, match[0]), range(j, match[1]), strict=True)
        aligned.append(match)
        i, j = match[0] + 1, match[1] + 1
    aligned.pop()  # the end of both
    of_original, of_counterfactual = {i for i, _ in aligned}, {j for _, j in aligned}
    return Alignment(
        original=tuple(i for i, _ in aligned),
        counterfactual=tuple(j for _, j in aligned),
        unmatched_original=tuple(i for i in range(len(original)) if i not in of_original),
        unmatched_counterfactual=tuple(j for j in range(len(counterfactual)) if j not in of_counterfactual),
    )


def match_equal(first: Sequence[Any], second: Sequence[Any]) -> list[Match]:
    """Positions of equal items in two sequences, matched in order.

    The matches are those of a cheapest way to edit one sequence into the other by putting in, taking out and
    replacing items; of several cheapest ones that with the fewest separate stretches of edits, and of those
    the one that matches what both end with, and then earliest. Swapping the sequences swaps the matches.

    Raises:
        StatementError: for sequences that differ from each other over too long a stretch.
    """
    if (len(first), tuple(first)) > (len(second), tuple(second)):
        return [(i, j) for j, i in match_equal(second, first)]
    # What both begin and end with is matched by one of the cheapest ways, and is most of a minimal pair.
    shortest = min(len(first), len(second))
    begin = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    end = next((k for k in range(shortest - begin) if first[-1 - k] != second[-1 - k]), shortest - begin)
    n, m = len(first) - end, len(second) - end
    if (n - begin) * (m - begin) > _MOST_CELLS:
        raise StatementError(
            f"Two statements of {len(first)} and {len(second)} words or tokens differ over {n - begin} and {m - begin} "
            f"of them; what can be aligned differs over about {isqrt(_MOST_CELLS)} at most. Shorten them."
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
    """`[editing][i][j]`: edits and new stretches of edits that `first[i:]` and `second[j:]` still need.

    `editing` says whether the step before was an edit, so that a further one opens no new stretch.
    """
    n, m = len(first), len(second)
    # One row and column beyond the end stand for "not possible".
    never = (n + m + 1, 0)
    cost = [[[never] * (m + 2) for _ in range(n + 2)] for _ in (False, True)]
    for i in range(n, -1, -1):
        for j in range(m, -1, -1):
            if i == n and j == m:
                cost[False][i][j] = cost[True][i][j] = (0, 0)
                continue
            edits, stretches = min(cost[True][i + 1][j + 1], cost[True][i + 1][j], cost[True][i][j + 1])
            match = cost[False][i + 1][j + 1] if i < n and j < m and first[i] == second[j] else never
            cost[True][i][j] = min(match, (edits + 1, stretches))
            cost[False][i][j] = min(match, (edits + 1, stretches + 1))
    return cost


def _keys(statement: TokenizedStatement) -> list[tuple[bool, int]]:
    return list(zip(statement.special, statement.ids, strict=True))
