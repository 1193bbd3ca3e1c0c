"""YouTube's most popular videos of a country, which since 2025 are music, films and games only. Views are the volume.

Needs a key of the YouTube Data API; one request costs one of its 10,000 units a day. The key is sent as a header, never
as a part of the address, and is known only to the settings.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from ingest.observation import Intake, Parsed
from ingest.sources.base import Interval, Region, SourceEntry, iso_date, language_tag, plain_key, read_json
from trendrag.errors import ConfigurationError, ParseError
from trendrag.settings import IngestSettings

_VIDEO = re.compile(r"[A-Za-z0-9_-]{1,20}")
_VARIABLE = "TRENDRAG_INGEST__YOUTUBE_KEY"
_CATEGORIES = {"1": "film", "10": "music", "20": "gaming", "30": "film"}
"""By YouTube's ``categoryId``; others are left unnamed."""


class YouTube(SourceEntry):
    type: Literal["youtube"]
    region: Region

    every: Interval = timedelta(minutes=30)

    @property
    def family(self) -> str:
        return "youtube"

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the address does not depend on the day)
        # contentDetails costs nothing more and says which videos are for adults.
        parts = "snippet,statistics,contentDetails"
        base = "https://www.googleapis.com/youtube/v3/videos"
        return (f"{base}?part={parts}&chart=mostPopular&maxResults=50&regionCode={self.region}",)

    def headers(self, settings: IngestSettings) -> Mapping[str, str]:
        if settings.youtube_key is None:
            raise ConfigurationError(
                f"The source {self.id} needs a key of the YouTube Data API: set {_VARIABLE} or remove the entry"
            )
        return {"X-Goog-Api-Key": plain_key(settings.youtube_key, _VARIABLE)}

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        data = read_json(payload, "YouTube")
        items = data.get("items") if isinstance(data, dict) else None
        if not isinstance(items, list):
            raise ParseError("YouTube: the answer has no list of videos")
        intake = Intake(
            self._origin(observed_at, source_type=self.type, family=self.family, name="YouTube", region=self.region)
        )
        for item in items:
            if not isinstance(item, dict):
                intake.drop("not an item")
            elif _part(_part(item, "contentDetails"), "contentRating").get("ytRating") == "ytAgeRestricted":
                intake.drop("marked for adults")
            else:
                _add(item, intake)
        return intake.parsed()


def _add(item: dict[str, Any], intake: Intake) -> None:
    snippet, number = _part(item, "snippet"), item.get("id")
    known = isinstance(number, str) and bool(_VIDEO.fullmatch(number))
    language = language_tag(snippet.get("defaultAudioLanguage")) or language_tag(snippet.get("defaultLanguage"))
    category = snippet.get("categoryId")
    named = _CATEGORIES.get(category) if isinstance(category, str) else None
    intake.add(
        "headline",
        snippet.get("title"),
        identity=number if known else None,
        url=f"https://www.youtube.com/watch?v={number}" if known else None,
        volume=_part(item, "statistics").get("viewCount"),
        published_at=iso_date(snippet.get("publishedAt")),
        language=language,
        categories=(named,) if named else (),
    )


def _part(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}
