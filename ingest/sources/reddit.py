"""The best posts of a subreddit's last 24 hours, from its public Atom feed, which needs no key.

The feed has no score, so that a post's volume is unknown; and it doesn't say which posts are for adults (``over_18`` is
in the API with OAuth only). What can be done without is done: posts whose authors write NSFW in the title are dropped,
and it is yours to list only subreddits that are fit to show. Reddit allows about one request a minute without a key,
and often none (429) to cloud addresses.
"""

import re
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints

from ingest.observation import Intake, Parsed
from ingest.sources.base import Interval, Region, SourceEntry
from ingest.sources.rss import entry_date, read_feed

_POST = re.compile(r"(?:^|[/:])(t3_[a-z0-9]{1,12})$")
_MARKED = re.compile(r"\bnsfw\b", re.IGNORECASE)


class Reddit(SourceEntry):
    """All subreddits are one family: much the same people post in them."""

    type: Literal["reddit"]
    subreddit: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{2,21}$")]
    region: Region | None = None

    every: Interval = timedelta(minutes=30)
    live: ClassVar[bool] = False

    @property
    def family(self) -> str:
        return "reddit"

    def urls(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  (the address does not depend on the day)
        return (f"https://www.reddit.com/r/{self.subreddit}/top.rss?t=day",)

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        feed = read_feed(payload, self.id)
        name = f"Reddit (r/{self.subreddit})"
        intake = Intake(
            self._origin(observed_at, source_type=self.type, family=self.family, name=name, region=self.region)
        )
        for entry in feed.entries:
            title, link = entry.get("title"), entry.get("link")
            if isinstance(title, str) and _MARKED.search(title[:1000]):
                intake.drop("marked for adults")
                continue
            # Not live: the list is of a whole day, and a post's own time is the only one that it speaks of.
            intake.add(
                "headline",
                title,
                identity=_identity(entry.get("id")) or link or None,
                url=link,
                published_at=entry_date(entry),
                live=False,
            )
        return intake.parsed()


def _identity(value: object) -> str | None:
    """The post's id ("t3_abc123"), which stays when its address or title change."""
    found = _POST.search(value) if isinstance(value, str) else None
    return found[1] if found else None
