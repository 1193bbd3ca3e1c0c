"""Opens the chat model that the settings name: an OpenAI-compatible server (vLLM), or any provider LangChain knows.

It knows how a connection is set up: address, key, pool, timeouts. How the model is asked is ``serving.models.chat``.
"""

from typing import Any

import httpx2
from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr, ValidationError

from serving.models.chat import read_timeout_s
from serving.models.lean import LeanChat
from serving.telemetry import trace_headers
from trendrag.endpoint import checked_base_url, checked_key, through_proxy
from trendrag.errors import ConfigurationError
from trendrag.settings import ModelSettings
from trendrag.text import clean_line

POOL = httpx2.Limits(
    max_connections=1000,
    max_keepalive_connections=100,
    # vLLM (uvicorn) drops an idle connection after 5 s. Ours must be given up first: a request sent down a connection
    # that the server is just closing is lost, and nothing here sends it again.
    keepalive_expiry=3,
)


def open_chat_model(settings: ModelSettings) -> BaseChatModel:
    """A model for ``ChatDescriber`` and ``ChatWriter``; end it with ``close_chat_model``.

    Opening connects to nothing, with one exception: where an OpenAI-compatible server's model has no name in the
    settings, the server is asked for its models, and its only one is taken.

    Raises:
        ConfigurationError: names the setting that is missing or wrong, or the package to install.
    """
    return _open_openai(settings) if settings.provider == "openai" else _open_other(settings)


async def close_chat_model(model: BaseChatModel) -> None:
    """Closes the connections of a model that ``open_chat_model`` opened. Requests under way are cut off."""
    client = getattr(model, "http_async_client", None)
    if isinstance(client, httpx2.AsyncClient):
        await client.aclose()


def chat_model_name(model: BaseChatModel) -> str:
    """The name under which the model's server knows it."""
    for attribute in ("model_name", "model", "model_id"):
        if isinstance(name := getattr(model, attribute, None), str) and name:
            return name
    return type(model).__name__


def _open_openai(settings: ModelSettings) -> BaseChatModel:
    base_url = checked_base_url(settings.base_url)
    key = checked_key(settings.api_key)
    timeout = httpx2.Timeout(read_timeout_s(settings), connect=settings.connect_timeout_s)
    return LeanChat(
        model_name=settings.name or _only_model(base_url, key, settings),
        base_url=base_url,
        api_key=key,
        http_async_client=httpx2.AsyncClient(
            limits=POOL,
            timeout=timeout,
            trust_env=through_proxy(base_url),
            event_hooks={"request": [_in_this_trace]},
        ),
        logprobs=True if settings.logprobs else None,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    )


async def _in_this_trace(request: httpx2.Request) -> None:
    trace_headers(request.headers)


def _open_other(settings: ModelSettings) -> BaseChatModel:
    from langchain.chat_models import init_chat_model  # noqa: PLC0415 - slow, and rarely needed

    if not settings.name:
        raise ConfigurationError(f"Set TRENDRAG_MODEL__NAME to a model of the provider {settings.provider!r}.")
    # Only what LangChain calls standard parameters, and only what is set: integrations refuse those they do not know.
    options: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    if settings.base_url:
        options["base_url"] = settings.base_url
    if settings.api_key:
        options["api_key"] = settings.api_key
    provider = clean_line(settings.provider, 60)
    try:
        model: BaseChatModel = init_chat_model(settings.name, model_provider=settings.provider, **options)
    except ImportError as error:
        raise ConfigurationError(
            f"The model provider {provider!r} needs one more package: {clean_line(str(error), 300)}"
        ) from error
    except ValidationError as error:
        wrong = ", ".join(sorted({str(part) for fault in error.errors(include_input=False) for part in fault["loc"]}))
        raise ConfigurationError(
            f"The model provider {provider!r} does not take these settings: {wrong or 'unknown'}. See the "
            "TRENDRAG_MODEL__ variables, and the provider's own (its key, its region) in LangChain's documentation."
        ) from None
    except Exception as error:  # noqa: BLE001 - a missing key or region is whatever the integration's SDK raises
        # Not chained and not quoted in full: what an unknown SDK puts in its errors may hold the key.
        raise ConfigurationError(
            f"The model provider {provider!r} can't be opened ({type(error).__name__}). Known are `embedded`, "
            "`openai` (vLLM and every compatible server) and the providers of LangChain's init_chat_model; their "
            "own environment variables (key, region) must be set."
        ) from None
    return model


def _only_model(base_url: str, key: SecretStr, settings: ModelSettings) -> str:
    ask = "Set TRENDRAG_MODEL__NAME to the model's name on the server"
    try:
        answer = httpx2.get(
            f"{base_url}/models",
            headers={"Authorization": f"Bearer {key.get_secret_value()}"},
            timeout=settings.connect_timeout_s,
            trust_env=through_proxy(base_url),
        )
        names = [str(model["id"]) for model in answer.raise_for_status().json()["data"]]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{ask}. {base_url} was asked for it and did not tell ({type(error).__name__}): is the server running?"
        ) from error
    if len(names) == 1:
        return names[0]
    listed = clean_line(", ".join(names[:20]), 400) or "none"
    raise ConfigurationError(f"{ask}. {base_url} has these: {listed}.")
