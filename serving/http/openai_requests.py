"""What a chat request asks for: read, checked, and where captions are wanted, told as a ``CaptionRequest``."""

from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from serving.http.errors import HttpError, media_type
from serving.http.openai_schemas import SERVER_ONLY, ChatBody, ChatMessage
from serving.http.schemas import CaptionBody
from trendrag.text import clean_line
from trendrag.types import MAX_CAPTION_CHARS, MAX_TURNS, CaptionRequest, PreparedImage, Sampling, Turn

_OURS = ("image", "image_url", "note", "candidates", "turns")  # said by the messages and by `n`


def refused(message: str) -> HttpError:
    return HttpError(400, "invalid_request", message)


async def read_body(request: Request) -> ChatBody:
    """Raises HttpError: it is no JSON, or no chat request."""
    if media_type(request) != "application/json":
        # A page of another site can't send this type without asking first.
        message = "Send the request as JSON, with the header Content-Type: application/json."
        raise HttpError(415, "unsupported_media_type", message)
    try:
        return ChatBody.model_validate_json(await request.body())
    except ValidationError as error:
        raise refused(in_words(error)) from None


def in_words(error: ValidationError) -> str:
    """What is wrong with which field. Repeats nothing of what was sent but a field's name."""
    said: dict[str, None] = {}
    for fault in error.errors(include_input=False, include_url=False)[:5]:
        if fault["type"] == "json_invalid":
            return "The body is not valid JSON."
        # Of a union's alternatives pydantic names the type too, as in "list[tagged-union[...]]".
        path = [str(part) for part in fault["loc"] if isinstance(part, int) or str(part).isidentifier()]
        where = clean_line(".".join(path), 80) or "The body"
        if fault["type"] == "extra_forbidden":
            said[f"{where}: this field is not taken."] = None
        else:
            said[f"{where}: {clean_line(fault['msg'], 200).rstrip('.')}."] = None
    return " ".join(said)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a conversation asks of the caption chain: whose ``photo`` (an address of either kind) is not yet read."""

    photo: str
    fields: CaptionBody
    turns: tuple[Turn, ...]
    sampling: Sampling

    def request(self, image: PreparedImage) -> CaptionRequest:
        return self.fields.caption_request(image).model_copy(update={"turns": self.turns, "sampling": self.sampling})


def asked_of(body: ChatBody) -> Asked:
    """The first message with a photo says what it is about; what users said before belongs to it, and so does what
    they say until the first caption. After it, captions and what to change follow one another.

    Raises:
        HttpError: there is not exactly one photo, something is not taken here, or the order can't be followed.
    """
    if extra := [name for name in SERVER_ONLY if getattr(body, name) is not None]:
        raise refused(f"{', '.join(extra)}: not taken for captions. `/v1/models` lists models that may take it.")
    photos = {image.url: None for message in body.messages for image in message.images()}
    if len(photos) != 1:
        raise refused("messages: send one photo, as a part of type image_url in a user's message.")
    said = [message for message in body.messages if message.role not in ("system", "developer")]
    first = next(place for place, message in enumerate(said) if message.images())
    note = [message.text() for message in said[:first] if message.role == "user"]
    turns: list[Turn] = []
    for message in said[first:]:
        if message.role == "user" and not turns:
            note.append(message.text())
        else:
            _say(turns, message)
    if turns and turns[-1].role != "user":
        raise refused("messages: the last one must be a user's.")
    return Asked(
        next(iter(photos)), _fields(body, "\n".join(filter(None, note))), tuple(turns[-MAX_TURNS:]), _sampling(body)
    )


def _say(turns: list[Turn], message: ChatMessage) -> None:
    """Adds a message; two of one side in a row become one."""
    text = message.text().strip()
    if message.role == "tool" or (message.role == "assistant" and message.tool_calls):
        raise refused("messages: tools are not taken for captions.")
    role = "user" if message.role == "user" else "assistant"
    if turns and turns[-1].role == role:
        text = f"{turns.pop().text}\n{text}".strip()
    if not 0 < len(text) <= MAX_CAPTION_CHARS:
        raise refused(f"messages: each needs a text, of at most {MAX_CAPTION_CHARS} characters.")
    turns.append(Turn(role=role, text=text))


def _fields(body: ChatBody, note: str) -> CaptionBody:
    wishes: dict[str, Any] = body.trendrag or {}
    if said := [name for name in _OURS if name in wishes]:
        raise refused(f"trendrag.{said[0]}: this is said by the messages and by n.")
    try:
        # The image is read elsewhere; the body only wants to be told that there is one.
        return CaptionBody(**{**wishes, "image": "-", "note": note or None, "candidates": body.n or 1})
    except ValidationError as error:
        raise refused(f"trendrag: {in_words(error)}") from None


def _sampling(body: ChatBody) -> Sampling:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Sampling(
        temperature=body.temperature,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        seed=body.seed,
        stop=stop,
    )
