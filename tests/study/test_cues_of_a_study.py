"""The lexicon in use is part of a study: of its fingerprint, its notes, and what its workers search for."""

import json
from dataclasses import replace

import pytest

from negprobe import HookedEncoder, StatementPair
from negprobe.base.errors import StudyError
from negprobe.statements import english_lexicon, use_lexicon
from negprobe.study import run_study
from negprobe.study.folder import identity, key, options_of_study, study_folder

PAIRS = [StatementPair("The door is open.", "The door is hardly quite open."), StatementPair("It is.", "It lacks it.")]
OPTIONS = {"patch_pairs": 0, "circuit_pairs": 0, "contribution_pairs": 0, "seed": 0}
LEXICAL = english_lexicon(classes=("lexical",))


@pytest.fixture
def lexical():
    use_lexicon(LEXICAL)
    yield
    use_lexicon(None)


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def fingerprint(model):
    return identity(model, PAIRS, options_of_study(model, **OPTIONS, circuit_effort="fast", objective=None))


def test_the_lexicon_is_part_of_the_fingerprint(model, tmp_path):
    default = fingerprint(model)
    use_lexicon(LEXICAL)
    try:
        other = fingerprint(model)
    finally:
        use_lexicon(None)
    assert (default["cues"], other["cues"]) == ("English", LEXICAL.fingerprint)
    assert key({name: value for name, value in default.items() if name != "cues"}) == key(default) != key(other)
    with study_folder(tmp_path, default):
        pass
    assert json.loads((tmp_path / "study.json").read_text())["cues"] == "English"
    refused = rf"holds another study \(cues: English in the folder, {LEXICAL.fingerprint} now\)"
    with pytest.raises(StudyError, match=refused), study_folder(tmp_path, other):
        pass


def test_a_study_measures_the_cues_of_the_lexicon_in_use_and_notes_it(model, lexical):
    study = run_study(model, PAIRS, **OPTIONS)
    assert [pair.cue for pair in study.pairs] == ["hardly", "lack"]
    (note,) = study.notes
    assert LEXICAL.fingerprint in note and "'fail', 'refuse', 'deny'" in note and note.endswith("….")


def test_a_study_with_the_default_lexicon_has_no_note(model):
    study = run_study(model, PAIRS, **OPTIONS)
    assert [pair.cue for pair in study.pairs] == ["hardly", None]
    assert study.notes == ()


def test_a_lexicon_that_differs_only_in_its_phrases_is_noted(model):
    use_lexicon(replace(english_lexicon(), phrases=(*english_lexicon().phrases, "hardly quite")))
    try:
        study = run_study(model, PAIRS, **OPTIONS)
    finally:
        use_lexicon(None)
    assert [pair.cue for pair in study.pairs] == [None, None]
    assert study.notes[0].endswith("has 0 kinds of cues more than the default.")
