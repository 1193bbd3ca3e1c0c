"""Settings, read from the environment once, in the entry points, and passed on as values.

``TRENDRAG_MODEL__PROVIDER=openai`` sets ``settings.model.provider``; two underscores go one level down. Secrets may
also be files: ``TRENDRAG_SECRETS_DIR=/run/secrets`` reads ``/run/secrets/trendrag_model__api_key``.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from trendrag.errors import ConfigurationError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _listed(value: object) -> object:
    """A list as people write it into an environment variable: with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("an address or a network, such as 10.0.0.7 or 10.0.0.0/8") from None


def _host(value: str) -> str:
    if not value or any(char in value for char in "/:@ "):
        raise ValueError("a name without scheme, port or path, such as captions.example.org")
    return value.lower().rstrip(".")


def _embedder(value: str) -> str:
    library, _, model = value.partition(":")
    if value not in ("minilm", "use") and not (library == "sentence-transformers" and model):
        raise ValueError("one of `minilm`, `use` and `sentence-transformers:NAME`")
    return value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if value != "*" and (parts.scheme not in ("http", "https") or value != f"{parts.scheme}://{parts.netloc}".lower()):
        raise ValueError("an origin is scheme://host or scheme://host:port, such as https://shop.example.org; or *")
    return value


# NoDecode: a list in the environment is not JSON but `a, b`.
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], NoDecode, BeforeValidator(_listed)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_listed)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_listed)]


class ModelSettings(Section):
    provider: str = Field(
        default="embedded",
        description="`embedded` (a small draft engine), `openai` (vLLM and every OpenAI-compatible server), or any "
        "provider that LangChain's init_chat_model knows",
    )
    base_url: str | None = Field(default=None, description="the model server, e.g. `http://127.0.0.1:8001/v1`")
    name: str | None = Field(default=None, description="the model's name on that server")
    api_key: SecretStr | None = Field(default=None, description="sent as a bearer token")
    temperature: float = Field(default=0.8, ge=0, le=2, description="how freely candidates are sampled")
    max_tokens: int = Field(default=256, ge=16, description="longest caption, in tokens")
    logprobs: bool = Field(
        default=True, description="ask for token log-probabilities, for the confidence; off where a server refuses them"
    )
    connect_timeout_s: float = Field(default=3, gt=0, description="seconds to reach the server")
    first_token_timeout_s: float = Field(
        default=60,
        gt=0,
        description="longest time to an answer's first piece: reading the photo, and the server's queue",
    )
    token_timeout_s: float = Field(default=20, gt=0, description="longest silence between two pieces of a stream")
    total_timeout_s: float = Field(default=180, gt=0, description="longest time for one candidate, retries included")
    fallback: Literal["none", "embedded"] = Field(
        default="none",
        description="`embedded`: the draft engine writes while the model server is away, and the answer says so",
    )


class RetrievalSettings(Section):
    k: int = Field(default=8, ge=1, le=50, description="how many trends the model is offered at most")
    threshold: float = Field(
        default=0.04, ge=0, le=1, description="probability below which a trend does not fit, and none is offered"
    )
    embedder: Annotated[str, AfterValidator(_embedder)] = Field(
        default="minilm",
        description="what makes vectors of trends and queries: `minilm` (English), `use` (16 languages; the extra "
        "`multilingual`) or `sentence-transformers:NAME` (a model's name or folder; the extra "
        "`sentence-transformers`); the next refresh makes all vectors anew",
    )
    judge: Literal["none", "model"] = Field(
        default="none",
        description="`model`: the model that writes looks at the photo and the trends found, and keeps those that fit",
    )
    judge_timeout_s: float = Field(
        default=10, gt=0, description="longest time for that look; the trends are then offered as found"
    )


class SnapshotSettings(Section):
    url: SecretStr | None = Field(
        default=None,
        description="where replicas on other machines get snapshots from: `s3://bucket/prefix` (needs the extra `s3`), "
        "`file:///mnt/shared`, or any other fsspec URL; credentials come from that storage's own environment",
    )
    poll_s: float = Field(default=10, gt=0, description="seconds between a server's looks at that URL")


class ImageSettings(Section):
    max_bytes: int = Field(default=20 * 2**20, ge=1024, description="largest upload")
    max_pixels: int = Field(default=64_000_000, ge=1, description="largest picture before it is scaled down")
    model_pixels: int = Field(
        default=1280 * 28 * 28, ge=28 * 28, description="pixel budget sent to the model (Qwen2.5-VL: 28×28 a token)"
    )
    max_waiting: int = Field(
        default=64, ge=0, description="images that may wait for a free core to prepare them; more answer 503"
    )


class FetchSettings(Section):
    allow_http: bool = Field(default=False, description="fetch `image_url` over plain http too, not https alone")
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        default=(80, 443), description="ports that images are fetched from, as a JSON list; `[]` fetches none at all"
    )
    timeout_s: float = Field(default=15, gt=0, description="longest time to fetch an image, redirects and all")
    allow_private: bool = Field(
        default=False, description="fetch images from private and loopback addresses too, for tests and intranets"
    )


