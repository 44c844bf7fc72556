"""What each head reads equals loops over the tokens of Hugging Face's own attentions, with roles told by hand."""

import numpy as np
import pytest
import torch

from negprobe.attention import AttentionProbe, HeadReading, Reading, ReadingChange, head_story
from negprobe.base.errors import InputError
from negprobe.statements import ROLES, StatementPair

# A cue in another word's place and an inserted one, with a control; one without, where the original alone has the
# target; no cue at all; and one whose cue has a partner in the original, but not the neutral word in its place.
REPLACED = StatementPair(
    "The door is now open. So the door is red.",
    "The door is not open. So the door is red.",
    control="The door is really open. So the door is red.",
    target="door",
)
INSERTED = StatementPair("It is a dog.", "It is not a dog.", control="It is now a dog.")
PLAIN = StatementPair(
    "The happy cat is awake and red.", "The cat is far from awake and red.", target="happy", cue_spans=((11, 19),)
)
CUELESS = StatementPair("Dogs like cats.", "Dogs like mice.")
COMMON = StatementPair("It is not red.", "It is not ever red.", control="It is now ever red.", cue_spans=((6, 9),))
PAIRS = [REPLACED, INSERTED, PLAIN, CUELESS, COMMON]


# The roles of each side's tokens; a control has the counterfactual's.
def roles_of(statement):
    """Every word of a statement is other, but for those whose role is written with it."""
    named = [token.partition("/") for token in statement.split()]
    return ["cls", *(role or "other" for _, _, role in named), "sep"]


DOORS = roles_of("the door/target is not/cue open/affected . so the door/target is red .")
DOG = roles_of("it is not/cue a dog/affected .")
HAPPY_CAT = roles_of("the happy/target cat is awake/affected and red .")
CAT = roles_of("the cat is far/cue from/cue awake/affected and red .")
DOGS = roles_of("dogs like mice/changed .")
NEVER = roles_of("it is not/cue ever red/affected .")
ROLES_BY_HAND = [
    (DOORS, DOORS),
    ([role for role in DOG if role != "cue"], DOG),
    (HAPPY_CAT, CAT),
    (DOGS, DOGS),
    (NEVER[:4] + NEVER[5:], NEVER),
]


@pytest.fixture(scope="module")
def readings(probe):
    return AttentionProbe(probe.model, batch_size=2).readings(PAIRS)


@pytest.fixture(scope="module")
def maps(hugging_face):
    """Attention and norm-weighted attention of each layer and head, of Hugging Face's model."""
    model, tokenizer = hugging_face

    @torch.no_grad()
    def maps(text):
        output = model(**tokenizer(text, return_tensors="pt"), output_attentions=True, output_hidden_states=True)
        raw = torch.stack(output.attentions)[:, 0]
        norm = torch.zeros_like(raw)
        for layer, block in enumerate(model.encoder.layer):
            v, W = block.attention.self.value(output.hidden_states[layer][0]), block.attention.output.dense.weight
            for head in range(12):
                part = slice(head * 32, head * 32 + 32)
                norm[layer, head] = raw[layer, head] * (v[:, part] @ W[:, part].T).norm(dim=-1)
        return {"raw": raw.numpy(), "norm": (norm / norm.sum(dim=-1, keepdim=True)).numpy()}

    return maps


def share(rows, roles, query, key):
    """What the tokens of a role give to all tokens of another, by layer and head; None where a role has no token."""
    queries, keys = ([at for at, name in enumerate(roles) if name == role] for role in (query, key))
    if not queries or not keys:
        return None
    return sum(sum(rows[:, :, q, k] for k in keys) for q in queries) / len(queries)


def sides(pair, roles):
    own = {"original": (pair.original, roles[0]), "counterfactual": (pair.counterfactual, roles[1])}
    return own | ({"control": (pair.control, roles[1])} if pair.control else {})


