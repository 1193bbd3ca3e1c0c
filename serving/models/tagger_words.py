"""What a person would say for an ImageNet class.

ImageNet knows 118 breeds of dog and no "dog". A breed is rarely sure and rarely what a caption needs, so classes of one
everyday thing share its word; the others keep their name, less its explanations.
Pure functions; class numbers are those of ImageNet-1k.
"""

import re
from collections.abc import Mapping, Sequence

_GROUPS: tuple[tuple[str, tuple[int | tuple[int, int], ...]], ...] = (
    ("fish", (0, (389, 392), (394, 397))),
    ("shark", ((2, 4),)),
    ("bird", ((10, 20), (80, 83), 85, 86, (91, 93), 95, 96, (127, 129), (131, 144), 146)),
    ("rooster", (7,)),
    ("owl", (24,)),
    ("frog", ((30, 32),)),
    ("turtle", ((33, 37),)),
    ("lizard", ((38, 48),)),
    ("crocodile", (49, 50)),
    ("snake", ((52, 68),)),
    ("spider", ((72, 77),)),
    ("parrot", ((87, 90),)),
    ("duck", (97, 98)),
    ("elephant", (101, 385, 386)),
    ("crab", ((118, 121),)),
    ("lobster", (122, 123)),
    ("penguin", (145,)),
    ("whale", (147, 148)),
    ("dog", ((151, 268),)),
    ("wolf", ((269, 271),)),
    ("fox", ((277, 280),)),
    ("cat", ((281, 285),)),
    ("bear", ((294, 297),)),
    ("beetle", ((300, 307),)),
    ("butterfly", ((321, 326),)),
    ("rabbit", ((330, 332),)),
    ("horse", (339,)),
    ("pig", (341, 342)),
    ("sheep", (348, 349)),
    ("monkey", ((368, 382),)),
    ("panda", (388,)),
    ("plane", (404, 895)),
    ("bicycle", (444, 671)),
    ("car", (436, 511, 609, 627, 656, 661, 751, 817)),
    ("taxi", (468,)),
    ("truck", (555, 569, 675, 717, 864, 867)),
    ("scooter", (665, 670)),
    ("train", (466, 547, 705, 820)),
    ("boat", (472, 554, 576, 625, 814)),
    ("sailing boat", (724, 780, 871, 914)),
    ("ship", (403, 510, 628)),
    ("historic building", (442, 483, 663, 698)),
    ("cup", (504, 968)),
    ("laptop", (620, 681)),
    ("guitar", (402, 546)),
    ("ball", (430, 522, 574, 722, 747, 768, 805, 852, 890)),
    ("flower", (985, 986)),
    ("mushroom", ((991, 997),)),
    ("mountain", (970, 980)),
    ("beach", (977, 978)),
    ("lake", (975,)),
)


def _expand() -> dict[int, str]:
    words: dict[int, str] = {}
    for word, members in _GROUPS:
        for member in members:
            first, last = member if isinstance(member, tuple) else (member, member)
            words.update(dict.fromkeys(range(first, last + 1), word))
    return words


_WORDS: Mapping[int, str] = _expand()


def plain_words(labels: Sequence[str]) -> tuple[str, ...]:
    """The everyday word of each class, given the names of the classes in their order."""
    return tuple(_WORDS.get(number) or plain_name(label) for number, label in enumerate(labels))


def plain_name(label: str) -> str:
    """A name without what explains or continues it: "kite (bird of prey)" and "cardboard box / carton" end early."""
    return re.split(r"\s*(?:\(|/|,)", label, maxsplit=1)[0].strip()
