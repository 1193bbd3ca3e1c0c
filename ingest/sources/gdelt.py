"""News articles of the last day that match a query, from GDELT's DOC API. Volumes are unknown.

GDELT's answers are damaged now and then: backslashes that escape nothing, raw control characters, text behind the end,
an end that is missing. The articles that are whole are kept and the others counted. Complaints come as one line of
plain text with status 200; they are passed on in GDELT's words. Languages and countries come as English names.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import StringConstraints

from ingest.observation import Intake, Parsed, title_line
from ingest.sources.base import Interval, SourceEntry, instead_of_data, looks_like_html
from trendrag.errors import ParseError
from trendrag.text import clean_line, normal_form

MAX_RECORDS = 250
_MAX_COMPLAINT_CHARS = 200
_MAX_ARTICLE_CHARS = 20_000
_MAX_STARTS = 4 * MAX_RECORDS
"""Places tried as the beginning of an article in a damaged answer; a bound for hostile ones."""

_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\')
_LIST = re.compile(r'"articles"\s*:\s*\[')
_SITE = re.compile(r"(?:www\.)?([\w.-]{1,60})")
_ARTICLE = re.compile(r'\{\s*"[a-z_]{1,20}"\s*:')
# Not strict: a control character within a string is taken as it is, and cleaned with the title.
_JSON = json.JSONDecoder(strict=False)

_LANGUAGE_NAMES = """
afrikaans=af albanian=sq amharic=am arabic=ar armenian=hy azerbaijani=az basque=eu belarusian=be bengali=bn bosnian=bs
bulgarian=bg burmese=my catalan=ca chinese=zh croatian=hr czech=cs danish=da dutch=nl english=en estonian=et finnish=fi
french=fr galician=gl georgian=ka german=de greek=el gujarati=gu hebrew=he hindi=hi hungarian=hu icelandic=is
indonesian=id irish=ga italian=it japanese=ja kannada=kn kazakh=kk khmer=km korean=ko kurdish=ku kyrgyz=ky lao=lo
latvian=lv lithuanian=lt macedonian=mk malay=ms malayalam=ml maltese=mt marathi=mr mongolian=mn nepali=ne norwegian=no
norwegiannynorsk=nn pashto=ps persian=fa polish=pl portuguese=pt punjabi=pa romanian=ro russian=ru serbian=sr sinhala=si
sinhalese=si slovak=sk slovenian=sl somali=so spanish=es swahili=sw swedish=sv tamil=ta telugu=te thai=th tibetan=bo
turkish=tr ukrainian=uk urdu=ur uzbek=uz vietnamese=vi welsh=cy
"""
_COUNTRY_NAMES = """
albania=AL algeria=DZ argentina=AR armenia=AM australia=AU austria=AT azerbaijan=AZ bahrain=BH bangladesh=BD belarus=BY
belgium=BE bolivia=BO bosniaherzegovina=BA brazil=BR bulgaria=BG cambodia=KH cameroon=CM canada=CA chile=CL china=CN
colombia=CO costarica=CR croatia=HR cuba=CU cyprus=CY czechrepublic=CZ denmark=DK dominicanrepublic=DO ecuador=EC
egypt=EG elsalvador=SV estonia=EE ethiopia=ET finland=FI france=FR georgia=GE germany=DE ghana=GH greece=GR guatemala=GT
honduras=HN hongkong=HK hungary=HU iceland=IS india=IN indonesia=ID iran=IR iraq=IQ ireland=IE israel=IL italy=IT
jamaica=JM japan=JP jordan=JO kazakhstan=KZ kenya=KE kuwait=KW latvia=LV lebanon=LB lithuania=LT luxembourg=LU
macedonia=MK malaysia=MY malta=MT mexico=MX moldova=MD mongolia=MN morocco=MA nepal=NP netherlands=NL newzealand=NZ
nicaragua=NI nigeria=NG northkorea=KP norway=NO oman=OM pakistan=PK panama=PA paraguay=PY peru=PE philippines=PH
poland=PL portugal=PT puertorico=PR qatar=QA romania=RO russia=RU saudiarabia=SA senegal=SN serbia=RS singapore=SG
slovakrepublic=SK slovakia=SK slovenia=SI southafrica=ZA southkorea=KR spain=ES srilanka=LK sweden=SE switzerland=CH
syria=SY taiwan=TW tanzania=TZ thailand=TH tunisia=TN turkey=TR uganda=UG ukraine=UA unitedarabemirates=AE
unitedkingdom=GB unitedstates=US uruguay=UY uzbekistan=UZ venezuela=VE vietnam=VN zambia=ZM zimbabwe=ZW
"""


def _table(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split())


_LANGUAGES, _COUNTRIES = _table(_LANGUAGE_NAMES), _table(_COUNTRY_NAMES)


class Gdelt(SourceEntry):
    """``query`` is in GDELT's own language: ``"latte art" sourcelang:english``.

    GDELT only points at what others published: each article is of its own site's family. The same headline at several
    sites is an agency's or a chain's and says no more than once, so that the first of them alone is taken.
    """

    type: Literal["gdelt"]
    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]

    every: Interval = timedelta(minutes=30)
    live: ClassVar[bool] = False

    @property
    def family(self) -> str:
        return "gdelt"

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the span is told relative to now)
        base = "https://api.gdeltproject.org/api/v2/doc/doc"
        query = quote(self.query, safe="")
        return (f"{base}?query={query}&mode=artlist&format=json&maxrecords={MAX_RECORDS}&timespan=1d",)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        intake = Intake(self._origin(observed_at, source_type=self.type, family=self.family, name="GDELT"))
        told: set[str] = set()
        for article in _articles(payload, intake):
            if not isinstance(article, dict):
                intake.drop("not an item")
                continue
            form = normal_form(title_line(article.get("title")))
            if form and form in told:
                intake.drop("the same headline at another site")
                continue
            told.add(form)
            _add(article, intake)
        return intake.parsed()


def _add(article: dict[str, Any], intake: Intake) -> None:
    url, domain = article.get("url"), article.get("domain")
    found = _SITE.fullmatch(domain.strip().lower()) if isinstance(domain, str) else None
    site = found[1] if found else None
    intake.add(
        "headline",
        article.get("title"),
        identity=url if isinstance(url, str) and url.strip() else None,
        url=url,
        published_at=seen_date(article.get("seendate")),
        live=False,
        language=_named(article.get("language"), _LANGUAGES),
        region=_named(article.get("sourcecountry"), _COUNTRIES),
        name=f"{site} (GDELT)" if site else None,
        family=site,
    )


def seen_date(value: object) -> datetime | None:
    """When GDELT saw the article, from "20261120T084500Z": to a quarter of an hour, and soon after its publication."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.strptime(value, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _named(name: object, table: dict[str, str]) -> str | None:
    return table.get(re.sub(r"[^a-z]", "", name[:60].lower())) if isinstance(name, str) else None