class ServerSettings(Section):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    max_concurrent: int = Field(
        default=64, ge=1, description="model calls at once; a request for three captions makes three"
    )
    max_waiting: int = Field(default=128, ge=0, description="requests that wait for their turn; more answer 503")
    max_wait_s: float = Field(default=30, gt=0, description="longest such wait, in seconds; then 503")
    drain_s: float = Field(default=30, ge=0, description="how long a server that is told to stop finishes its captions")
    drain_notice_s: float = Field(
        default=0, ge=0, description="how long it says so in `/readyz` at least before it stops listening"
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="where keys, history, feedback and jobs are kept, e.g. `postgresql://user:password@host/trendrag` "
        "(needs the extra `postgresql`; may be the trends' own); by default an SQLite file in the data directory",
    )
    keys: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="who needs an API key. `auto`: whoever is not on this machine, and everybody where the server "
        "listens beyond it; `required`: everybody; `off`: nobody, for a server behind something with authentication",
    )
    visitors: bool = Field(
        default=False, description="let the page's visitors write captions without a key where one is needed"
    )
    secret: SecretStr | None = Field(
        default=None,
        description="what visitors' cookies are signed with: at least 32 random characters, the same on every server; "
        "several with commas between, the newest first; by default a file in the data directory",
    )
    hosts: Hosts | None = Field(
        default=None,
        description="names by which this server is reached, with commas between; IP addresses and `localhost` always "
        "are. Requests for another name answer 421",
    )
    trusted_proxies: Networks | None = Field(
        default=None,
        description="addresses or networks of your reverse proxies, with commas between; only theirs are the "
        "`X-Forwarded-For` and `X-Forwarded-Proto` that are believed",
    )
    cors_origins: Origins | None = Field(
        default=None,
        description="origins whose pages may call the API, such as `https://shop.example.org`, with commas between; "
        "`*` for all, then without cookies",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="counters and caches shared by several servers, e.g. `redis://host:6379/0` (needs the extra "
        "`redis`); by default each server keeps its own",
    )


class JobSettings(Section):
    concurrency: int = Field(default=2, ge=1, le=100, description="jobs that one server works on at once")
    attempts: int = Field(default=8, ge=1, description="how often a job is begun at most")
    lease_s: float = Field(
        default=30, gt=0, description="seconds after which a job of a server that went silent is begun again"
    )
    max_open: int = Field(default=1_000, ge=1, description="jobs that one caller may have queued or running")
    keep_days: float = Field(default=7, gt=0, description="how long after their end jobs can be asked for")


class HistorySettings(Section):
    keep_days: float = Field(
        default=90,
        ge=0,
        le=36_500,
        description="how long finished captions, without their images, are kept for who asked for them, favourites and "
        "feedback with them; 0 keeps none and removes those that there are",
    )
    max_per_owner: int = Field(
        default=1_000, ge=1, description="captions kept for one key or visitor; the oldest go first"
    )


class LimitSettings(Section):
    """For each key; and for each client address of callers without one. 0 is no limit. Callers on this machine, where
    it serves only itself, have none."""

    requests_per_minute: int = Field(
        default=120, ge=0, description="requests of one key, or of one address without a key; more answer 429; 0: any"
    )
    captions_per_day: int = Field(default=2_000, ge=0, description="candidates written for one in 24 hours; 0: any")
    concurrent: int = Field(default=4, ge=0, description="caption requests of one at a time; 0: any")


class CacheSettings(Section):
    entries: int = Field(default=2_000, ge=1, description="small texts kept in memory at most, the last used")
    descriptions_s: float = Field(
        default=3_600, ge=0, description="how long the model's words for an image are kept, by its hash; 0: not at all"
    )


class IngestSettings(Section):
    sources_file: Path | None = Field(
        default=None,
        description="your list of sources (TOML); by default `sources.toml` in the data directory, else the built-in",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="where observations are kept, e.g. `postgresql://user:password@host/trendrag` (needs the extra "
        "`postgresql`); by default an SQLite file in the data directory",
    )
    contact: str | None = Field(default=None, description="e-mail or URL of the operator, sent in the User-Agent")
    youtube_key: SecretStr | None = Field(
        default=None, description="key of the YouTube Data API, for sources of type `youtube`"
    )
    reddit_client_id: SecretStr | None = Field(
        default=None, description="your Reddit app's id, for sources of type `reddit`; without it the public feeds"
    )
    reddit_client_secret: SecretStr | None = Field(default=None, description="your Reddit app's secret")
    connect_timeout_s: float = Field(default=5, gt=0, description="seconds to reach a source's server")
    read_timeout_s: float = Field(default=15, gt=0, description="longest silence within a source's answer")
    timeout_s: float = Field(default=20, gt=0, description="longest time for one source's answer")
    max_bytes: int = Field(default=5 * 2**20, ge=1024, description="largest answer of a source, decompressed")
    host_delay_s: float = Field(default=1, ge=0, description="least seconds between two requests to one host")
    half_life_hours: float = Field(default=12, gt=0, description="how fast a trend's score decays once it is over")
    max_age_hours: float = Field(default=72, gt=0, description="a trend not seen for longer leaves the snapshot")
    keep_days: float = Field(
        default=30,
        gt=0,
        description="observations older than this are removed; too few for the scores are refused",
    )
    keep_snapshots: int = Field(default=5, ge=1, description="snapshots kept on disk for rollback")
    allowlist: Path | None = Field(
        default=None,
        description="phrases never withheld, one a line; by default `allow.txt` in the data directory, if there",
    )
    blocklist: Path | None = Field(
        default=None,
        description="phrases always withheld, one a line; by default `block.txt` in the data directory, if there",
    )
    scenes: Literal["off", "model"] = Field(
        default="off",
        description="`model`: the model server writes down in which photos each new trend would fit; one call a trend",
    )
    scenes_trends: int = Field(default=200, ge=1, description="trends that a refresh has scenes written for at most")
    scenes_seconds: float = Field(default=60, gt=0, description="longest time that a refresh waits for scenes")
    allow_private: bool = Field(default=False, description="let sources live on private or loopback addresses")


