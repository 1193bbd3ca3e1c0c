"""The phrase that a headline is about, where that is sure. Pure text; the word lists are in ``headlines.toml``.

Sure is a work's title in quotes, what stands before a colon, the one name in a sentence, what a list is a list of, and
a headline that is no sentence at all. Everything else gives nothing: a trend that nobody would say costs more than one
that is missed, and merge still counts the headline for the names that others gave.
"""

import re

from ingest.headline_names import name_of_sentence
from ingest.headline_words import WORD, fold, lists, sentence, tokens, verbs
from ingest.phrases import headline_text, quoted_title, usable_name

_MAX_HEAD = 4
_MAX_NAMED_HEAD = 6
_MAX_WHOLE = 5
_MAX_NOUNS = 3
_COLON = re.compile(r"\s?:\s+")
_ASKS = re.compile(r"^(show|launch) hn\s*[:–-]\s*", re.IGNORECASE)
_ASK = re.compile(r"^(ask|tell) hn\b", re.IGNORECASE)
_MAKER = re.compile(r"^([A-Z][\w.-]{2,30})(?:\s*\(YC [A-Z]?\d{2}\))?\s+[–—-]\s+\S")
_QUOTES = re.compile(r"[“”„\"«»‘]|(?<!\w)['’](?=\w)|(?<=\w)['’](?!\w)")
_WHOLE_QUOTE = re.compile(r"^(?:“([^”]+)”|‘([^’]+)’|\"([^\"]+)\"|'([^']+)'|„([^“”]+)[“”]|«\s*([^»]+?)\s*»)$")
_SMALL_QUOTE = re.compile(r"(?<!\w)(?:“([^“”]{3,40})”|‘([^‘’]{3,40})’|'([^']{3,40})'|\"([^\"]{3,40})\")(?!\w)")
_TITLE_QUOTE = re.compile(r"«\s*([^«»]{3,60}?)\s*»|“([^“”]{3,60})”|„([^“”„]{3,60})[“”]")
_REVIEWED = re.compile(r"^[‘'“\"]([^’'”\"]{2,60})[’'”\"]\s+review\b", re.IGNORECASE)
_LIST = re.compile(
    r"^(?:the\s+)?(?:(?:\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten|twelve)\s+)?"
    r"(?:(?:best|easy|great|top|simple|quick)\s+)*([\w'’-]+(?:\s+[\w'’-]+){0,2}?)\s+(?:for|to|in|of|that|from|around)\b",
    re.IGNORECASE,
)
_LISTED = re.compile(
    r"^(?:the\s+)?(?:\d|best|top|(?:two|three|four|five|six|seven|eight|nine|ten|twelve)\b|die schonsten)",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


def own_phrase(title: str, language: str = "und") -> str | None:
    """What the headline is about, as a caption could say it: a few words of the headline. None where it isn't sure."""
    language = language.partition("-")[0].casefold()
    if _ASK.match(title):
        return _checked(_ask(title, language))
    maker = _ASKS.match(title)
    shown = _ASKS.sub("", title)
    if maker and (found := _MAKER.match(shown)):
        return found[1]
    behind = _without_section(shown)
    if behind is None:
        return None
    text = headline_text(behind)
    for rule in (_quoted, _headed, _listed, _cued, name_of_sentence, _whole):
        if found_here := rule(text, language):
            return _checked(found_here)
        if found_here == "":
            return None
    return None


# A rule gives a phrase, None where it has nothing to say, and "" where it knows that there is none.


def _checked(phrase: str | None) -> str | None:
    said = phrase.strip(" ,.;:–—-'’‘\"“”") if phrase else ""
    return said if usable_name(said) else None


def _ask(title: str, language: str) -> str | None:
    text = headline_text(title)
    return None if text.endswith("?") or sentence(tokens(text), language) else text


def _without_section(text: str) -> str | None:
    """The text behind "Live:" or "In pictures:"; None where a section says that no topic follows."""
    head, colon, rest = _split(text)
    section = fold(head)
    if not colon:
        return text
    if section in lists().sections["skipped"]:
        return rest
    last = section.split()[-1] if section.split() else ""
    return None if section in lists().sections["opinion"] or last in lists()["closing"] else text


def _split(text: str) -> tuple[str, bool, str]:
    found = _COLON.search(text)
    return (text[: found.start()], True, text[found.end() :]) if found else (text, False, "")


def _quoted(text: str, language: str) -> str | None:
    if found := _REVIEWED.match(text):
        return found[1]
    said = set(tokens(text)) & lists()["speech"]
    if (title := quoted_title(text)) and not (set(tokens(title)) & lists()["spoken"]):
        return title
    for match in _TITLE_QUOTE.finditer(text):
        inside = next(group for group in match.groups() if group is not None)
        words = tokens(inside)
        named = (
            inside[:1].isupper() and words[0] in lists()["title_articles"] and 2 <= len(words) <= 6 and language != "en"
        )
        if named and not set(words) & lists()["spoken"] and not said:
            return inside
    small = [next(group for group in match.groups() if group) for match in _SMALL_QUOTE.finditer(text)]
    if len(small) == 1 and language == "en" and not said:
        words = tokens(small[0])
        stop = lists()["spoken"] | lists()["openers"] | lists()["leading"]
        if 2 <= len(words) <= 3 and small[0].islower() and "," not in small[0] and not set(words) & stop:
            return small[0]
    return None


def _headed(text: str, language: str) -> str | None:
    head, colon, rest = _split(text)
    if not colon:
        return None
    if whole := _WHOLE_QUOTE.match(head):
        head = next(group for group in whole.groups() if group)
    words = tokens(head)
    known = lists()
    if not words or "," in head or head.endswith("?") or _opens(head) or words[-1] in known["speech"]:
        return ""
    if title := _subtitled(head, rest, language):
        return title
    head = _without_tail(head)
    words = tokens(head)
    named = sum(word[:1].isupper() for word in WORD.findall(head)) > len(words) / 2
    if (
        len(words) > (_MAX_NAMED_HEAD if named else _MAX_HEAD)
        or set(words[1:]) & verbs(language) - lists()["also_nouns"]
    ):
        return None if not whole else head
    opening = tokens(rest)[:1]
    if set(words) & known["public"] or (
        len(words) == 1 and (words[0] in known["heavy"] or words[0] in known["places"])
    ):
        return ""
    # "Trump: I will decide": who speaks is no topic.
    if (
        len(words) <= 2
        and opening
        and opening[0] in ("i", "we", "my", "no", "not", "ich", "wir", "je", "nous", "yo", "io")
    ):
        return ""
    if _QUOTES.match(rest.strip()[:1]) and len(words) <= 2 and len(tokens(rest)) > 4:
        return ""
    return head


def _opens(head: str) -> bool:
    """Whether it begins like a question, an order or speech; "US Open" does not."""
    first = WORD.findall(head)[0]
    return fold(first) in lists()["openers"] and not (first.isupper() and len(first) > 1)


def _subtitled(head: str, rest: str, language: str) -> str | None:
    """ "Wicked: For Good" of "Wicked: For Good breaks a record": two capitalised words, then a verb."""
    parts = WORD.findall(rest)
    if language != "en" or len(tokens(head)) != 1 or len(parts) < 4:
        return None
    first, second, third = parts[:3]
    fits = first[0].isupper() and second[0].isupper() and third.islower() and fold(third) in lists()["verbs"]
    return f"{head}: {first} {second}" if fits and fold(first) in lists()["until"] else None


def _without_tail(head: str) -> str:
    return re.sub(
        r"\s+(?:today|tonight|heute|live|review|explained|kritik|aujourd['’]hui|hoy|oggi)$",
        "",
        head,
        flags=re.IGNORECASE,
    )


def _listed(text: str, language: str) -> str | None:
    """What "The 15 best Christmas markets in Europe" are."""
    if not _LISTED.match(fold(text)):
        return None
    if found := _LIST.match(text):
        words = found[1].split()
        while words and (
            words[0].isdigit() or fold(words[0]) in lists()["leading"] or fold(words[0]) in ("quite", "ordinary")
        ):
            words.pop(0)
        folded = [fold(word) for word in words]
        if len(words) >= 2 and folded[-1].endswith("s") and not set(folded) & (verbs(language) | {"ways", "things"}):
            return " ".join(words)
    return None


def _cued(text: str, language: str) -> str | None:
    """What follows words such as "the return of the"."""
    folded = text.casefold().replace("’", "'")
    for cue in lists().cues:
        start = folded.find(cue)
        if start != 0 and (start < 0 or folded[start - 1] != " " or not cue.endswith(("for", "about"))):
            continue
        rest = _ARTICLE.sub("", text[start + len(cue) :].lstrip(" ,"))
        nouns: list[str] = []
        for word in WORD.finditer(rest):
            gap = rest[: word.start()].strip()[-1:] in (",", ":", ";", ".", "–")
            if fold(word[0]) in lists()["until"] or (gap and nouns):
                break
            nouns.append(word[0])
        few = 2 <= len(nouns) <= _MAX_NOUNS or (len(nouns) == 4 and nouns[0][:1].isupper())
        if few and not sentence([fold(noun) for noun in nouns], language):
            return " ".join(nouns)
    return None


def _whole(text: str, language: str) -> str | None:
    """A short headline that is no sentence. Not where it is surely not English: there too many verbs are unknown."""
    if language not in ("en", "und"):
        return None
    words = tokens(text)
    counted = [word for word in words if word not in ("a", "an", "the")]
    if not 2 <= len(counted) <= _MAX_WHOLE or text.endswith(("?", "!", ":")) or "," in text or _QUOTES.search(text):
        return None
    if (
        words[0] in lists()["openers"] | lists()["until"] | {"inside"}
        or sentence(words, language)
        or set(words) & lists()["public"]
    ):
        return None
    where = {fold(word) for word in WORD.findall(text) if word[:1].isupper()} & lists()["places"]
    return None if where else text
