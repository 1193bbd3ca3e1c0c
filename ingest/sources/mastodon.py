"""A Mastodon server's trending tags or links. The volume is how many accounts used them on the busier of two days.

Each item carries a week of days with their numbers (as strings), which serve as its own baseline. Servers of the
federation see much the same posts, so that all of them are one family.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from ingest.observation import Intake, Parsed
from ingest.sources.base import Host, SourceEntry, iso_date, language_tag, read_json
from trendrag.errors import ParseError

_LIMIT = {"tags": 20, "links": 20}


class Mastodon(SourceEntry):
    type: Literal["mastodon"]
    host: Host
    what: Literal["tags", "links"] = Field(default="tags")

    @property
    def family(self) -> str:
        return "mastodon"

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the address does not depend on the day)
        return (f"https://{self.host}/api/v1/trends/{self.what}?limit={_LIMIT[self.what]}",)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        items = read_json(payload, self.host)
        if not isinstance(items, list):
            raise ParseError(f"{self.host}: the answer is not a list of {self.what}")
        name = f"Mastodon ({self.host})"
        intake = Intake(self._origin(observed_at, source_type=self.type, family=self.family, name=name))
        for item in items:
            if not isinstance(item, dict):
                intake.drop("not an item")
            elif self.what == "tags":
                _add_tag(item, intake)
            else:
                _add_link(item, intake)
        return intake.parsed()


def _add_tag(item: dict[str, Any], intake: Intake) -> None:
    name = item.get("name")
    if not isinstance(name, str) or not name.strip("#＃ "):
        intake.drop("no usable title")
        return
    volume, usual = accounts(item.get("history"))
    intake.add("hashtag", "#" + name.strip("#＃ "), url=item.get("url"), volume=volume, usual=usual)


def _add_link(item: dict[str, Any], intake: Intake) -> None:
    volume, usual = accounts(item.get("history"))
    url = item.get("url")
    intake.add(
        "headline",
        item.get("title"),
        identity=url if isinstance(url, str) and url else None,
        url=url,
        volume=volume,
        usual=usual,
        published_at=iso_date(item.get("published_at")),
        language=language_tag(item.get("language")),
    )


def accounts(history: object) -> tuple[int | None, float | None]:
    """(accounts on the busier of today and yesterday, mean of the days before) from newest-first days.

    Two days, because just after midnight today's number is nearly nothing. The mean is None without earlier days.
    """
    if not isinstance(history, list):
        return None, None
    counts = [_count(day.get("accounts")) for day in history[:14] if isinstance(day, dict)]
    known = [count for count in counts if count is not None]
    if not known:
        return None, None
    earlier = known[2:]
    return max(known[:2]), (sum(earlier) / len(earlier) if earlier else None)


def _count(value: object) -> int | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
