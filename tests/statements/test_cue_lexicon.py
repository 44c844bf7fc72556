"""A lexicon is a file: a user's is added to English, and each mistake in it is one clear error."""

import pickle
import tomllib
from dataclasses import replace
from importlib import resources

import pytest

from negprobe import StatementPair
from negprobe.base.errors import StatementError
from negprobe.statements import (
    CUE_KINDS,
    Lexicon,
    added_cues,
    complete,
    english_lexicon,
    find_cues,
    lexicon_in_use,
    read_lexicon,
    use_lexicon,
)


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes) -> Lexicon:
        path = tmp_path / "cues.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_lexicon(path)

    return write


def kinds(text, lexicon):
    return [cue.kind for cue in find_cues(text, lexicon=lexicon)]


def test_the_kinds_are_those_of_the_data_file():
    file = resources.files("negprobe.statements") / "languages" / "english.toml"
    assert tuple(tomllib.loads(file.read_text(encoding="utf-8"))["cues"]["function"]) == CUE_KINDS


def test_entries_of_a_file_are_added_to_english(written):
    lexicon = written("""
        [cues.function]
        sans = ["sans"]
        "by no means" = ["by no means", "by  no manner of means"]
        nobody = ["nobodies"]
        y = ["Y'all-not"]
        [idioms]
        phrases = ["not bad", "SANS serif|{font}", "sans souci"]
        [words]
        font = ["Roboto"]
        [auxiliaries]
        "n't" = ["am"]
        [spelling]
        compounds = ["never-land"]
    """)
    assert (
        kinds("It came SANS doors, by no means late, by No manner of means", lexicon) == ["sans"] + ["by no means"] * 2
    )
    assert kinds("Nobodies; y\u2019all-not; I am n ' t; neverland", lexicon) == ["nobody", "y", "n't", "never"]
    assert kinds("It is not bad; not good; sans souci", lexicon) == ["not"]
    assert kinds("It has SANS roboto and sans serif", lexicon) == ["sans"]
    assert kinds("It isn't open, is it? No doubt, it never was.", lexicon) == ["n't", "never"]
    assert [cue.kind for cue in added_cues("It came.", "It came sans door.", lexicon=lexicon)] == ["sans"]
    both = "It came sans door.", "It never came sans door."
    assert [cue.kind for cue in added_cues(*both, lexicon=lexicon)] == ["never"]
    assert kinds("It came sans doors.", None) == []


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_endings_and_byte_order_mark_of_windows_are_read(written, start):
    assert kinds("sans", written(start + b'[cues.function]\r\nsans = [\r\n  "sans",\r\n]\r\n')) == ["sans"]


def test_an_empty_file_adds_nothing(written):
    assert written("") == english_lexicon()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[cues.function]\nsans = [\"\xff\"]", "not UTF-8"),
        ("cues = [", "not a TOML file"),
        ("[cues.function]\rsans = [\"sans\"]", "not a TOML file"),
        ("sans = 1", "the key 'sans' is unknown"),
        ("[cues.lexicals]\nshun = [\"shun\"]", "the key 'lexicals' is unknown"),
        ("[idioms]\nphrase = []", "the key 'phrase' is unknown"),
        ("[spelling]\nhyphens = []", "the key 'hyphens' is unknown"),
        ("language = 1", "language must be a text"),
        ("classes = [\"function\"]", "no optional class 'function'"),
        ("classes = \"lexical\"", "must be a list"),
        ("cues = 1", "cues must be a table"),
        ("[cues]\nfunction = [\"sans\"]", "function must be a table"),
        ("[cues.function]\nsans = \"sans\"", "must be a list"),
        ("[cues.function]\nsans = [1]", "must be a list"),
        ("[cues.function]\nsans = []", "empty"),
        ("[cues.function]\nsans = [\" \"]", "has no letter"),
        ("[cues.function]\n\"\" = [\"sans\"]", "has no letter"),
        ("[cues.function]\nsans = [\"7\"]", "has no letter"),
        ("[cues.function]\nsans = [\"sans\", \"SANS\"]", "listed twice"),
        ("[cues.function]\nsans = [\"sans\"]\nsine = [\"sans\"]", "kinds 'sans' .class 'function'. and 'sine'"),
        ("[cues.function]\nnay = [\"never\"]", "kinds 'never' .class 'function'. and 'nay'"),
        ("[cues.function]\nnay = [\"refused\"]", "and 'refuse' .class 'lexical'."),
        ("[cues.function]\nnot = [\"not\"]", "'not' is in the lexicon already"),
        ("[cues.lexical]\nnever = [\"nevermore\"]", "a kind of the class 'function' already"),
        ("[cues.function]\nsans = [\"sans (a)\"]", "symbol"),
        ("[cues.function]\nsans = [\"sans !a b\"]", "symbol"),
        ("[cues.function]\n\"un-\" = [\"open\"]", "begin or end with a hyphen"),
        ("[cues.affixal]\nun = [\"open\"]", "begin or end with a hyphen"),
        ("[cues.affixal]\n\"un-\" = [\"able\"]", "'able' is in the lexicon already"),
        ("[auxiliaries]\n\"n't\" = [\"is\"]", "'is' is in the lexicon already"),
        ("[auxiliaries]\nnae = [\"is\"]", "'nae' in auxiliaries is not a cue"),
        ("[spelling]\nnumbers = [\"nr\"]", "'nr' in numbers is not a cue"),
        ("[homographs]\nnae = [\"is\"]", "'nae' in homographs is not a cue"),
        ("[neutral]\nsans = [\"with\"]", "'sans' in neutral is not a kind of cue; the kinds are not, n't, cannot, "),
        ("[neutral]\nnever = [\"not\"]", "'not' in neutral contains a cue"),
        ("[neutral]\nnever = []", "the list of 'never' is empty"),
        ("neutral = 1", "neutral must be a table"),
        ("[spelling]\ncompounds = [\"no\"]", "'no' in compounds must be a cue, a hyphen"),
        ("[spelling]\ncompounds = [\"some-one\"]", "'some-one' in compounds must be a cue, a hyphen"),
        ("[idioms]\nphrases = [\"is bad\"]", "has no cue"),
        ("[idioms]\nphrases = [\"nothing but\"]", "'nothing but' is in the lexicon already"),
        ("[idioms]\nphrases = [\"not {bad}\"]", "names {bad}"),
        ("[idioms]\nphrases = [\"not|bad one\"]", "offers 'bad' in place of a cue"),
        ("[idioms]\nphrases = [\"$ not\"]", "where a word was expected"),
        ("[idioms]\nphrases = [\"not [a]\"]", "where a word was expected"),
        ("[idioms]\nphrases = [\"not (a\"]", "where a word was expected"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_file_is_one_clear_error(written, tmp_path, content, expected):
    with pytest.raises(StatementError, match=expected) as raised:
        written(content)
    assert str(tmp_path / "cues.toml") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("path", ["missing.toml", ".", "a\0b", "\ud800"])
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StatementError, match="cannot be read"):
        read_lexicon(path)


