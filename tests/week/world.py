"""A made-up world for a week: what each source would answer at each moment, and when each topic was really there last.

Deterministic: the same world every time. Topics are born, talked of for some hours, and never heard of again. Knows the
formats of the sources and nothing of what becomes of them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
BORN_PER_HOUR = 2

OUTAGE = range(84, 96)
"""Hours in which nothing answers: the second half of day 4."""

GONE_FROM = 40
RUBBISH_FROM = 50

_FIRST = (
    "Copper", "Velvet", "Lantern", "Marble", "Juniper", "Saffron", "Willow", "Cobalt", "Amber", "Harbour", "Meadow",
    "Orchard", "Pebble", "Clover", "Ribbon", "Maple", "Cedar", "Indigo", "Coral", "Walnut",
)  # fmt: skip
_SECOND = (
    "Waltz", "Noodle", "Kite", "Dumpling", "Sonata", "Mural", "Regatta", "Quilt", "Pancake", "Telescope", "Carousel",
    "Puppet", "Cider", "Chess", "Ballad", "Lagoon", "Teapot", "Origami", "Bakery", "Sundial",
)  # fmt: skip
_EVERGREEN = ("Bicycle", "Chocolate", "Piano", "Mount Fuji", "Honey bee")


@dataclass(frozen=True)
class Topic:
    name: str
    born: datetime
    ends: datetime
    peak: int

    def volume(self, at: datetime) -> int:
        """Grows for the first third of its life, then shrinks; 0 outside of it."""
        if not self.born <= at < self.ends:
            return 0
        part = (at - self.born) / (self.ends - self.born)
        return max(10, int(self.peak * (part * 3 if part < 1 / 3 else (1 - part) * 1.5)))

    @property
    def tag(self) -> str:
        return self.name.replace(" ", "")

    def headline(self, number: int) -> str:
        words = ("Crowds enjoy the {} in the old town", "How the {} won the weekend", "Everyone now tries the {}")
        return words[number % len(words)].format(self.name)


@dataclass
class World:
    """``answer`` is what the server says at the present ``now``; ``last_said`` grows with what it has said."""

    hours: int
    now: datetime = START
    last_said: dict[str, datetime] = field(default_factory=dict)
    """By topic name: the latest moment that any answer so far has spoken of it."""

    def __post_init__(self) -> None:
        random = Random(7)  # noqa: S311  (a world is no secret)
        names = [f"{first} {second}" for first in _FIRST for second in _SECOND]
        random.shuffle(names)
        births = (START + (each // BORN_PER_HOUR - 12) * HOUR for each in range((self.hours + 12) * BORN_PER_HOUR))
        self.topics = [
            Topic(name, born, born + random.randint(4, 30) * HOUR, random.randint(200, 5000))
            for name, born in zip(names, births, strict=False)
        ]
        # The dead paper's news is of before the week, and its undated item was new when it was first fetched.
        self.stale = [Topic(f"Yesterday's {name}", START - 20 * HOUR, START - 10 * HOUR, 100) for name in _SECOND[:5]]

    @property
    def hour(self) -> int:
        return (self.now - START) // HOUR

    def answer(self, url: str) -> tuple[str, bytes] | None:
        """(status, body) at ``url``; None where nobody answers."""
        if self.hour in OUTAGE:
            return None
        host = url.split("/")[2]
        if host == "gone.example" and self.hour >= GONE_FROM:
            return "410 Gone", b""
        if host == "rubbish.example" and self.hour >= RUBBISH_FROM:
            return "200 OK", b"<!DOCTYPE html><html><body>We value your privacy</body></html>"
        match host:
            case "trends.google.com":
                body = self._searches(url[-2:])
            case "wikimedia.org":
                return self._read_most(url)
            case "hn.algolia.com":
                body = self._hacker_news()
            case "stale.example":
                body = self._stale_feed()
            case "skewed.example":
                body = self._skewed_feed()
            case _ if "/trends/tags" in url:
                body = self._tags(url)
            case _ if "/trends/links" in url:
                body = self._links(host)
            case _:
                body = self._feed(host)
        return "200 OK", body

    def _living(self, where: str, count: int) -> list[Topic]:
        """The most talked of now; each place knows other ones."""
        known = [each for each in self.topics if each.volume(self.now) and Random(each.name + where).random() < 0.7]  # noqa: S311
        return sorted(known, key=lambda each: -each.volume(self.now))[:count]

    def _say(self, topic: Topic, at: datetime) -> None:
        self.last_said[topic.name] = max(at, self.last_said.get(topic.name, at))

    def _searches(self, region: str) -> bytes:
        items = []
        for topic in self._living(region, 10):
            self._say(topic, self.now)
            items.append(
                f"<item><title>{topic.name.lower()}</title><ht:approx_traffic>{topic.volume(self.now) // 100 + 1}00+"
                f"</ht:approx_traffic><pubDate>{format_datetime(topic.born)}</pubDate><ht:news_item><ht:news_item_title>"
                f"{topic.headline(0)}</ht:news_item_title><ht:news_item_url>https://news.example/{topic.tag}"
                "</ht:news_item_url><ht:news_item_source>The News</ht:news_item_source></ht:news_item></item>"
            )
        space = 'xmlns:ht="https://trends.google.com/trending/rss"'
        return f'<rss version="2.0" {space}><channel>{"".join(items)}</channel></rss>'.encode()

    def _tags(self, url: str) -> bytes:
        return json.dumps([self._used({"name": each.tag}, each) for each in self._living(url, 15)]).encode()

    def _links(self, host: str) -> bytes:
        topics = self._living(host, 10)
        return json.dumps(
            [self._used({"title": t.headline(1), "url": f"https://x.example/{t.tag}"}, t) for t in topics]
        ).encode()

    def _used(self, item: dict[str, object], topic: Topic) -> dict[str, object]:
        self._say(topic, self.now)
        days = [{"accounts": str(topic.volume(self.now))}, {"accounts": "0"}, *({"accounts": "2"},) * 5]
        return item | {"history": days}

    def _hacker_news(self) -> bytes:
        hits = []
        for topic in self._living("hn", 12):
            self._say(topic, self.now)
            number = str(int(topic.born.timestamp()) + topic.peak)
            hits.append(
                {
                    "title": topic.headline(2), "objectID": number, "points": topic.volume(self.now) // 10,
                    "created_at_i": int(topic.born.timestamp()), "url": f"https://hn.example/{number}",
                }
            )  # fmt: skip
        return json.dumps({"hits": hits}).encode()

    def _read_most(self, url: str) -> tuple[str, bytes]:
        """A day's list is there from six in the morning of the next day on."""
        year, month, number = map(int, url.rsplit("/", 3)[1:])
        day = datetime(year, month, number, tzinfo=UTC)
        if self.now < day + 30 * HOUR:
            return "404 Not Found", b"{}"
        articles = [{"article": "Main_Page", "views": 5_000_000}]
        articles += [{"article": each.replace(" ", "_"), "views": 9_000} for each in _EVERGREEN]
        for topic in self.topics:
            views = sum(topic.volume(day + hour * HOUR) for hour in range(24))
            if views:
                self._say(topic, day + 24 * HOUR)
                articles.append({"article": topic.name.replace(" ", "_"), "views": views})
        of = {"year": f"{year}", "month": f"{month:02}", "day": f"{number:02}"}
        return "200 OK", json.dumps({"items": [of | {"articles": articles}]}).encode()

    def _feed(self, host: str) -> bytes:
        """News of the last day, an item for each topic in the paper, dated within the hour after its birth."""
        items = []
        for topic in self.topics:
            published = topic.born + timedelta(minutes=Random(topic.name + host).randint(0, 59))  # noqa: S311
            if self.now - 24 * HOUR <= published <= self.now and Random(host + topic.name).random() < 0.6:  # noqa: S311
                self._say(topic, published)
                items.append(
                    _item(topic.headline(len(host)), f"https://{host}/{topic.tag}", format_datetime(published))
                )
        return _rss(items)

    def _stale_feed(self) -> bytes:
        """Nobody writes it any more, and only a date at its top changes: new bytes each time, and no news."""
        items = []
        for number, topic in enumerate(self.stale):
            dated = number > 0
            self._say(topic, topic.born if dated else self.last_said.get(topic.name, self.now))
            date = format_datetime(topic.born) if dated else None
            items.append(_item(topic.headline(0), f"https://stale.example/{number}", date))
        return _rss([f"<lastBuildDate>{format_datetime(self.now)}</lastBuildDate>", *items])

    def _skewed_feed(self) -> bytes:
        """A paper whose clock is five minutes ahead, and some of whose dates are of another century."""
        items = []
        for number, topic in enumerate(self._living("skewed", 8)):
            date = self.now + timedelta(minutes=5)
            if number % 3 == 0:
                self._say(topic, self.now)
            else:
                date = date.replace(year=1783 if number % 3 == 1 else 2099)
            items.append(_item(topic.headline(1), f"https://skewed.example/{topic.tag}/{self.hour}", _rfc822(date)))
        return _rss(items)


