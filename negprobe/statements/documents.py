"""Queries and documents, which a cross-encoder reads together: "query [SEP] document"."""

from dataclasses import replace

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.pair import StatementPair
from negprobe.statements.tokens import MASK, SEPARATOR


@checked
def document_pair(
    query: str,
    document: str,
    *,
    counterfactual_query: str | None = None,
    counterfactual_document: str | None = None,
    other_document: str | None = None,
    control_query: str | None = None,
) -> StatementPair:
    """A pair of "query [SEP] document" statements, which differ either in the query or in the document.

    Args:
        query: The query of the original.
        document: The document of the original.
        counterfactual_query: The query of the counterfactual, which then has the same document. `document` becomes the
            pair's `target`, so that its tokens have the role "target".
        counterfactual_document: The document of the counterfactual, which then has the same query.
        other_document: With a counterfactual query, a second document: `document` is the right one for `query`, and
            this one for `counterfactual_query`. It becomes the pair's `foil`, which `patching.score_margin` needs.
        control_query: The counterfactual query with its cue replaced by neutral words.

    Raises:
        StatementError: for an empty text, a text with [SEP] or [MASK], and unless exactly one of the two counterfactual
            texts is given, the other document and the control query only with a counterfactual query.

    Example:
        >>> from negprobe.statements import document_pair
        >>> document_pair("hotels with a pool", "It has a pool.", counterfactual_query="hotels without a pool").original
        'hotels with a pool [SEP] It has a pool.'
    """
    texts = {name: text for name, text in locals().items() if text is not None}
    for name, text in texts.items():
        if not text.strip() or SEPARATOR in text or MASK in text:
            raise StatementError(
                f"The {name} is {quoted(text)}; give a text with at least one word, without {SEPARATOR} and {MASK}."
            )
    if (counterfactual_query is None) == (counterfactual_document is None):
        raise StatementError(
            "A pair differs either in the query or in the document; give exactly one of counterfactual_query and "
            "counterfactual_document."
        )
    if counterfactual_document is not None:
        if extra := [name for name in ("other_document", "control_query") if name in texts]:
            raise StatementError(f"{extra[0]} needs a counterfactual_query; give one, or leave out {extra[0]}.")
        return StatementPair(joined(query, document), joined(query, counterfactual_document))
    assert counterfactual_query is not None
    return StatementPair(
        joined(query, document),
        joined(counterfactual_query, document),
        target=document.strip(),
        foil=None if other_document is None else other_document.strip(),
        control=None if control_query is None else joined(control_query, document),
    )


def ranks_documents(pair: StatementPair) -> bool:
    """Whether the pair has two documents: the target, which is the second text of every statement, and the foil."""
    texts = [text for text in (pair.original, pair.counterfactual, pair.control) if text is not None]
    parts = [text.partition(SEPARATOR) for text in texts]
    return bool(pair.target and pair.foil) and all(
        before.strip() and after.strip() == str(pair.target).strip() for before, _, after in parts
    )


def with_foil(pair: StatementPair) -> StatementPair:
    """The pair with its foil as the document of every statement; target and foil change places.

    The queries stay as they are, with the spans of cues and affected words in them.

    Raises:
        StatementError: unless the pair has two documents (see `ranks_documents`).
    """
    if not ranks_documents(pair) or pair.foil is None:
        raise StatementError(
            f"The pair {quoted(pair.original)} does not rank two documents: its statements must be 'query {SEPARATOR} "
            "target', and its foil another document. Make it with document_pair, or set target and foil."
        )
    foil = pair.foil

    def replaced(text: str) -> str:
        query, separator, _ = text.partition(SEPARATOR)
        return f"{query}{separator} {foil}"

    end = pair.counterfactual.index(SEPARATOR)
    return replace(
        pair,
        original=replaced(pair.original),
        counterfactual=replaced(pair.counterfactual),
        control=None if pair.control is None else replaced(pair.control),
        target=foil,
        foil=pair.target,
        cue_spans=tuple(span for span in pair.cue_spans if span[1] <= end),
        affected_spans=tuple(span for span in pair.affected_spans if span[1] <= end),
    )


def joined(query: str, document: str) -> str:
    """A query and a document as one statement."""
    return f"{query.strip()} {SEPARATOR} {document.strip()}"
