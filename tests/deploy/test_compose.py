"""The compose files hang together, as far as that can be told without an engine."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from serving import drain
from serving.records import keeper
from tests.deploy.test_watching import DEPLOY
from tests.test_docs import fields
from trendrag.cli import command
from trendrag.settings import Settings

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
LOOK = yaml.safe_load((DEPLOY / "compose.look.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS = {name for name, _ in fields(Settings, "TRENDRAG_")} | {"TRENDRAG_SECRETS_DIR"}

each_service = pytest.mark.parametrize("name", SERVICES)


def test_the_services() -> None:
    assert set(SERVICES) == {"trendrag", "schedule", "vllm", "postgres", "redis", "prometheus", "grafana"}


@each_service
def test_a_service_is_pinned_watched_bounded_and_started_again(name: str) -> None:
    service = SERVICES[name]
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert tag == "local" or any(figure.isdigit() for figure in tag)
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"]["memory"]


@each_service
def test_what_a_service_names_is_there(name: str) -> None:
    service = SERVICES[name]
    for other, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]
        assert set(service["networks"]) & set(SERVICES[other]["networks"])
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for volume in service.get("volumes", []):
        source, _, _ = volume.partition(":")
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_the_server_is_given_the_time_that_it_takes_to_end() -> None:
    """It drains, sends the last bytes, and writes down what it wrote."""
    ending = Settings().server.drain_s + drain.CLOSE_S + keeper.CLOSE_S
    assert float(SERVICES["trendrag"]["stop_grace_period"].removesuffix("s")) > ending


@each_service
def test_settings_and_commands_are_real(name: str) -> None:
    service = SERVICES[name]
    ours = {variable for variable in service.get("environment", {}) if variable.startswith("TRENDRAG_")}
    assert ours <= SETTINGS
    for secret in service.get("secrets", []):
        assert not secret.startswith("trendrag_") or secret.upper() in SETTINGS
    if service["image"] == "trendrag:local":
        _, subcommand, *rest = service["command"]
        known = {option for parameter in command(subcommand).params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known


def test_nothing_is_published_but_the_page_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"trendrag": ["127.0.0.1:8000:8000"]}
    assert LOOK == {"services": {"grafana": {"ports": ["127.0.0.1:3000:3000"], "networks": ["page"]}}}
    assert COMPOSE["networks"]["inside"] == COMPOSE["networks"]["model"] == {"internal": True}
    for name in ("postgres", "redis", "prometheus", "grafana"):
        assert SERVICES[name]["networks"] == ["inside"]


def test_no_secret_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            is_secret = re.search(r"PASSWORD|KEY(?!S)|TOKEN|DATABASE_URL|SECRET(?!S_DIR)", variable)
            assert not is_secret or str(value).startswith("/run/secrets/"), f"{name}: {variable}"


def test_new_secrets_makes_those_that_are_named_and_keeps_what_is_there(tmp_path: Path) -> None:
    script = shutil.copy(DEPLOY / "new-secrets", tmp_path)

    def secrets() -> dict[str, str]:
        subprocess.run([script], check=True)  # noqa: S603
        return {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}

    made = secrets()
    assert secrets() == made
    assert set(made) == {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    url = urlsplit(made["trendrag_ingest__database_url"])
    assert (url.password, url.hostname) == (made["postgres_password"], "postgres")
    assert SERVICES["postgres"]["environment"]["POSTGRES_USER"] == url.username
    assert SERVICES["postgres"]["environment"]["POSTGRES_DB"] == url.path.strip("/")


def test_secrets_are_read_from_their_files(tmp_path: Path) -> None:
    for name in ("trendrag", "schedule"):
        for secret in SERVICES[name]["secrets"]:
            (tmp_path / secret).write_text(f"of {secret}")
    read = Settings(_secrets_dir=tmp_path)
    assert read.model.api_key
    assert read.model.api_key.get_secret_value() == "of trendrag_model__api_key"
    assert read.ingest.database_url
    assert read.ingest.database_url.get_secret_value() == "of trendrag_ingest__database_url"


def test_prometheus_asks_the_services_where_they_answer() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"trendrag": ["trendrag:8000"], "schedule": ["schedule:9464"], "vllm": ["vllm:8000"]}
    for name in targets:
        assert set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert SERVICES["schedule"]["command"][3] == "9464"
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert urlsplit(source["url"]).hostname == "prometheus"