def _rfc822(moment: datetime) -> str:
    return f"{moment:%d %b} {moment.year} {moment:%H:%M:%S} GMT"


def _item(title: str, link: str, date: str | None) -> str:
    dated = f"<pubDate>{date}</pubDate>" if date else ""
    return f"<item><title>{title}</title><link>{link}</link><guid>{link}</guid>{dated}</item>"


def _rss(parts: list[str]) -> bytes:
    return f'<rss version="2.0"><channel><title>P</title>{"".join(parts)}</channel></rss>'.encode()


def entries() -> Iterator[str]:
    """The list of sources: every type of the built-in list, and the troubled ones."""
    for region in ("US", "GB"):
        yield f'id = "google-{region.lower()}"\ntype = "google_trends"\nregion = "{region}"\nlanguage = "en"'
    for host in ("one.example", "two.example"):
        for what in ("tags", "links"):
            yield f'id = "{host}-{what}"\ntype = "mastodon"\nhost = "{host}"\nwhat = "{what}"'
    yield 'id = "hn"\ntype = "hackernews"\nlanguage = "en"'
    yield 'id = "wikipedia-en"\ntype = "wikimedia"\nproject = "en.wikipedia"'
    for name in ("herald", "courier", "gone", "rubbish", "stale", "skewed"):
        yield f'id = "{name}"\ntype = "rss"\nurl = "https://{name}.example/feed"\npublisher = "{name}"\nlanguage = "en"'


SOURCES = "\n".join(f"[[source]]\n{entry}\n" for entry in entries())