@pytest.mark.parametrize("measure", ["raw", "norm"])
def test_readings_and_their_changes_equal_a_loop_over_tokens_and_pairs(readings, maps, measure):
    of_pairs = [
        {side: (maps(text)[measure], roles) for side, (text, roles) in sides(pair, roles).items()}
        for pair, roles in zip(PAIRS, ROLES_BY_HAND, strict=True)
    ]
    n_compared = 0
    for query in ROLES:
        for key in ROLES:
            shares = [{side: share(*known, query, key) for side, known in pair.items()} for pair in of_pairs]
            for side in readings["side"].values:
                expected = [pair[side] for pair in shares if pair.get(side) is not None]
                cell = readings.sel(side=side, query=query, key=key)
                assert cell["n"] == len(expected)
                found = cell["share"].sel(measure=measure).values
                np.testing.assert_allclose(found, np.mean(expected, axis=0) if expected else np.full((6, 12), np.nan))
                n_compared += len(expected) > 1
            for base in readings["base"].values:
                expected = [
                    pair["counterfactual"] - pair[base]
                    for pair in shares
                    if pair.get(base) is not None and pair["counterfactual"] is not None
                ]
                cell = readings.sel(base=base, query=query, key=key)
                assert cell["n_changed"] == len(expected)
                found = cell["change"].sel(measure=measure).values
                expected = np.mean(expected, axis=0) if expected else np.full((6, 12), np.nan)
                np.testing.assert_allclose(found, expected, atol=1e-12)
    assert n_compared > 20


def test_readings_equal_a_loop_over_our_own_maps_of_each_statement_by_itself(readings, probe):
    """The same through the probe's maps, which are unpadded, so that padding has no share in any mean."""
    roles = ROLES_BY_HAND[1][1]
    alone = probe.readings([INSERTED])
    for side, text in (("counterfactual", INSERTED.counterfactual), ("control", INSERTED.control)):
        attention = probe.run(text)
        norm = (attention.norm / attention.norm.sum(dim=-1, keepdim=True)).numpy()
        for measure, rows in (("raw", attention.raw.numpy()), ("norm", norm)):
            for query, key in (("affected", "cue"), ("other", "cls"), ("sep", "other")):
                found = alone["share"].sel(measure=measure, side=side, query=query, key=key)
                np.testing.assert_allclose(found, share(rows, roles, query, key))


def test_an_even_share_is_that_of_the_tokens_by_count(readings):
    for side, which in (("original", 0), ("counterfactual", 1)):
        for query in ROLES:
            for key in ROLES:
                of_pairs = [roles[which] for roles in ROLES_BY_HAND]
                expected = [roles.count(key) / len(roles) for roles in of_pairs if query in roles and key in roles]
                found = readings["even"].sel(side=side, query=query, key=key)
                np.testing.assert_allclose(found, np.mean(expected) if expected else np.nan)


def test_a_query_role_gives_all_of_its_attention_to_some_role(readings):
    """Over all roles the shares sum to 1, each weighing as much as it has pairs."""
    total = (readings["share"] * readings["n"]).sum("key")
    n = readings["n"].max("key")
    # A sentence encoder reads no mask.
    assert (n.sel(side="counterfactual") > 0).sum() == len(ROLES) - 1
    np.testing.assert_allclose(total, n.broadcast_like(total))


def test_batches_order_and_neighbours_change_nothing(probe, readings):
    again = AttentionProbe(probe.model, batch_size=32).readings(PAIRS[::-1])
    for name in readings:
        np.testing.assert_allclose(again[name], readings[name], atol=1e-12, err_msg=str(name))


def test_roles_are_those_that_patching_sweeps_tell(probe):
    from negprobe.patching.runs import pair_runs

    for pair in PAIRS:
        readings = probe.readings([pair])
        for direction, side in (("noising", "original"), ("denoising", "counterfactual")):
            role = pair_runs(probe.model, [pair], direction).role[0]
            expected = [(role == i).float().mean() for i in range(len(ROLES)) if (role == i).any()]
            found = readings["even"].sel(side=side).max("query")
            np.testing.assert_allclose(found.values[~np.isnan(found)], expected)


def test_a_control_that_does_not_fit_is_no_side(probe):
    pair = StatementPair("It is a dog.", "It is not a dog.", control="It is now really a dog.")
    readings = probe.readings([pair])
    assert readings["n"].sel(side="control").sum() == readings["n_changed"].sel(base="control").sum() == 0
    assert readings["share"].sel(side="control").isnull().all()
    assert readings["n"].sel(side="counterfactual", query="affected", key="cue") == 1


