"""Where a model server is, as the settings say it: checked before anything is sent there. Opens no connection."""

import ipaddress
from urllib.parse import urlsplit

from pydantic import SecretStr

from trendrag.errors import ConfigurationError


def checked_base_url(base_url: str | None) -> str:
    """Never a default: photos must not go to a company that nobody chose."""
    examples = "for example http://127.0.0.1:8001/v1 for a vLLM server, or https://api.openai.com/v1"
    if not base_url:
        raise ConfigurationError(f"Set TRENDRAG_MODEL__BASE_URL to the model server's address, {examples}.")
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"TRENDRAG_MODEL__BASE_URL is not an http:// or https:// address; {examples}.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            "TRENDRAG_MODEL__BASE_URL must hold no user name, password or query; a key goes to TRENDRAG_MODEL__API_KEY."
        )
    return base_url.strip().rstrip("/")


def checked_key(key: SecretStr | None) -> SecretStr:
    """The key without the line end that files have. A server that wants none is sent a word instead."""
    value = key.get_secret_value().strip() if key else ""
    if not all("!" <= char <= "~" for char in value):
        # Caught here: the HTTP client's own error would quote the header, key and all.
        raise ConfigurationError("TRENDRAG_MODEL__API_KEY holds a space, a line break or a character beyond ASCII.")
    return SecretStr(value or "none")


def through_proxy(base_url: str) -> bool:
    """Whether HTTP_PROXY and its kind count. Not for a server on this machine: no proxy could reach it."""
    host = urlsplit(base_url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
