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
    # Left-to-right marks keep the first first, in whatever script both are.
    assert aligned_label("now", "not") == "now\u200e→\u200enot"
