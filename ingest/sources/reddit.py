"""The best posts of a subreddit's last 24 hours: from the API with the user's own app, else from the public Atom feed.

The feed needs no key. It has no score, so that a post's volume is unknown; and it doesn't say which posts are for
adults. What can be done without is done: posts whose authors write NSFW in the title are dropped, and it is yours to
list only subreddits that are fit to show. Reddit allows about one request a minute without a key, and often none (429)
to cloud addresses.

With an app (``ingest.reddit_api`` asks) the answer is the API's listing in JSON, with scores, and posts for adults are
dropped. A post has the same identity in both, so that an app may come and go. The volume is the score: votes up less
votes down. The number of comments is not added, which is another unit.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

from pydantic import StringConstraints

from ingest.observation import Intake, Parsed
from ingest.sources.base import Interval, Region, SourceEntry, epoch, plain_key, read_json
from ingest.sources.rss import entry_date, read_feed
from trendrag.errors import ConfigurationError, ParseError
from trendrag.settings import IngestSettings

ID_VARIABLE = "TRENDRAG_INGEST__REDDIT_CLIENT_ID"
SECRET_VARIABLE = "TRENDRAG_INGEST__REDDIT_CLIENT_SECRET"  # noqa: S105  (a variable's name)
_POST = re.compile(r"(?:^|[/:])(t3_[a-z0-9]{1,12})$")
_MARKED = re.compile(r"\bnsfw\b", re.IGNORECASE)
_PUBLIC = re.compile(r"https://www\.reddit\.com/r/([A-Za-z0-9_]{2,21})/top\.rss\?t=day")


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

    def headers(self, settings: IngestSettings) -> Mapping[str, str]:
        app_keys(settings)  # an app that is set up by half is told before anything is asked
        return {}

    def parse(self, payload: bytes, observed_at: datetime) -> Parsed:
        name = f"Reddit (r/{self.subreddit})"
        intake = Intake(
            self._origin(observed_at, source_type=self.type, family=self.family, name=name, region=self.region)
        )
        if payload.lstrip()[:1] in (b"{", b"["):
            _add_listing(read_json(payload, self.id), intake)
        else:
            _add_feed(read_feed(payload, self.id), intake)
        return intake.parsed()


def app_keys(settings: IngestSettings) -> tuple[str, str] | None:
    """The (id, secret) of the user's Reddit app; None where there is none, and the public feeds are read.

    Raises:
        ConfigurationError: one of the two is missing or can't be a key, or praw is not installed.
    """
    id_, secret = settings.reddit_client_id, settings.reddit_client_secret
    if id_ is None and secret is None:
        return None
    if id_ is None or secret is None:
        missing = ID_VARIABLE if id_ is None else SECRET_VARIABLE
        raise ConfigurationError(f"Your Reddit app needs {missing} too; without both, the public feeds are read")
    if find_spec("praw") is None:
        raise ConfigurationError(
            "Reddit with an app needs praw: pip install 'trendrag[reddit]'. Without the keys, the public feeds are read"
        )
    return plain_key(id_, ID_VARIABLE), plain_key(secret, SECRET_VARIABLE)


def subreddit_of(url: str) -> str | None:
    """The subreddit whose public feed is at ``url``; None for every other address."""
    found = _PUBLIC.fullmatch(url)
    return found[1] if found else None


def _add_feed(feed: Any, intake: Intake) -> None:
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


def _add_listing(data: Any, intake: Intake) -> None:
    inner = data.get("data") if isinstance(data, dict) and data.get("kind") == "Listing" else None
    children = inner.get("children") if isinstance(inner, dict) else None
    if not isinstance(children, list):
        raise ParseError("Reddit: the answer has no list of posts")
    for child in children:
        post = child.get("data") if isinstance(child, dict) and child.get("kind") == "t3" else None
        if not isinstance(post, dict):
            intake.drop("not a post")
            continue
        title, score, link = post.get("title"), post.get("score"), post.get("permalink")
        if post.get("over_18") is not False:
            intake.drop("marked for adults" if post.get("over_18") else "not known to be for everyone")
            continue
        if isinstance(title, str) and _MARKED.search(title[:1000]):
            intake.drop("marked for adults")
            continue
        intake.add(
            "headline",
            title,
            identity=_identity(post.get("name")),
            url=f"https://www.reddit.com{link}" if isinstance(link, str) and link.startswith("/") else link,
            # More votes down than up are no volume.
            volume=max(score, 0) if isinstance(score, int) else score,
            published_at=epoch(post.get("created_utc")),
            live=False,
        )


def _identity(value: object) -> str | None:
    """The post's id ("t3_abc123"), which stays when its address or title change."""
    found = _POST.search(value) if isinstance(value, str) else None
    return found[1] if found else None
