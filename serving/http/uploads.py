"""Reads a request that carries an image: as JSON with base64, or as a form with a file (multipart/form-data).

Both become the same model, with the image beside it. Which fields a form has follows from the model: text stays text,
numbers and booleans are written as in JSON, a list is a field sent several times. A body is not kept by the request, as
it would be by the framework's own reading: an image is gone once it is prepared, however long the answer streams.
How much may be read, and for how long, is the middleware's (``BodyLimit``); the parts of a form are counted here.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.http.errors import HttpError, is_json, media_type
from serving.http.middleware import release_body
from serving.http.schemas import CaptionBody
from serving.http.state import AppState, State
from serving.http.stream import unless_client_leaves
from serving.images import check_size, from_base64
from trendrag.settings import ImageSettings
from trendrag.types import PreparedImage

MAX_PARTS = 64
MAX_TEXT = 64 * 1024
"""Bytes of all text fields of a form together."""

_FORM = "multipart/form-data"
_TAKEN = "-"  # stands in the body's `image` for the image that is beside it
_REFS = "#/components/schemas/{model}"
_FILE = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "the image file itself: JPEG, PNG, WebP, GIF or AVIF",
}
M = TypeVar("M", bound=CaptionBody)


@dataclass(slots=True)
class Upload(Generic[M]):
    """A request's ``body``, and its image, which is a file's bytes, base64, or at the body's ``image_url``."""

    body: M
    _image: bytes | str | None

    async def image(self, request: Request, state: AppState) -> PreparedImage:
        """The image, from wherever it comes, prepared in the pool. To be asked for once: its bytes are let go of.

        Raises:
            InvalidImage, ImageTooLarge, Busy, and what ``ImageFetcher.fetch`` raises.
        """
        given, self._image = self._image, None
        try:
            if self.body.image_url is not None:
                given = await unless_client_leaves(request, state.fetcher.fetch(self.body.image_url))
            return await state.prepare(lambda: given if isinstance(given, bytes) else from_base64(given or ""))
        finally:
            release_body(request.scope)


def upload_of(model: type[M]) -> Callable[[Request, AppState], Awaitable[Upload[M]]]:
    """A dependency that reads a request into ``model``. What it raises is an HttpError, a RequestValidationError with
    the same words for both kinds of request, or ImageTooLarge."""
    kinds = _kinds(model)

    async def read(request: Request, state: State) -> Upload[M]:
        if is_json(request):
            return _from_json(model, b"".join([chunk async for chunk in request.stream()]))
        if media_type(request) != _FORM:
            message = f"Send the request as JSON (Content-Type: application/json), or as a form with a file ({_FORM})."
            raise HttpError(415, "unsupported_media_type", message)
        form = _Form(request, state.image_settings)
        async for chunk in request.stream():
            form.feed(chunk)
        fields, image = form.finish(kinds)
        # Once more through JSON, so that the rules and the words are those of JSON.
        return Upload(_validated(model, json.dumps(fields).encode()), image)

    return read


def _from_json(model: type[M], content: bytes) -> Upload[M]:
    if not content:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required"}])
    body = _validated(model, content)
    image, body.image = body.image, _TAKEN if body.image is not None else None
    return Upload(body, image)


def _validated(model: type[M], content: bytes) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            why = faults[0]["ctx"]["error"]
            raise HttpError(400, "invalid_json", f"The body is not valid JSON in UTF-8 ({why}).") from None
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from None


# -- forms


def _kinds(model: type[CaptionBody]) -> Mapping[str, str]:
    """How each field is written in a form: "text", "json" (numbers, booleans, objects), or as a list of either."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def kind(part: Mapping[str, Any]) -> str:
        types = _types(part, definitions)
        if "string" in types:
            return "text"
        return f"list of {kind(part.get('items') or _option(part, 'array'))}" if "array" in types else "json"

    return {name: kind(part) for name, part in schema["properties"].items()}


def _types(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    if reference := part.get("$ref"):
        return _types(definitions[reference.rpartition("/")[2]], definitions)
    options: Iterable[Mapping[str, Any]] = part.get("anyOf", part.get("oneOf", ()))
    return {part.get("type", "")}.union(*(_types(option, definitions) for option in options))


def _option(part: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The items of that option of a field which is a list."""
    found: Mapping[str, Any] = next(option for option in part["anyOf"] if option.get("type") == kind)["items"]
    return found


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    content: list[bytes] = field(default_factory=list)
    size: int = 0