def test_no_pairs_are_an_error(probe):
    with pytest.raises(InputError, match="no pairs"):
        probe.readings([])


def story_of(readings, **cells):
    """A head's story with the share or change of some cells set."""
    readings = readings.copy(deep=True)
    for name, where, value in cells.values():
        readings[name].loc[{"layer": 2, "head": 3} | where] = value
    return head_story(readings, 2, 3)


@pytest.fixture
def flat(probe):
    """Readings of pairs that have every role but the target, in which every head reads every token alike."""
    readings = probe.readings([INSERTED, INSERTED, PLAIN])
    even = readings["even"].broadcast_like(readings["share"]).transpose(*readings["share"].dims)
    return readings.assign(share=even, change=readings["change"] * 0)


def test_a_head_s_story_is_where_it_reads_most_above_an_even_share(flat):
    here = {"side": "counterfactual"}
    even = float(flat["even"].sel(side="counterfactual", query="affected", key="cue"))
    story = story_of(
        flat,
        raw=("share", here | {"measure": "raw", "query": "sep", "key": "cls"}, 0.7),
        norm=("share", here | {"measure": "norm", "query": "affected", "key": "cue"}, 0.6),
        # Less above an even share, though more: five of nine tokens are other words.
        other=("share", here | {"measure": "norm", "query": "cue", "key": "other"}, 0.65),
        original=("share", {"side": "original", "measure": "norm", "query": "cls", "key": "sep"}, 0.9),
        # Where heads rest, and what the cue itself reads, are no story.
        resting=("share", here | {"measure": "raw", "query": "sep", "key": "sep"}, 0.99),
        cues_own=("change", {"base": "control", "measure": "norm", "query": "cue", "key": "sep"}, -0.8),
        resting_change=("change", {"base": "control", "measure": "norm", "query": "cls", "key": "cls"}, 0.7),
        change=("change", {"base": "control", "measure": "norm", "query": "affected", "key": "sep"}, -0.3),
        smaller=("change", {"base": "control", "measure": "norm", "query": "cls", "key": "sep"}, 0.2),
        of_the_original=("change", {"base": "original", "measure": "norm", "query": "cls", "key": "sep"}, 0.9),
    )
    assert (story.layer, story.head) == (2, 3)
    assert (story.raw.query, story.raw.key, story.raw.raw) == ("sep", "cls", 0.7)
    assert story.norm == Reading("affected", "cue", raw=even, norm=0.6, even=even, n=3)
    assert story.change == ReadingChange("affected", "sep", "control", raw=0.0, norm=-0.3, n=2)


def test_roles_that_fewer_than_half_of_the_pairs_have_make_no_story(flat):
    where = {"side": "counterfactual", "measure": "norm", "query": "mask", "key": "cue"}
    # No pair of a sentence encoder's has a mask; one of three is made to have it.
    at_mask = {"side": "counterfactual", "query": "mask", "key": "cue"}
    flat["n"].loc[at_mask], flat["even"].loc[at_mask] = 1, 0.1
    assert story_of(flat, rare=("share", where, 0.95)).norm.query != "mask"
    flat["n"].loc[at_mask] = 2
    assert story_of(flat, common=("share", where, 0.95)).norm.query == "mask"


def test_without_a_control_the_change_is_from_the_original(probe):
    readings = probe.readings([PLAIN])
    story = head_story(readings, 5, 11)
    change = readings["change"].sel(base="original", measure="norm", layer=5, head=11)
    assert isinstance(story, HeadReading) and story.change is not None and story.change.base == "original"
    assert abs(story.change.norm) == abs(change).max()
    assert story.change.norm == change.sel(query=story.change.query, key=story.change.key)
    assert story.change.n == 1


def test_a_head_that_is_not_there_is_an_error(readings):
    with pytest.raises(InputError, match=r"no head 6\.0: there are 6 layers of 12 heads"):
        head_story(readings, 6, 0)
    with pytest.raises(InputError, match=r"no head 0\.12"):
        head_story(readings, 0, 12)
