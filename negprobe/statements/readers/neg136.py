"""NEG-136 as published (Ettinger 2020, doi:10.1162/tacl_a_00298), recognised by its columns.

Its simple items ("A robin is (a|an)" + "bird" or "tree", after Fischler et al. 1983) leave the article open. Its
natural items ("Old computers may be" + "slow" or "fast", after Nieuwland & Kuperberg 2008) have no article, and a
column that says whether the negation is natural (`licensing` Y) or less natural (N).
"""

from negprobe.statements.gaps import article
from negprobe.statements.readers.cloze import EITHER_ARTICLE, Cloze
from negprobe.statements.readers.records import ParsedRows, Row, Table, label_text, parse_rows, required_text
from negprobe.statements.tokens import MASK

COLUMNS = frozenset({"item", "context_aff", "context_neg", "target_aff", "target_neg"})
_LICENSING = {"Y": "NAT natural", "N": "NAT less natural"}


def neg136_source(table: Table) -> str:
    """ "NEG-136-NAT" for a table with the column `licensing`, otherwise "NEG-136-SIMP"."""
    return "NEG-136-NAT" if "licensing" in table.columns else "NEG-136-SIMP"


def neg136_clozes(table: Table) -> ParsedRows[Cloze]:
    """One item per row; the category is "SIMP", "NAT natural" or "NAT less natural"."""
    source = neg136_source(table)
    return parse_rows(table, lambda row, number: _cloze(row, number, source))


def _cloze(row: Row, number: int, source: str) -> Cloze:
    affirmative, negated, target, foil = (
        required_text(row, name) for name in ("context_aff", "context_neg", "target_aff", "target_neg")
    )
    open_article = EITHER_ARTICLE in affirmative + negated
    return Cloze(
        f"{affirmative} {MASK}.",
        f"{negated} {MASK}.",
        target,
        foil,
        (article(target), article(foil)) if open_article else ("", ""),
        _LICENSING.get(required_text(row, "licensing"), "NAT") if "licensing" in row else "SIMP",
        (2 * number, 2 * number + 1),
        # The items of the two files have the same numbers.
        cluster=f"{source} {label_text(row, 'item')}",
    )
