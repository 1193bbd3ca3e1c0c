"""What one observation offers to the topics: the name it is, or the names that it may speak of. Pure, and of it alone.

Which of a headline's names are topics depends on what others offer, and is ``merge``'s to decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingest.headlines import own_phrase
from ingest.observation import Observation, joined_form
from ingest.phrases import headline_text, name_spans, usable_name, without_qualifier

_MIN_CONTAINED = 4
"""Letters that a name must have before its mere appearance in a headline counts."""

_MAX_CONTAINED_WORDS = 6


@dataclass(frozen=True, slots=True)
class Offer:
    """Forms are joined normal forms.

    Attributes:
        form, name, qualifier: of what is a name itself; "" where it is none, or none that a caption could say.
        mentions: of a headline every form that stands in it as whole words; True where it would surely mean a topic of
            that form, False where it may.
        spans: of a headline its runs of capitalised words, by form: topics where another publisher has them as well.
    """

    form: str = ""
    name: str = ""
    qualifier: str | None = None
    mentions: Mapping[str, bool] = field(default_factory=dict)
    spans: Mapping[str, str] = field(default_factory=dict)


def offer(seen: Observation) -> Offer:
    if seen.kind == "headline":
        spans = {joined_form(span): span for span in name_spans(headline_text(seen.title))}
        return Offer(mentions=mentions(seen.title), spans=spans)
    name, qualifier = without_qualifier(seen.title) if seen.kind == "article" else (seen.title, None)
    form = joined_form(name)
    return Offer(form, name, qualifier) if form and usable_name(name) else Offer()


def own_name(seen: Observation) -> str | None:
    """What a headline is about by itself, where no topic of others is named in it; None where that isn't sure."""
    name = own_phrase(seen.title, seen.language)
    return name if name is not None and joined_form(name) else None


def mentions(title: str) -> dict[str, bool]:
    """``Offer.mentions`` of a headline.

    Names of several words are sure. A single word is only as a proper name: capitalised, not first, and in a headline
    that doesn't capitalise everything. (#music is not the topic of every headline about music.) Where a single word is
    capitalised for another reason it may still be a name, and is given as False.
    """
    words = title.split()
    tokens = [(joined_form(word), word.lstrip("\"'“‘«(#")[:1].isupper()) for word in words]
    tokens = [(form, upper) for form, upper in tokens if form]
    title_case = sum(upper for _, upper in tokens[1:]) > len(tokens) / 2
    found: dict[str, bool] = {}
    for start, (_, upper) in enumerate(tokens):
        form = ""
        for length, (part, _) in enumerate(tokens[start : start + _MAX_CONTAINED_WORDS], 1):
            form += part
            if len(form) < _MIN_CONTAINED:
                continue
            proper = length > 1 or (upper and start > 0 and not title_case)
            if proper or upper:
                found[form] = proper or found.get(form, False)
    return found