class _Form:
    """Takes a form apart as it arrives. Holds its image and text fields, each within its limit."""

    def __init__(self, request: Request, limits: ImageSettings) -> None:
        self._limits = limits
        self._parts: list[_Part] = []
        self._header = (bytearray(), bytearray())
        self._text = 0
        self._ended = False
        boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary")
        if not boundary:
            raise _bad_form("its Content-Type names no boundary")
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._keep_header,
            "on_headers_finished": self._name,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _bad_form("its boundary is too long") from error

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _bad_form("it is not formed as RFC 7578 says") from error

    def finish(self, kinds: Mapping[str, str]) -> tuple[dict[str, Any], bytes | None]:
        """(the fields as JSON would have them, the image)"""
        if not self._ended:
            raise _bad_form("it is cut short")
        fields: dict[str, Any] = {}
        image: bytes | None = None
        for part in self._parts:
            content = b"".join(part.content)
            if part.name == "image":
                if image is not None:
                    raise HttpError(422, "invalid_request", "image: send one file, not several.")
                image, fields["image"] = content, _TAKEN
                continue
            kind = kinds.get(part.name, "text")
            value = _value(content, kind.removeprefix("list of "))
            if part.name in fields or kind.startswith("list of "):
                # A field that is no list and comes twice is refused by the model, as a list in JSON would be.
                before = fields.get(part.name, [])
                fields[part.name] = [*(before if isinstance(before, list) else [before]), value]
            else:
                fields[part.name] = value
        return fields, image

    def _begin(self) -> None:
        if len(self._parts) >= MAX_PARTS:
            raise HttpError(413, "body_too_large", f"The form has more than {MAX_PARTS} fields.")
        self._parts.append(_Part())

    def _keep_header(self) -> None:
        name, value = self._header
        self._parts[-1].headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _name(self) -> None:
        part = self._parts[-1]
        name = parse_options_header(part.headers.get(b"content-disposition"))[1].get(b"name")
        if not name:
            raise _bad_form("a field of it has no name")
        part.name = name.decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._parts[-1]
        part.size += end - start
        if part.name == "image":
            check_size(part.size, self._limits)
        else:
            self._text += end - start
            if self._text > MAX_TEXT:
                raise HttpError(413, "body_too_large", f"The form's text is over {MAX_TEXT // 1024} KiB.")
        part.content.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


def _value(content: bytes, kind: str) -> Any:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _bad_form("a field of it is not UTF-8") from error
    if kind == "text":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # the model says what should be there


def _bad_form(why: str) -> HttpError:
    return HttpError(400, "invalid_form", f"The form can't be read: {why}.")


# -- the description


def either_body(model: type[CaptionBody]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads ``model`` with ``upload_of``."""
    names = {"application/json": model.__name__, _FORM: _form_name(model)}
    content = {kind: {"schema": {"$ref": _REFS.format(model=name)}} for kind, name in names.items()}
    return {"requestBody": {"required": True, "content": content}}


def describe_bodies(app: FastAPI, *models: type[CaptionBody], json_only: Sequence[type[BaseModel]] = ()) -> None:
    """Adds the schemas that ``either_body`` refers to, and those of bodies that are read as JSON alone, by hand: the
    framework knows nothing of either."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        document = describe()
        schemas = document["components"]["schemas"]
        _, defined = models_json_schema([(model, "validation") for model in (*models, *json_only)], ref_template=_REFS)
        for name, schema in defined["$defs"].items():
            schemas.setdefault(name, schema)
        for model in models:
            schemas.setdefault(_form_name(model), _form_schema(schemas[model.__name__]))
        return document

    app.openapi = described  # type: ignore[method-assign]  # the documented way to add to it


def _form_name(model: type[CaptionBody]) -> str:
    return f"{model.__name__}Form"


def _form_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = {name: _without_null(part) for name, part in schema["properties"].items()} | {"image": _FILE}
    return {
        "type": "object",
        "title": f"{schema['title']}Form",
        "description": "The same as a form: the image as a file, the other fields as text, a list as a repeated field.",
        "properties": properties,
        "additionalProperties": False,
    }


def _without_null(part: Mapping[str, Any]) -> dict[str, Any]:
    """A form's field is there or not; it can't be null."""
    options = [option for option in part.get("anyOf", ()) if option.get("type") != "null"]
    told = {
        key: value
        for key, value in part.items()
        if key not in ("anyOf", "default") or (key == "default" and value is not None)
    }
    return told | (options[0] if len(options) == 1 else {"anyOf": options} if options else {})


read_caption = upload_of(CaptionBody)
CaptionUpload = Annotated[Upload[CaptionBody], Depends(read_caption)]
