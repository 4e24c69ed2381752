"""Settings: a bad one is named, a forgotten one is asked for, a secret is not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from promptpipe.config import PREFIX, ChannelName, flat_names, load_settings, unknown_settings
from promptpipe.model.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

WHATSAPP = {
    "CHANNEL": "whatsapp",
    "WHATSAPP__API_URL": "https://graph.facebook.com/v24.0",
    "WHATSAPP__PHONE_NUMBER_ID": "1",
    "WHATSAPP__ACCESS_TOKEN": "our-token",
    "WHATSAPP__APP_SECRET": "our-secret",
    "WHATSAPP__VERIFY_TOKEN": "our-verify-token",
}


def set_all(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(PREFIX + name, value)


def test_defaults_are_a_service_on_loopback_with_a_simulated_channel() -> None:
    """Without a setting, everything is there to try it."""
    settings = load_settings()
    assert (settings.channel, settings.http_bind) == (ChannelName.SIMULATOR, "127.0.0.1:8080")
    assert str(settings.sqlite_path) == "promptpipe.db"
    whatsapp = settings.whatsapp_in_use()
    assert whatsapp.api_url == "http://127.0.0.1:8090/v24.0"
    assert whatsapp.app_secret is not None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("HTTP_BIND", "8080", "must be HOST:PORT"),
        ("HTTP_BIND", "localhost:", "must be HOST:PORT"),
        ("HTTP_BIND", "localhost:99999", "must be HOST:PORT"),
        ("DATABASE_URL", "mysql://x", "must look like sqlite:///promptpipe.db"),
        ("DATABASE_URL", "sqlite:///", "must look like"),
        ("CHANNEL", "pigeon", "simulator"),
        ("IN_DOUBT_WAIT", "-1", "greater than or equal to 0"),
        ("IN_DOUBT_WAIT", "nan", "finite"),
        ("IN_DOUBT_WAIT", "soon", "number"),
        ("IN_DOUBT_POLICY", "shrug", "resend"),
        ("LEASE", "0", "greater than 0"),
        ("LEASE", "5", "at least twice PROMPTPIPE_WHATSAPP__SEND_TIMEOUT"),
        ("AUTO_ENROLL", "perhaps", "boolean"),
        ("LOG_FORMAT", "xml", "json"),
        ("QUEUES", "", "must be names"),
        ("QUEUES", "a,,b", "must be names"),
        ("QUEUES", "a b", "must be names"),
        ("MAILBOX_CONCURRENCY", "0", "greater than or equal to 1"),
        ("WHATSAPP__SEND_TIMEOUT", "0", "greater than 0"),
        ("GRPC_BIND", "50051", "must be HOST:PORT"),
        ("ADMIN_TOKEN", " ", "must not be empty"),
        ("CLIENT__SERVER", "localhost", "must be HOST:PORT"),
    ],
)
def test_bad_setting_is_named_with_its_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    """One line that says which, and what would do."""
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = str(caught.value)
    assert text.startswith(f"{PREFIX}{name}: ")
    assert reason in text


def test_queues_are_names_with_commas_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, in the order in which they stand."""
    assert load_settings().queue_names == ["default"]
    monkeypatch.setenv(f"{PREFIX}QUEUES", "slow, default,slow ,mail/out")
    assert load_settings().queue_names == ["slow", "default", "mail/out"]


def test_bad_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error about a setting does not print what was in it."""
    monkeypatch.setenv(f"{PREFIX}WHATSAPP", '{"app_secret": ["hunter2"]}')
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("missing", [name for name in WHATSAPP if name != "CHANNEL"])
def test_real_channel_needs_all_of_its_settings(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Nothing of the simulator's fills a gap in production."""
    set_all(monkeypatch, WHATSAPP | {missing: ""})
    with pytest.raises(SettingsError, match=f"{PREFIX}{missing}: is needed"):
        load_settings()


def test_public_secrets_do_not_leave_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows the simulator could sign webhooks."""
    monkeypatch.setenv(f"{PREFIX}HTTP_BIND", "0.0.0.0:8080")
    with pytest.raises(SettingsError, match="the simulator's secret is public"):
        load_settings()
    set_all(monkeypatch, WHATSAPP)
    assert load_settings().http_bind == "0.0.0.0:8080"


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.9.1:1"])
def test_loopback_is_known_as_such(monkeypatch: pytest.MonkeyPatch, bind: str) -> None:
    """In all its spellings."""
    monkeypatch.setenv(f"{PREFIX}HTTP_BIND", bind)
    assert load_settings().http_bind == bind


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an absent flag sets nothing."""
    monkeypatch.setenv(f"{PREFIX}HTTP_BIND", "127.0.0.1:1")
    assert load_settings(http_bind=None).http_bind == "127.0.0.1:1"
    assert load_settings(http_bind="127.0.0.1:2").http_bind == "127.0.0.1:2"


def test_unknown_settings_in_the_file_are_found(tmp_path: Path) -> None:
    """That is where people write them."""
    (tmp_path / ".env").write_text(f"{PREFIX}AUTOENROLL=true\n")
    assert (f"{PREFIX}AUTOENROLL", f"{PREFIX}AUTO_ENROLL") in list(unknown_settings())


def test_unknown_settings_are_found_with_the_likely_name() -> None:
    """A typo does not pass in silence."""
    environment = {
        f"{PREFIX}HTTP_BIND": "x",
        f"{PREFIX}HTP_BIND": "x",
        f"{PREFIX}TEST_POSTGRES_URL": "x",
        "HOME": "x",
        f"{PREFIX}XYZZY": "x",
    }
    assert list(unknown_settings(environment)) == [
        (f"{PREFIX}HTP_BIND", f"{PREFIX}HTTP_BIND"),
        (f"{PREFIX}XYZZY", None),
    ]
    assert "WHATSAPP__APP_SECRET" in set(flat_names())


def test_grpc_leaves_loopback_only_with_a_token_or_known_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches it could read everybody's conversation."""
    set_all(monkeypatch, {"GRPC_BIND": "0.0.0.0:50051"})
    with pytest.raises(SettingsError, match="PROMPTPIPE_ADMIN_TOKEN: is needed before PROMPTPIPE_GRPC_BIND"):
        load_settings()
    set_all(monkeypatch, {"GRPC_TLS__CERT_FILE": "c", "GRPC_TLS__KEY_FILE": "k"})
    with pytest.raises(SettingsError, match="PROMPTPIPE_ADMIN_TOKEN"):
        load_settings()
    set_all(monkeypatch, {"GRPC_TLS__CLIENT_CA_FILE": "ca"})
    assert load_settings().grpc_tls.client_ca_file == "ca"


def test_token_lets_grpc_leave_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is shown nowhere."""
    set_all(monkeypatch, {"GRPC_BIND": "[::]:50051", "ADMIN_TOKEN": "hunter2"})
    assert "hunter2" not in repr(load_settings())


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"CERT_FILE": "c"}, "KEY_FILE"),
        ({"KEY_FILE": "k"}, "CERT_FILE"),
        ({"CLIENT_CA_FILE": "ca"}, "CERT_FILE"),
    ],
)
def test_tls_needs_certificate_and_key(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], missing: str) -> None:
    """The one that is missing is named."""
    set_all(monkeypatch, {f"GRPC_TLS__{name}": value for name, value in given.items()})
    with pytest.raises(SettingsError, match=f"PROMPTPIPE_GRPC_TLS__{missing}: is needed"):
        load_settings()
