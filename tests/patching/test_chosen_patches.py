"""Chosen patches: together in one run or each in its own, as the call says, and as hooks by hand have it."""

import numpy as np
import pytest
import torch

from negprobe.base.errors import PatchingError
from negprobe.patching import Patch, patch
from tests.support.sample_pairs import TINY_EQUAL

PAIR = TINY_EQUAL.pair
HEAD, MLP = Patch("z", 1, 2), Patch("mlp_out", 0, role="cue")


@pytest.fixture(scope="module")
def by_hand(tiny):
    """The objective with the head, with the MLP's output at the cue, and with both, from hooks on whole passes."""
    tokenizer = tiny.tokenizer
    at = tokenizer(PAIR.original)["input_ids"].index(tokenizer.mask_token_id)
    cue = TINY_EQUAL.roles[0].index("cue")
    target, foil = tokenizer.convert_tokens_to_ids([PAIR.target, PAIR.foil])
    with torch.no_grad():
        _, cache = tiny.run_with_cache(PAIR.counterfactual)

        def head(z, hook):
            z[:, :, 2] = cache[hook.name][:, :, 2]
            return z

        def mlp(out, hook):
            out[:, cue] = cache[hook.name][:, cue]
            return out

        hooks = {"head": ("blocks.1.attn.hook_z", head), "mlp": ("blocks.0.hook_mlp_out", mlp)}
        logits = [
            tiny.run_with_hooks(PAIR.original, fwd_hooks=[hooks[name] for name in names])[0, at]
            for names in (["head"], ["mlp"], ["head", "mlp"])
        ]
    return [(of_run[target] - of_run[foil]).item() for of_run in logits]


@pytest.mark.parametrize(
    ("patches", "together", "runs", "names"),
    [
        ([HEAD, MLP], True, [2], ["z 1.2 + mlp_out 0 at cue"]),
        ([HEAD, MLP], False, [0, 1], ["z 1.2", "mlp_out 0 at cue"]),
        ([[HEAD, MLP]], None, [2], ["z 1.2 + mlp_out 0 at cue"]),
        ([[HEAD, MLP], [HEAD]], None, [2, 0], ["z 1.2 + mlp_out 0 at cue", "z 1.2"]),
        ([[HEAD, MLP], MLP], False, [2, 1], ["z 1.2 + mlp_out 0 at cue", "mlp_out 0 at cue"]),
        (HEAD, None, [0], ["z 1.2"]),
        ([HEAD], None, [0], ["z 1.2"]),
        (HEAD, True, [0], ["z 1.2"]),
    ],
)
def test_patches_are_made_together_or_one_by_one_as_the_call_says(tiny, by_hand, patches, together, runs, names):
    result = patch(tiny, PAIR, patches, together=together)
    np.testing.assert_allclose(result["patched"].values[0], [by_hand[run] for run in runs], atol=1e-11)
    assert list(result["patch"].values) == names
    assert len({round(value, 6) for value in by_hand}) == 3


def test_a_list_that_does_not_say_how_it_is_meant_is_an_error(tiny):
    with pytest.raises(PatchingError, match=r"2 patches .* together=True to .* together=False to"):
        patch(tiny, PAIR, [HEAD, MLP])
    for sets in ([[HEAD, MLP]], [[HEAD], MLP]):
        with pytest.raises(PatchingError, match="together=True contradicts"):
            patch(tiny, PAIR, sets, together=True)
    for nothing in ([], [[]], [[HEAD], []]):
        with pytest.raises(PatchingError, match="There are no patches"):
            patch(tiny, PAIR, nothing, together=False)
