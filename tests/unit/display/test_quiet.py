"""What quiet_ray sets; that it is enough is shown with a real Ray in tests/integration."""

import logging
import os

import pytest

from braidrec.display import quiet_ray


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_DATA_DISABLE_PROGRESS_BARS", "RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        # Set and deleted again, so that the fixture's end removes what quiet_ray sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_quiet() -> None:
    settings = quiet_ray()
    assert settings.init_arguments == {"logging_level": logging.WARNING, "log_to_driver": False}
    assert settings.worker_environment["RAY_DATA_DISABLE_PROGRESS_BARS"] == "1"
    assert settings.worker_environment.items() <= dict(os.environ).items()


def test_the_users_own_settings_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    assert quiet_ray().worker_environment["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_verbose_changes_nothing() -> None:
    settings = quiet_ray(verbose=True)
    assert (settings.init_arguments, settings.worker_environment) == ({}, {})
    assert "RAY_DATA_DISABLE_PROGRESS_BARS" not in os.environ
