"""Reddit's API through the user's own app: praw signs in and asks, our fetcher carries it.

praw and prawcore know Reddit's sign-in and its addresses. Everything that goes over the network goes through
``HttpFetcher.call`` all the same, with its time and size limits, address checks and pauses: prawcore gets a requestor
that hands requests on to it, from the worker thread that praw runs in to the event loop. praw's own retries and pauses,
which would sleep in that thread, are never reached: an answer that is none ends the visit, and ``policy`` says when the
next one is. The app reads what is public; no user signs in. A token lives as long as one ``RedditApi``.
"""

import asyncio
import configparser
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ingest.fetcher import Fetched, Fetcher, HttpFetcher, HttpStatus
from ingest.sources.reddit import ID_VARIABLE, SECRET_VARIABLE, app_keys, subreddit_of
from trendrag.errors import ConfigurationError, FetchError, ParseError
from trendrag.settings import IngestSettings
from trendrag.text import clean_line

if TYPE_CHECKING:
    import praw
    import requests

MAX_POSTS = 100
"""As many as one listing holds."""

_CHECK_KEYS = f"check {ID_VARIABLE} and {SECRET_VARIABLE}"


@dataclass(frozen=True, slots=True)
class Places:
    """Where Reddit is; elsewhere in tests."""

    sign_in: str = "https://www.reddit.com"
    api: str = "https://oauth.reddit.com"


def with_reddit_app(fetcher: HttpFetcher, settings: IngestSettings) -> Fetcher:
    """``fetcher``, which asks the API in place of subreddits' public feeds where ``settings`` have an app."""
    try:
        keys = app_keys(settings)
    except ConfigurationError:
        return fetcher  # each Reddit source says so itself
    return RedditApi(fetcher, keys) if keys else fetcher


class RedditApi:
    """``Fetcher``: a subreddit's public feed is asked for at the API, everything else where it is."""

    def __init__(self, fetcher: HttpFetcher, keys: tuple[str, str], places: Places | None = None) -> None:
        self._fetcher = fetcher
        self._keys = keys
        self._places = places or Places()
        self._reddit: praw.Reddit | None = None
        self._one_at_a_time = asyncio.Lock()  # praw is not made for several threads

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        subreddit = subreddit_of(url)
        if subreddit is None:
            return await self._fetcher.get(url, headers=headers)
        loop = asyncio.get_running_loop()
        async with self._one_at_a_time:
            body = await asyncio.to_thread(self._top, subreddit, loop)
        return Fetched(body, {}, f"{self._places.api}/r/{subreddit}/top", datetime.now(UTC))

    def _top(self, subreddit: str, loop: asyncio.AbstractEventLoop) -> bytes:
        """The listing of the day's best posts, as JSON. Runs in a thread of its own."""
        import prawcore  # noqa: PLC0415  (an extra, and slow to import)

        try:
            self._reddit = self._reddit or _client(self._fetcher, loop, self._keys, self._places)
            listing = self._reddit.request(
                method="GET", path=f"r/{subreddit}/top", params={"t": "day", "limit": MAX_POSTS}
            )
        except HttpStatus as error:
            raise _in_words(error, subreddit) from error
        except prawcore.OAuthException as error:
            said = clean_line(str(error.error), 60)
            raise HttpStatus(f"Reddit refuses the app ({said}): {_CHECK_KEYS}", 401, {}) from error
        except configparser.Error as error:
            raise FetchError("praw.ini can't be read, and praw insists on it; mend or remove it") from error
        # What a sign-in in another form makes of prawcore is any of the last four.
        except (prawcore.PrawcoreException, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ParseError("Reddit: the API's answer is in another format, or cut off") from error
        return json.dumps(listing).encode()


def _client(
    fetcher: HttpFetcher, loop: asyncio.AbstractEventLoop, keys: tuple[str, str], places: Places
) -> "praw.Reddit":
    import praw  # noqa: PLC0415
    import prawcore  # noqa: PLC0415
    import requests  # noqa: PLC0415

    class Requestor(prawcore.Requestor):
        def request(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> "requests.Response":  # noqa: ARG002
            parts = {name: kwargs.get(name) for name in ("headers", "params", "data", "auth")}
            asked = requests.Request(*args, **parts).prepare()
            sent = {name: str(value) for name, value in asked.headers.items() if name.lower() != "content-length"}
            content = str(asked.body).encode() if asked.body else None  # a form, which requests has as text
            call = fetcher.call(asked.method or "GET", asked.url or "", headers=sent, content=content)
            return _response(asyncio.run_coroutine_threadsafe(call, loop).result())

    return praw.Reddit(
        "DEFAULT",
        client_id=keys[0],
        client_secret=keys[1],
        user_agent="TrendRAG",  # the fetcher sends its own
        requestor_class=Requestor,
        # All that a praw.ini in the working directory, or the environment, could turn elsewhere.
        reddit_url=places.sign_in,
        oauth_url=places.api,
        username=None,
        password=None,
        refresh_token=None,
        redirect_uri=None,
        check_for_updates=False,
        check_for_async=False,
    )


def _response(fetched: Fetched) -> "requests.Response":
    import requests  # noqa: PLC0415

    response = requests.Response()
    response.status_code = 200
    response.url = fetched.url
    response.encoding = "utf-8"
    # Its headers stay behind: by those of the rate limit prawcore would sleep.
    response.raw = io.BytesIO(fetched.body)
    return response


def _in_words(error: HttpStatus, subreddit: str) -> FetchError:
    match error.status:
        case 401:
            said = f"Reddit refuses the app (401): {_CHECK_KEYS}"
        case 403:
            said = f"Reddit refuses r/{subreddit} (403): it is private or quarantined, or the app is: {_CHECK_KEYS}"
        case 302 | 404:
            said = f"There is no r/{subreddit} at Reddit, or it was banned ({error.status})"
        case _:
            said = str(error)
    headers = dict(error.headers)
    if "retry-after" not in headers and "x-ratelimit-reset" in headers:  # seconds, perhaps with a fraction
        headers["retry-after"] = headers["x-ratelimit-reset"].partition(".")[0]
    return HttpStatus(said, error.status, headers)