class BatchSettings(Section):
    synthetic: str | None = Field(
        default=None,
        description="a regular expression: `trendrag batch` captions records whose description it is found in; by "
        "default the wording of generated descriptions ([docs/batch.md](docs/batch.md#which-records))",
    )
    per_host: int = Field(default=4, ge=1, description="images that a batch fetches at once from one host")
    cache_mb: int = Field(
        default=10_240, ge=0, description="megabytes of fetched images that batches keep in the data directory; 0: none"
    )
    prompt_price: float | None = Field(
        default=None, ge=0, description="what a million tokens of prompts cost, for a batch's cost; in any currency"
    )
    completion_price: float | None = Field(
        default=None, ge=0, description="what a million tokens of captions cost, likewise"
    )


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level of TrendRAG's own log lines; libraries are heard from `warning` on"
    )
    format: Literal["text", "json"] = Field(default="text", description="`json`: one object a line")

    @field_validator("level", "format", mode="before")
    @classmethod
    def _in_either_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class WeightsSettings(Section):
    wheels_dir: Path | None = Field(
        default=None, description="a folder of wheels to take weights from, for offline use"
    )


def default_data_dir() -> Path:
    """``var`` of the checkout this code runs from; for a copy installed elsewhere, the user's data folder."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / "var"
    return user_data_path("trendrag")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TRENDRAG_", env_nested_delimiter="__", frozen=True, extra="forbid", env_ignore_empty=True
    )

    data_dir: Path = Field(default_factory=default_data_dir, description="weights, trends, snapshots and caches")
    platforms_file: Path | None = Field(
        default=None,
        description="your rules of platforms (TOML), over the built-in ones; by default `platforms.toml` in the data "
        "directory, if there",
    )
    model: ModelSettings = ModelSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    image: ImageSettings = ImageSettings()
    fetch: FetchSettings = FetchSettings()
    server: ServerSettings = ServerSettings()
    jobs: JobSettings = JobSettings()
    history: HistorySettings = HistorySettings()
    limits: LimitSettings = LimitSettings()
    cache: CacheSettings = CacheSettings()
    ingest: IngestSettings = IngestSettings()
    batch: BatchSettings = BatchSettings()
    log: LogSettings = LogSettings()
    weights: WeightsSettings = WeightsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (pydantic-settings' signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (there is no .env file: it would be read by chance)
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The plain source of secret files knows no nested names.
        return (
            init_settings,
            env_settings,
            NestedSecretsSettingsSource(file_secret_settings, secrets_dir_missing="error"),
        )

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def snapshots_dir(self) -> Path:
        return self.data_dir / "snapshots"

    @property
    def database_path(self) -> Path:
        return self.data_dir / "trendrag.sqlite3"

    @property
    def service_database_path(self) -> Path:
        return self.data_dir / "service.sqlite3"

    @property
    def own_sources_file(self) -> Path:
        """Where a user's list of sources is looked for, and made, when no other place is set."""
        return self.data_dir / "sources.toml"

    @property
    def sources_file(self) -> Path | None:
        """The list of sources to read; None for the built-in one."""
        if self.ingest.sources_file is not None:
            return self.ingest.sources_file
        return self.own_sources_file if self.own_sources_file.exists() else None

    @property
    def own_platforms_file(self) -> Path | None:
        """The user's rules of platforms; None where there are only the built-in ones."""
        if self.platforms_file is not None:
            return self.platforms_file
        own = self.data_dir / "platforms.toml"
        return own if own.exists() else None


def load_settings() -> Settings:
    """Settings from the environment.

    Raises:
        ConfigurationError: names each variable that is wrong and why, without its value (it may be a secret).
    """
    try:
        return Settings(_secrets_dir=os.environ.get("TRENDRAG_SECRETS_DIR"))
    except SettingsError as error:
        raise ConfigurationError(f"TRENDRAG_SECRETS_DIR can't be used: {error}") from error
    except ValidationError as error:
        wrong = [
            f"TRENDRAG_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("\n".join(["Settings that can't be used:", *wrong])) from None
