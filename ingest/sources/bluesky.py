"""Bluesky's trending topics. The volume is how many posts there are on one.

Bluesky marks this call as "unspecced": it may change or vanish without notice, which then shows as a source that fails.
"""

import re
from datetime import datetime
from typing import Any, Literal

from ingest.observation import Intake, Parsed
from ingest.sources.base import SourceEntry, iso_date, read_json
from trendrag.errors import ParseError

_CATEGORY = re.compile(r"[a-z][a-z-]{1,29}")


class Bluesky(SourceEntry):
    type: Literal["bluesky"]

    @property
    def family(self) -> str:
        return "bluesky"

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the address does not depend on the day)
        return ("https://public.api.bsky.app/xrpc/app.bsky.unspecced.getTrends?limit=25",)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        data = read_json(payload, "Bluesky")
        trends = data.get("trends") if isinstance(data, dict) else None
        if not isinstance(trends, list):
            raise ParseError("Bluesky: the answer has no list of trends")
        intake = Intake(self._origin(observed_at, source_type=self.type, family=self.family, name="Bluesky"))
        for trend in trends:
            if isinstance(trend, dict):
                _add(trend, intake)
            else:
                intake.drop("not an item")
        return intake.parsed()


def _add(trend: dict[str, Any], intake: Intake) -> None:
    topic, shown, category = trend.get("topic"), trend.get("displayName"), trend.get("category")
    title = shown or topic
    intake.add(
        "hashtag" if isinstance(title, str) and title.startswith("#") else "phrase",
        title,
        # The name for people may be reworded while the topic stays.
        identity=topic if isinstance(topic, str) and topic.strip() else None,
        url=_page(trend.get("link")),
        volume=trend.get("postCount"),
        published_at=iso_date(trend.get("startedAt")),
        categories=_categories(category),
    )


def _page(link: object) -> object:
    """Links are given without their host."""
    return f"https://bsky.app{link}" if isinstance(link, str) and link.startswith("/") else link


def _categories(category: object) -> tuple[str, ...]:
    usable = isinstance(category, str) and _CATEGORY.fullmatch(category) and category != "other"
    return (str(category),) if usable else ()
