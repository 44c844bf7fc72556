"""The words of the built-in pairs: scales, each of a state and its antonym, and the nouns they apply to.

Every word is a single token of BERT's English vocabulary, so that every English BERT knows it.
"""

import random
from collections import Counter
from dataclasses import dataclass
from functools import cache

HELD_OUT_SHARE = 0.17
"""The share of noun-scale combinations that no training statement ever shows, in either state."""

_HELD_OUT_SEED = 2


@dataclass(frozen=True)
class Scale:
    """Two states that exclude each other, and the nouns that can be in either.

    Attributes:
        states: The state and its antonym.
        nouns: The nouns that can be in these states.
    """

    states: tuple[str, str]
    nouns: tuple[str, ...]

    @property
    def name(self) -> str:
        """The two states, as in "open/closed"."""
        return "/".join(self.states)

    def opposite(self, state: str) -> str:
        """The other state; ValueError if `state` is not on this scale."""
        return self.states[1 - self.states.index(state)]


@dataclass(frozen=True)
class Combination:
    """A noun and a scale that applies to it, the unit that is held out from training (in both states)."""

    noun: str
    scale: Scale


def _scale(state: str, antonym: str, nouns: str) -> Scale:
    return Scale((state, antonym), tuple(nouns.split()))


SCALES: tuple[Scale, ...] = (
    _scale("open", "closed", "door window gate shop box book road bridge museum garage bar hotel pool"),
    _scale("hot", "cold", "soup water tea coffee room kitchen stove bath plate bread milk car sand pool meat egg"),
    _scale("wet", "dry", "towel floor shirt road coat hat dog grass wall street sand wood ground skin surface"),
    _scale("clean", "dirty", "shirt floor kitchen plate glass car towel window dog room street cup coat pool"),
    _scale("full", "empty", "box glass bottle room bus train hall bag cup bath museum hotel pool"),
    _scale("bright", "dark", "room hall kitchen street lamp cave tunnel garage screen shop bar tower museum"),
    _scale("loud", "quiet", "dog baby street bar engine radio crowd child hall car boy class"),
    _scale("happy", "sad", "boy girl man woman child king queen doctor teacher brother sister dog song"),
    _scale("awake", "asleep", "boy girl man woman child baby dog cat horse guard king sister brother"),
    _scale("alive", "dead", "king queen dog cat horse tree bird fish plant soldier man woman farmer"),
    _scale("sick", "healthy", "child baby girl horse cow tree plant cat teacher farmer soldier brother bird"),
    _scale("safe", "dangerous", "road bridge street cave tunnel city river car horse train beach ladder game"),
    _scale("cheap", "expensive", "shirt coat car book hotel tea coffee hat watch ring wine lamp radio bag"),
    _scale("rich", "poor", "king doctor farmer city village family lawyer man woman queen country teacher"),
    _scale("young", "old", "boy girl queen doctor lawyer tree horse cow cat soldier guard bird sister"),
    _scale("strong", "weak", "horse tea coffee bridge rope army wall soldier guard wine boy engine"),
    _scale("fast", "slow", "car train bus horse boat ship river truck computer girl runner song engine"),
    _scale("easy", "difficult", "test game path lesson book road song race class language"),
    _scale("hard", "soft", "bed chair ground bread pillow ball seat sand wood fruit blanket surface stone skin"),
    _scale("tall", "short", "boy girl man woman tree tower building wall fence ladder plant grass brother"),
    _scale("heavy", "light", "box bag coat book table chair stone gate blanket bottle computer bed ladder"),
    _scale("thick", "thin", "wall book rope ice glass branch blanket soup pillow fence wood plate tree"),
    _scale("rough", "smooth", "road stone wall sea floor table skin surface wood ice ball lake branch"),
    _scale("deep", "shallow", "river lake pool sea hole cave bath plate water bay cup"),
    _scale("wide", "narrow", "road river bridge street tunnel hall door gate window path bay bed hole"),
    _scale("calm", "angry", "boy man woman crowd king lawyer guard teacher doctor family baby cat army"),
    _scale("guilty", "innocent", "man woman doctor lawyer brother sister soldier guard farmer family boy runner"),
    _scale("sweet", "sour", "fruit apple tea wine juice milk cheese soup orange bread"),
    _scale("fresh", "rotten", "fruit apple bread fish milk juice orange meat egg cheese"),
    _scale("early", "late", "train bus teacher doctor runner ship boat class lesson test race"),
    _scale("big", "small", "city village box ship boat family army country apple orange tower building path"),
    _scale("modern", "ancient", "city village bridge tower building language museum ship ring beach watch"),
    _scale("famous", "unknown", "king song museum lawyer beach language city tower queen lake race"),
    _scale("broken", "fixed", "door window radio stove lamp engine computer screen watch ring chair seat truck"),
)


@cache
def held_out_combinations() -> tuple[Combination, ...]:
    """The combinations that are not used in training; each noun and each scale also has combinations that are."""
    combinations = [Combination(noun, scale) for scale in SCALES for noun in scale.nouns]
    random.Random(_HELD_OUT_SEED).shuffle(combinations)
    in_training = Counter(combination.noun for combination in combinations)
    to_hold_out = {scale.name: round(HELD_OUT_SHARE * len(scale.nouns)) for scale in SCALES}
    held_out = []
    for combination in combinations:
        if in_training[combination.noun] > 1 and to_hold_out[combination.scale.name]:
            in_training[combination.noun] -= 1
            to_hold_out[combination.scale.name] -= 1
            held_out.append(combination)
    return tuple(held_out)


@cache
def training_combinations() -> tuple[Combination, ...]:
    """All combinations that are not held out."""
    held_out = set(held_out_combinations())
    combinations = (Combination(noun, scale) for scale in SCALES for noun in scale.nouns)
    return tuple(combination for combination in combinations if combination not in held_out)
