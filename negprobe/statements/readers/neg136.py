"""NEG-136 as it was published (Ettinger 2020, doi:10.1162/tacl_a_00298), known by its columns.

Its simple items ("A robin is (a|an)" + "bird" or "tree", after Fischler et al. 1983) leave the article open; its
natural ones ("Old computers may be" + "slow" or "fast", after Nieuwland & Kuperberg 2008) have none, and say whether
the negation is natural to say (`licensing` Y) or less so (N).
"""

from negprobe.statements.gaps import article
from negprobe.statements.readers.cloze import EITHER_ARTICLE, Cloze
from negprobe.statements.readers.records import Read, Row, Table, each, needed
from negprobe.statements.tokens import MASK

COLUMNS = frozenset({"item", "context_aff", "context_neg", "target_aff", "target_neg"})
_LICENSING = {"Y": "NAT natural", "N": "NAT less natural"}


def neg136_source(table: Table) -> str:
    """Which of its two data sets a table is: "NEG-136-NAT" has the column `licensing`, "NEG-136-SIMP" has not."""
    return "NEG-136-NAT" if "licensing" in table.columns else "NEG-136-SIMP"


def neg136_clozes(table: Table) -> Read[Cloze]:
    """An item a row; the category is SIMP, NAT natural or NAT less natural."""
    return each(table, _cloze)


def _cloze(row: Row, number: int) -> Cloze:
    affirmative, negated, target, foil = (
        needed(row, name) for name in ("context_aff", "context_neg", "target_aff", "target_neg")
    )
    open_article = EITHER_ARTICLE in affirmative + negated
    return Cloze(
        f"{affirmative} {MASK}.",
        f"{negated} {MASK}.",
        target,
        foil,
        (article(target), article(foil)) if open_article else ("", ""),
        _LICENSING.get(needed(row, "licensing"), "NAT") if "licensing" in row else "SIMP",
        (2 * number, 2 * number + 1),
    )
