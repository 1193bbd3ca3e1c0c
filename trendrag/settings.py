"""Settings, read from the environment once, in the entry points, and passed on as values.

``TRENDRAG_MODEL__PROVIDER=openai`` sets ``settings.model.provider``; two underscores go one level down. Secrets may
also be files: ``TRENDRAG_SECRETS_DIR=/run/secrets`` reads ``/run/secrets/trendrag_model__api_key``.
"""

import os
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from trendrag.errors import ConfigurationError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    token_timeout_s: float = Field(default=60, gt=0, description="longest silence between two pieces of a stream")
    total_timeout_s: float = Field(default=180, gt=0, description="longest time for one candidate")


class RetrievalSettings(Section):
    k: int = Field(default=8, ge=1, le=50, description="how many trends the model is offered at most")
    threshold: float = Field(
        default=0.04, ge=0, le=1, description="probability below which a trend does not fit, and none is offered"
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


class ServerSettings(Section):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    max_concurrent: int = Field(default=32, ge=1, description="captions written at once; more answer 503")


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
    model: ModelSettings = ModelSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    image: ImageSettings = ImageSettings()
    server: ServerSettings = ServerSettings()
    ingest: IngestSettings = IngestSettings()
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
    def own_sources_file(self) -> Path:
        """Where a user's list of sources is looked for, and made, when no other place is set."""
        return self.data_dir / "sources.toml"

    @property
    def sources_file(self) -> Path | None:
        """The list of sources to read; None for the built-in one."""
        if self.ingest.sources_file is not None:
            return self.ingest.sources_file
        return self.own_sources_file if self.own_sources_file.exists() else None


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