def test_a_word_is_added_as_a_cue_of_a_new_kind_or_of_a_known_one():
    lexicon = english_lexicon(classes=("lexical",)).with_cue("Sans").with_cue("shuns", "avoid").with_cue("nary a", "no")
    assert kinds("SANS; she shuns it; nary a door; no longer", lexicon) == ["sans", "avoid", "no", "no longer"]
    assert kinds("She shuns it", replace(lexicon, classes=())) == []
    assert kinds("sans", english_lexicon()) == []


@pytest.mark.parametrize(
    ("word", "kind", "expected"),
    [
        ("never", None, "'never' is in the lexicon already"),
        ("never", "nay", "kinds 'never' .class 'function'. and 'nay'"),
        ("refuses", None, "kinds 'refuses' .class 'function'. and 'refuse' .class 'lexical'."),
        ("", None, "has no letter"),
        ("sans", " ", "has no letter"),
        ("a?", None, "symbol"),
        ("un-", None, "begin or end with a hyphen"),
    ],
)
def test_a_word_that_is_a_cue_already_or_no_word_is_refused(word, kind, expected):
    with pytest.raises(StatementError, match=expected):
        english_lexicon().with_cue(word, kind)


def test_optional_classes_are_searched_only_if_they_are_given(written):
    text = "He refused to open the unsafe, doorless room and is not unhappy."
    assert kinds(text, None) == kinds(text, english_lexicon()) == ["not"]
    assert kinds(text, english_lexicon(classes=("lexical",))) == ["refuse", "not"]
    assert kinds(text, english_lexicon(classes=("affixal",))) == ["un-", "not", "un-"]
    assert kinds(text, written('classes = ["lexical", "affixal"]\n[cues.affixal]\n"-less" = ["door"]')) == [
        "refuse", "un-", "-less", "not", "un-",
    ]  # fmt: skip
    with pytest.raises(StatementError, match="no optional class 'x'"):
        english_lexicon(classes=("x",))


def test_a_phrase_can_have_a_cue_of_a_class_that_is_not_searched(written):
    lexicon = written('[idioms]\nphrases = ["refused to lie down"]')
    assert kinds("He refused to lie down, refused to lie", lexicon) == []
    assert kinds("He refused to lie down, refused to lie", replace(lexicon, classes=("lexical",))) == ["refuse"]


def test_lexicons_with_the_same_entries_are_equal_and_have_one_fingerprint(written):
    first, second = written('[cues.function]\nsans = ["sans"]'), written('# mine\n[cues.function]\nsans=["SANS"]')
    assert first == second
    assert first.fingerprint == second.fingerprint != english_lexicon().fingerprint
    assert english_lexicon(classes=("lexical",)).fingerprint != english_lexicon().fingerprint


def test_a_used_lexicon_can_be_sent_to_another_process(written):
    lexicon = written('[cues.function]\nsans = ["sans"]')
    assert kinds("sans", lexicon) == kinds("sans", pickle.loads(pickle.dumps(lexicon))) == ["sans"]


def test_the_lexicon_in_use_applies_to_every_search(written):
    lexicon = written('[cues.function]\nsans = ["sans"]')
    pair = StatementPair("It came with doors.", "It came sans doors.")
    assert use_lexicon(lexicon) == english_lexicon()
    try:
        assert lexicon_in_use() is lexicon
        assert [cue.kind for cue in find_cues(pair.counterfactual)] == ["sans"]
        assert complete(pair).cue_spans == ((8, 12),)
    finally:
        assert use_lexicon(None) is lexicon
    assert lexicon_in_use() == english_lexicon()
    assert find_cues(pair.counterfactual) == ()
    assert complete(pair).cue_spans == ()


def test_a_file_can_add_words_that_are_spelled_like_a_cue_and_their_contexts(write):
    text = '[homographs]\nnt = ["we"]\n[contexts]\nphrases = ["you we nt"]'
    added = read_lexicon(write("cues.toml", text))
    assert [cue.span for cue in find_cues("if you went there", lexicon=added)] == [(9, 11)]
    assert find_cues("she went there", lexicon=added) == ()
