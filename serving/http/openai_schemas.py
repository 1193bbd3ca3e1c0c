"""What goes over the wire of `/v1`: OpenAI's chat completions, as far as both kinds of model here take them.

Names and meanings are OpenAI's. What is not listed is refused by name, so that nothing is silently without effect.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from trendrag.types import MAX_CANDIDATES

MAX_MESSAGES = 200
MAX_IMAGES = 8
"""Images of one request that is passed on to the model server."""

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Part):
    type: Literal["text"]
    text: str


class ImageUrl(_Part):
    url: str = Field(description="a `data:` URL: `data:image/jpeg;base64,…`")
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Part):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(_Part):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = Field(default=None, max_length=64)
    tool_calls: list[dict[str, Any]] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = Field(default=None, max_length=200)
    refusal: str | None = None

    def text(self) -> str:
        """All its text, a line for each part."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if isinstance(part, TextPart))
        return self.content or ""

    def images(self) -> list[ImageUrl]:
        return [part.image_url for part in self.content or () if isinstance(part, ImagePart)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatBody(BaseModel):
    """A request for a chat completion. ``trendrag`` holds wishes that OpenAI has no name for, with the fields of
    `/api/v1/caption`: platform, tone, language, max_chars, region and so on."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "trendrag",
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "text", "text": "first coffee of the morning"},
                                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQSkZJRg..."}},
                            ],
                        }
                    ],
                    "stream": True,
                    "trendrag": {"platform": "instagram"},
                }
            ]
        },
    )

    model: str = Field(max_length=200, description="one that `/v1/models` lists")
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    n: int | None = Field(default=None, ge=1, le=MAX_CANDIDATES, description="how many captions to write")
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    trendrag: dict[str, Any] | None = Field(default=None, description="only with the model `trendrag`")

    # Only for models that are passed on to the model server.
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(default=None, max_length=1_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = Field(default=None, max_length=20)

    # Taken, because clients send them, and of no effect here.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def images(self) -> list[ImageUrl]:
        return [image for message in self.messages for image in message.images()]

    def for_server(self, model: str) -> bytes:
        """The request as a model server is sent it: what was checked here and nothing else, written anew, so that no
        two readers can read the same bytes differently."""
        told = self.model_dump(exclude_unset=True, exclude=NOT_SENT)
        told["model"] = model
        return to_json(told)


SERVER_ONLY = (
    "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "response_format",
    "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort",
)  # fmt: skip
NOT_SENT = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "trendrag"}
