from negprobe.views.labels import aligned_label, tick_label


def test_a_short_token_is_its_own_label() -> None:
    assert tick_label("door") == "door"


def test_a_long_token_is_cut_and_says_so() -> None:
    assert tick_label("x" * 200) == "x" * 13 + "…"
    assert tick_label("x" * 14) == "x" * 14


def test_what_cannot_be_seen_becomes_visible_on_one_line() -> None:
    assert tick_label("a b\n\u202e") == "a␣b␣␣"
    assert tick_label("") == "␣"


def test_aligned_tokens_share_a_label_only_where_they_agree() -> None:
    assert aligned_label("door", "door") == "door"
    assert aligned_label("now", "not").replace("\u200e", "") == "now→not"


def test_of_aligned_tokens_the_original_s_stands_first_in_any_script() -> None:
    # Without the marks, two right-to-left words would change places around the arrow.
    assert aligned_label("\u05d0", "\u05d1") == "\u05d0\u200e→\u200e\u05d1"
