"""Hacker News' front page, through Algolia's public search. Points are its volume."""

from datetime import datetime
from typing import Literal

from ingest.observation import Intake, Parsed
from ingest.sources.base import SourceEntry, epoch, read_json
from trendrag.errors import ParseError


class HackerNews(SourceEntry):
    type: Literal["hackernews"]

    @property
    def family(self) -> str:
        return "hackernews"

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the address does not depend on the day)
        return ("https://hn.algolia.com/api/v1/search?tags=front_page&hitsPerPage=50",)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        data = read_json(payload, "Hacker News")
        hits = data.get("hits") if isinstance(data, dict) else None
        if not isinstance(hits, list):
            raise ParseError("Hacker News: the answer has no list of hits")
        intake = Intake(self._origin(observed_at, source_type=self.type, family=self.family, name="Hacker News"))
        for hit in hits:
            if not isinstance(hit, dict):
                intake.drop("not an item")
                continue
            number = hit.get("objectID")
            known = isinstance(number, str) and number.isascii() and number.isdigit()
            page = f"https://news.ycombinator.com/item?id={number}" if known else None
            intake.add(
                "headline",
                hit.get("title"),
                identity=number if known else None,
                url=hit.get("url") or page,
                volume=hit.get("points"),
                published_at=epoch(hit.get("created_at_i")),
            )
        return intake.parsed()