def _articles(payload: bytes, intake: Intake) -> list[Any]:
    """The list of articles, or what can be read of it.

    Raises:
        ParseError: the answer is no list of articles, not even a damaged one.
    """
    text = payload.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if not text.startswith("{"):
        raise ParseError(f"GDELT: {_complaint(payload)}")
    # Valid escapes are left alone, so that this changes nothing in a proper answer.
    text = _ESCAPE.sub(lambda found: found[0] if len(found[0]) > 1 else r"\\", text)
    try:
        data, _end = _JSON.raw_decode(text)
    except (ValueError, RecursionError):
        whole = list(_whole_articles(text, intake))
        if not whole:
            raise ParseError(f"GDELT: {instead_of_data(payload)}") from None
        return whole
    # A query that finds nothing is answered with an empty object.
    articles = data.get("articles", [] if data == {} else None)
    if not isinstance(articles, list):
        raise ParseError("GDELT: the answer has no list of articles")
    return articles


def _whole_articles(text: str, intake: Intake) -> Iterator[Any]:
    head = _LIST.search(text)
    end = head.end() if head else len(text)
    for tried, start in enumerate(_ARTICLE.finditer(text, end)):
        if start.start() < end:
            continue  # within an article that was read
        if tried >= _MAX_STARTS:
            break
        try:
            article, length = _JSON.raw_decode(text[start.start() : start.start() + _MAX_ARTICLE_CHARS])
        except (ValueError, RecursionError):
            intake.drop("damaged item")
            continue
        end = start.start() + length
        yield article


def _complaint(payload: bytes) -> str:
    """What is to be said of an answer that isn't JSON: GDELT's own words, where it is text."""
    try:
        text = payload.decode("utf-8").strip()
    except UnicodeDecodeError:
        return instead_of_data(payload)
    readable = all(char.isprintable() or char.isspace() for char in text[:2_000])
    said = clean_line(text, _MAX_COMPLAINT_CHARS) if readable and not looks_like_html(payload) else ""
    return f'it answered "{said}"' if any(char.isalpha() for char in said) else instead_of_data(payload)
