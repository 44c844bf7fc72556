"""Pairs that a model can read and be patched on, and the reasons for those that are left out."""

from dataclasses import replace

import pytest

from negprobe import HookedEncoder, StatementPair, builtin_pairs
from negprobe.base.errors import PatchingError, StatementError
from negprobe.patching import patchable_pairs, readable_pairs
from negprobe.statements import complete, from_control

LONG = StatementPair(f"{'a ' * 100} [MASK].", f"{'a ' * 100} not [MASK].", "open", "closed")
SILENT = StatementPair("The door is open.", "The door is not open.")


@pytest.fixture(scope="module")
def model():
    """The bundled model."""
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def test_pairs_keep_their_numbers_and_each_other_one_has_a_reason(model):
    first, second = builtin_pairs()[:2]
    given = [LONG, first, replace(first, target="shut"), replace(second, control="It is now [MASK]."), SILENT]
    readable = readable_pairs(model, given)
    assert list(readable.pairs) == [1, 3, 4]
    assert readable.pairs[1].pair == complete(first, model.tokenizer)
    assert list(readable.unreadable) == [0, 2] and list(readable.invalid_controls) == [3]
    assert readable.left_out[0].startswith("input pair 0: ") and "tokens, more than" in readable.left_out[0]
    assert readable.left_out[1] == "input pair 2: it has the same tokens as input pair 1"
    assert readable.left_out[2].startswith("the control of input pair 3: the control has")
    ready = patchable_pairs(model, given)
    assert list(ready.swaps) == [1, 3]
    assert ready.left_out[:3] == readable.left_out
    assert ready.left_out[3] == "input pair 4: the pair has no target or foil"


@pytest.mark.parametrize("with_control", [True, False])
def test_a_swap_is_with_the_control_only_if_it_is_wanted(model, with_control):
    pair = builtin_pairs()[0]
    swap = patchable_pairs(model, [pair], with_control=with_control).swaps[0]
    expected = from_control(complete(pair, model.tokenizer)).original if with_control else pair.original
    assert swap.original == expected != (pair.original if with_control else "")
    assert (swap.pair.control is not None) == with_control


def test_a_sample_is_in_order_and_drawn_by_its_seed(model):
    ready = patchable_pairs(model, builtin_pairs()[:20])
    drawn = ready.sample(5, seed=1)
    assert list(drawn.swaps) == sorted(drawn.swaps) and len(drawn.swaps) == 5
    assert list(ready.sample(5, seed=1).swaps) == list(drawn.swaps) != list(ready.sample(5, seed=2).swaps)
    assert list(ready.sample(99).swaps) == list(ready.swaps)
    with pytest.raises(PatchingError, match="at least 1 pair"):
        ready.sample(0)


def test_no_pair_left_is_an_error_with_the_first_reason(model):
    with pytest.raises(StatementError, match=r"None of the 1 pairs can be measured. The first reason: input pair 0: "):
        patchable_pairs(model, [LONG])
    with pytest.raises(PatchingError, match=r"None of the 1 pairs has an answer to patch. .* no target or foil"):
        patchable_pairs(model, [SILENT])
