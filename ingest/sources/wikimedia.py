"""The articles of a Wikipedia that were read most, a day in arrears: yesterday's list, or the one before that."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import StringConstraints

from ingest.observation import Intake, Parsed
from ingest.sources.base import Interval, SourceEntry, read_json
from trendrag.errors import ParseError

# The main page and the namespaces that are not articles, in the languages of the default sources.
_NOT_ARTICLES = {
    "main_page", "-", "search", "hauptseite", "accueil_principal", "wikipédia:accueil_principal", "portada",
    "pagina_principale", "hoofdpagina", "404.php", "index.php", "undefined", "wiki", "cookie_(informatique)", "null",
}  # fmt: skip
_NAMESPACES = re.compile(
    r"^(special|spezial|spécial|especial|speciale|wikipedia|wikipédia|wikipedia_talk|portal|portail|file|datei|fichier"
    r"|archivo|user|benutzer|utilisateur|usuario|help|hilfe|aide|ayuda|category|kategorie|catégorie|categoría|template"
    r"|speciaal|bestand|gebruiker|categorie|overleg|portaal|portale|utente|categoria|aiuto|file_talk|ficheiro|usuário\(a\)"
    r"|ajuda|predefinição|vorlage|modèle|talk|diskussion|discussion|discusión|mediawiki|module|draft|topic):",
    re.IGNORECASE,
)
_TOP = 100
"""Articles are taken from the first so many; below, the list is the encyclopaedia's everyday."""


class Wikimedia(SourceEntry):
    """``project`` is e.g. ``en.wikipedia``."""

    type: Literal["wikimedia"]
    project: Annotated[str, StringConstraints(pattern=r"^[a-z-]{2,12}\.wikipedia$")]

    every: Interval = timedelta(hours=3)
    live: ClassVar[bool] = False

    @property
    def family(self) -> str:
        return "wikimedia"

    def urls(self, now: datetime) -> tuple[str, ...]:
        days = (now.astimezone(UTC) - timedelta(days=back) for back in (1, 2))
        base = f"https://wikimedia.org/api/rest_v1/metrics/pageviews/top/{self.project}/all-access"
        return tuple(f"{base}/{day:%Y/%m/%d}" for day in days)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        day, articles = _day(read_json(payload, self.project), self.project)
        language = self.language if self.language != "und" else self.project.partition(".")[0]
        name = f"Wikipedia ({self.project.partition('.')[0]})"
        intake = Intake(
            self._origin(observed_at, source_type=self.type, family=self.family, name=name, language=language)
        )
        taken = 0
        for item in articles:
            title = item.get("article") if isinstance(item, dict) else None
            if not isinstance(title, str):
                intake.drop("no usable title")
                continue
            if title.casefold() in _NOT_ARTICLES or _NAMESPACES.match(title):
                intake.drop("not an article")
                continue
            if taken == _TOP:
                intake.drop("below the top of the list")
                continue
            taken += 1
            intake.add(
                "article",
                title.replace("_", " "),
                identity=title,
                url=f"https://{self.project}.org/wiki/{quote(title, safe='', errors='replace')}",
                volume=item.get("views"),
                # Its readers came during that day; its end is the latest that the list speaks of.
                published_at=min(day + timedelta(hours=24), observed_at),
                live=False,
                bucket=f"{day:%Y-%m-%d}",
            )
        return intake.parsed()


def _day(data: Any, project: str) -> tuple[datetime, list[Any]]:
    """(the day the list is of, its articles)."""
    items = data.get("items") if isinstance(data, dict) else None
    first = items[0] if isinstance(items, list) and items else None
    articles = first.get("articles") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(articles, list):
        raise ParseError(f"{project}: the answer has no list of articles")
    try:
        day = datetime(int(first["year"]), int(first["month"]), int(first["day"]), tzinfo=UTC)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise ParseError(f"{project}: the list does not say which day it is of") from error
    if not 2000 <= day.year < 9999:
        raise ParseError(f"{project}: the list is of an impossible day")
    return day, articles
