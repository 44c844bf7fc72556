"""Built-in pairs that differ by something other than a negation: tense, number, gender, an entity, or a role swap."""

from collections.abc import Iterator

from negprobe.base.arguments import checked
from negprobe.base.reprs import Listed
from negprobe.statements.pair import StatementPair

# The frame of each kind; {} is replaced by each of two phrases. The answers at [MASK] are for the first and the second.
_TENSE = [
    *((f"The {noun} {{}} {state}. So it [MASK] {state}.", "is", "was", "is", "was") for noun, state in (
        ("shop", "open"), ("water", "cold"), ("house", "empty"), ("road", "dry"), ("box", "full"), ("street", "quiet"),
    )),
    *((f"The {people} {{}} at {place}. So they [MASK] at {place}.", "are", "were", "are", "were") for people, place in (
        ("children", "school"), ("doctors", "work"), ("students", "home"),
        ("players", "practice"), ("soldiers", "war"), ("workers", "lunch"),
    )),
]  # fmt: skip
_NUMBER = [
    (f"The {{}} slept near the {place}. Then [MASK] left.", one, many, "it", "they")
    for one, many, place in (
        ("cat", "cats", "door"), ("dog", "dogs", "fire"), ("horse", "horses", "barn"), ("bird", "birds", "tree"),
        ("bear", "bears", "river"), ("wolf", "wolves", "road"), ("fox", "foxes", "wall"), ("lion", "lions", "rock"),
        ("mouse", "mice", "kitchen"), ("goat", "goats", "gate"), ("goose", "geese", "lake"),
        ("animal", "animals", "house"),
    )
]  # fmt: skip
_GENDER = [
    (f"The {{}} {verb} first. Then [MASK] left.", man, woman, "he", "she")
    for man, woman, verb in (
        ("king", "queen", "spoke"), ("father", "mother", "ate"), ("boy", "girl", "sang"), ("man", "woman", "paid"),
        ("actor", "actress", "danced"), ("husband", "wife", "called"), ("brother", "sister", "arrived"),
        ("son", "daughter", "played"), ("uncle", "aunt", "laughed"), ("prince", "princess", "answered"),
        ("grandfather", "grandmother", "slept"), ("waiter", "waitress", "smiled"),
    )
]  # fmt: skip
_ENTITY = [
    (f"{name} lives in {{}}. So the home of {name} is in [MASK].", one, other, one, other)
    for name, one, other in (
        ("Anna", "London", "Paris"), ("Peter", "Rome", "Berlin"), ("Maria", "Spain", "France"),
        ("David", "Texas", "Florida"), ("Laura", "China", "Japan"), ("Mark", "Egypt", "Israel"),
        ("Alice", "Boston", "Chicago"), ("Robert", "Canada", "Mexico"), ("Julia", "Vienna", "Prague"),
        ("Martin", "India", "Russia"), ("Helen", "Greece", "Turkey"), ("Paul", "Ireland", "Scotland"),
    )
]  # fmt: skip
_ROLE_SWAP = [
    ("John", "Mary", "gave {second} the book", "has the book"),
    ("Anna", "Peter", "sold {second} the car", "owns the car"),
    ("Laura", "Mark", "sent {second} the letter", "has the letter"),
    ("Alice", "Robert", "lent {second} the money", "has the money"),
    ("Julia", "Martin", "handed {second} the key", "has the key"),
    ("Helen", "Paul", "brought {second} the food", "has the food"),
    ("Maria", "David", "beat {second} in the race", "lost the race"),
    ("Sarah", "James", "taught {second} the song", "learned the song"),
    ("Emma", "Henry", "hired {second} for the job", "got the job"),
    ("Jane", "Tom", "paid {second} for the work", "did the work"),
    ("Kate", "Jack", "bought the horse from {second}", "sold the horse"),
    ("Rose", "Frank", "followed {second} to the park", "arrived first"),
    ("Susan", "George", "gave {second} the ring", "has the ring"),
    ("Nancy", "Brian", "sold {second} the farm", "owns the farm"),
    ("Linda", "Kevin", "sent {second} the package", "has the package"),
    ("Carol", "Steve", "defeated {second} in the final", "lost the final"),
    ("Ruth", "Daniel", "caught {second} at the door", "was caught"),
    ("Diana", "Simon", "invited {second} to the party", "was the guest"),
    ("Lucy", "Oliver", "forgave {second} for the lie", "told the lie"),
    ("Grace", "Adam", "bought the boat from {second}", "sold the boat"),
]


def _pairs() -> Iterator[StatementPair]:
    kinds = {"tense": _TENSE, "number": _NUMBER, "gender": _GENDER, "entity": _ENTITY}
    for kind, frames in kinds.items():
        for frame, first, second, target, foil in frames:
            yield StatementPair(
                frame.format(first), frame.format(second), target, foil, category=kind, source="changes"
            )
    for one, other, act, outcome in _ROLE_SWAP:
        original, counterfactual = (
            f"{first} {act.format(second=second)}. So [MASK] {outcome}."
            for first, second in ((one, other), (other, one))
        )
        yield StatementPair(original, counterfactual, other, one, category="role swap", source="changes")


@checked
def change_pairs() -> list[StatementPair]:
    """Minimal pairs without a negation cue: twelve each of tense, number, gender and entity, and twenty role swaps.

    The words by which two statements differ have the role "changed". Target and foil belong at the [MASK]; a model
    without a masked-LM head reads the target there, in both statements (see `readable_by`).

    Example:
        >>> from negprobe.statements import change_pairs
        >>> pair = change_pairs()[-20]
        >>> pair.original, pair.counterfactual, pair.target
        ('John gave Mary the book. So [MASK] has the book.', 'Mary gave John the book. So [MASK] has the book.', 'Mary')
    """
    return Listed(_pairs())
