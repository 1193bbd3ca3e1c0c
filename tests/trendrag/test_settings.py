from pathlib import Path

import pytest

from trendrag.errors import ConfigurationError
from trendrag.settings import Settings, load_settings


def test_two_underscores_go_one_level_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_MODEL__PROVIDER", "openai")
    monkeypatch.setenv("TRENDRAG_RETRIEVAL__K", "3")
    settings = load_settings()
    assert settings.model.provider == "openai"
    assert settings.retrieval.k == 3


def test_a_wrong_value_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_RETRIEVAL__K", "hunter2")
    with pytest.raises(ConfigurationError, match="TRENDRAG_RETRIEVAL__K") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_an_unknown_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_MODEL__TEMPRATURE", "1")
    with pytest.raises(ConfigurationError, match="TRENDRAG_MODEL__TEMPRATURE"):
        load_settings()


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trendrag_model__api_key").write_text("s3cret\n")
    (tmp_path / "somebody_elses").write_text("x")
    monkeypatch.setenv("TRENDRAG_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert settings.model.api_key is not None
    assert settings.model.api_key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)


def test_a_missing_folder_of_secrets_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="TRENDRAG_SECRETS_DIR"):
        load_settings()


def test_settings_are_values(settings: Settings) -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.model.provider = "other"  # type: ignore[misc]
