"""Caption events as OpenAI's chunks and answers.

Every chunk has a choice, as some clients expect of it; the events that have no text ride on a chunk with an empty
delta, as the field `trendrag`, in the words of `/api/v1/caption/stream`.
"""

from typing import Any

from pydantic_core import to_json

from serving.http.collected import Collected
from trendrag.types import (
    CandidateDone,
    CandidateFailed,
    CaptionEvent,
    Delta,
    Done,
    Usage,
)


class Chunks:
    """One request's chunks. ``identity`` and ``created`` (Unix time) are the same in all of them."""

    def __init__(self, identity: str, created: int, model: str, candidates: int) -> None:
        head = to_json({"id": identity, "object": "chat.completion.chunk", "created": created, "model": model})
        self._head = b"data: " + head[:-1]
        self._first = b"".join(
            self._chunk(number, b'{"role":"assistant","content":""}') for number in range(candidates)
        )

    def of(self, event: CaptionEvent) -> bytes:
        """Whole server-sent events: one, and before the first text the chunks that open every choice."""
        if isinstance(event, Delta):
            data = self._chunk(event.candidate, b'{"content":%b}' % to_json(event.text))
        else:
            number = getattr(event, "candidate", 0)
            data = self._chunk(number, b"{}", _finish(event), event.__pydantic_serializer__.to_json(event))
        first, self._first = self._first, b""
        return first + data

    def usage(self, usage: Usage) -> bytes:
        """The last chunk, for those who asked for it; the one without a choice."""
        return b'%b,"choices":[],"usage":%b}\n\n' % (self._head, to_json(usage_object(usage)))

    def _chunk(self, number: int, delta: bytes, finish: bytes = b"null", ours: bytes = b"") -> bytes:
        extra = b',"trendrag":%b' % ours if ours else b""
        return b'%b,"choices":[{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}]%b}\n\n' % (
            self._head, number, delta, finish, extra,
        )  # fmt: skip


def _finish(event: CaptionEvent) -> bytes:
    if isinstance(event, CandidateDone):
        return b'"length"' if event.cut else b'"stop"'
    return b'"error"' if isinstance(event, CandidateFailed) else b"null"


def whole_answer(collected: Collected, identity: str, created: int, model: str, done: Done) -> bytes:
    """The JSON. A choice's `message.trendrag` holds its highlights, confidence and trends; `trendrag` of the whole
    what holds for all: the trends offered, their snapshot, times."""
    told: dict[str, Any] = {
        "id": identity,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(collected, candidate) for _, candidate in sorted(collected.finished.items())],
        "usage": usage_object(done.usage),
        "trendrag": {
            "description": collected.description,
            "retrieved": collected.trends.trends if collected.trends else (),
            "reason": collected.trends.reason if collected.trends else None,
            "judged": collected.trends.judged if collected.trends else None,
            "snapshot": collected.trends.snapshot if collected.trends else None,
            "failed": collected.failed,
            **done.model_dump(mode="json", exclude={"type", "usage"}),
        },
    }
    return to_json(told)


def _choice(collected: Collected, candidate: CandidateDone) -> dict[str, Any]:
    marks = sorted(collected.highlights.get(candidate.candidate, []), key=lambda mark: mark.start)
    return {
        "index": candidate.candidate,
        "message": {
            "role": "assistant",
            "content": candidate.text,
            "refusal": None,
            "trendrag": {
                **candidate.model_dump(mode="json", exclude={"type", "candidate", "text"}),
                "highlights": [mark.model_dump(exclude={"type", "candidate"}) for mark in marks],
            },
        },
        "logprobs": None,
        "finish_reason": "length" if candidate.cut else "stop",
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's count of tokens."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
