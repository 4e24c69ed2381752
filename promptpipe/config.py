"""Settings: from the environment (prefix `PROMPTPIPE_`, nested by `__`), a `.env` file, and flags.

Durations are seconds, fractions allowed; 0 turns the thing off. `.env.example` says what each is for.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from promptpipe.model.errors import SettingsError
from promptpipe.model.jobs import DEFAULT_QUEUE, QUEUE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = "PROMPTPIPE_"
EXTENSION = "EXTENSION__"
"""What follows the prefix in settings of installed packages; then come the package's name, `__`, and the setting's."""

ENV_FILE = ".env"

# What `promptpipe simulator` and a service on the simulator channel have in common. Public, so refused beyond loopback.
SIMULATOR_PHONE_NUMBER_ID = "106540352242922"
SIMULATOR_ACCESS_TOKEN = "simulator-access-token"  # noqa: S105
SIMULATOR_APP_SECRET = "simulator-app-secret"  # noqa: S105
SIMULATOR_VERIFY_TOKEN = "simulator-verify-token"  # noqa: S105
SIMULATOR_API_VERSION = "v24.0"

MAX_PORT = 65535
_SQLITE_SCHEME = "sqlite:///"
_POSTGRES_SCHEMES = ("postgresql://", "postgres://")


class ChannelName(Enum):
    """Which provider carries the messages."""

    SIMULATOR = "simulator"
    WHATSAPP = "whatsapp"


class LogFormat(Enum):
    """How log entries are written."""

    CONSOLE = "console"
    JSON = "json"


def _bind(value: str) -> str:
    host, port = split_bind(value)
    if not host or port > MAX_PORT:
        raise ValueError("must be HOST:PORT")
    return value


def split_bind(value: str) -> tuple[str, int]:
    """Return the host and port of a `HOST:PORT` setting; an IPv6 host stands in brackets."""
    host, _, port = value.rpartition(":")
    if not port.isdecimal():
        raise ValueError("must be HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _database_url(value: str) -> str:
    if value.startswith(_SQLITE_SCHEME) and value != _SQLITE_SCHEME:
        return value
    if value.startswith(_POSTGRES_SCHEMES):
        return value
    raise ValueError("must look like sqlite:///promptpipe.db or postgresql://user:password@host/database")


def _queues(value: str) -> str:
    if not all(QUEUE_NAME.fullmatch(name.strip()) for name in value.split(",")):
        raise ValueError("must be names with commas between, each of 1 to 100 letters, digits, or signs among ._:/-")
    return value


Bind = Annotated[str, AfterValidator(_bind)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class WhatsAppSettings(BaseModel):
    """The WhatsApp Cloud API. On the simulator channel what is unset is the simulator's."""

    api_url: str | None = None
    phone_number_id: str | None = None
    access_token: SecretStr | None = None
    app_secret: SecretStr | None = None
    verify_token: SecretStr | None = None
    send_timeout: PositiveSeconds = 10.0


class GrpcTlsSettings(BaseModel):
    """TLS of the gRPC plane: files in PEM. With a client CA, clients need a certificate of that authority."""

    cert_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None


class ClientSettings(BaseModel):
    """How the admin commands reach the service: `HOST:PORT` (`grpc_bind` when unset), and by which TLS, if any."""

    server: Bind | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class PostgresSettings(BaseModel):
    """How PostgreSQL is used, when the database is one.

    *pooler* says what stands before the server; of pgbouncer's modes only `transaction` needs to be known, for then
    nothing may live on a session.
    """

    pool_size: Annotated[int, Field(ge=2, le=1_000)] = 10
    timeout: PositiveSeconds = 30.0
    pooler: Literal["none", "transaction"] = "none"


class GenAiSettings(BaseModel):
    """Which language model is asked, and how; without a key, none is. See `genai.GenAiConfig`."""

    api_key: SecretStr | None = None
    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-5-mini"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    timeout: PositiveSeconds = 30.0
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 20


class RetentionSettings(BaseModel):
    """For how long jobs that have ended are kept; 0 for ever."""

    done: Seconds = 7 * 86400.0
    failed: Seconds = 30 * 86400.0
    canceled: Seconds = 30 * 86400.0


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: Annotated[str, AfterValidator(_database_url)] = "sqlite:///promptpipe.db"
    postgres: PostgresSettings = PostgresSettings()
    http_bind: Bind = "127.0.0.1:8080"
    channel: ChannelName = ChannelName.SIMULATOR
    grpc_bind: Bind = "127.0.0.1:50051"
    grpc_tls: GrpcTlsSettings = GrpcTlsSettings()
    admin_token: SecretStr | None = None
    client: ClientSettings = ClientSettings()
    whatsapp: WhatsAppSettings = WhatsAppSettings()
    auto_enroll: bool = False
    enroll_flow: str = "conversation"
    genai: GenAiSettings = GenAiSettings()
    intake_prompt_file: str | None = None
    feedback_prompt_file: str | None = None
    habit_prompt_file: str | None = None
    chat_history_limit: Annotated[int, Field(ge=-1)] = -1
    scheduler_prep_time_minutes: Annotated[int, Field(ge=0, le=720)] = 10
    daily_prompt_reminder_delay: Seconds = 5 * 3600.0
    auto_feedback_delay: Seconds = 5 * 60.0
    feedback_initial_timeout: Seconds = 15 * 60.0
    feedback_followup_delay: Seconds = 3 * 3600.0
    max_reply_age: Seconds = 24 * 3600.0
    in_doubt_wait: Seconds = 120.0
    in_doubt_policy: Literal["resend", "drop", "hold"] = "resend"
    lease: PositiveSeconds = 30.0
    mailbox_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 100
    outbox_concurrency: Annotated[int, Field(ge=1, le=1_000)] = 50
    job_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 100
    queues: Annotated[str, AfterValidator(_queues)] = DEFAULT_QUEUE
    retention: RetentionSettings = RetentionSettings()
    shutdown_grace: Seconds = 10.0
    log_format: LogFormat = LogFormat.CONSOLE
    simulator_bind: Bind = "127.0.0.1:8090"

    @property
    def sqlite_path(self) -> Path | None:
        """The path in `database_url`; None when that is not SQLite's."""
        path = self.database_url.removeprefix(_SQLITE_SCHEME)
        return None if path == self.database_url else Path(path)

    @property
    def database_shown(self) -> str:
        """The database's URL without the secrets in it."""
        return without_passwords(self.database_url)

    @property
    def queue_names(self) -> list[str]:
        """The queues whose jobs this instance runs, each once."""
        return list(dict.fromkeys(name.strip() for name in self.queues.split(",")))

    def whatsapp_in_use(self) -> WhatsAppSettings:
        """Return the WhatsApp settings with the simulator's in place of what is unset, on that channel."""
        if self.channel is not ChannelName.SIMULATOR:
            return self.whatsapp
        host, port = split_bind(self.simulator_bind)
        simulators = {
            "api_url": f"http://{f'[{host}]' if ':' in host else host}:{port}/{SIMULATOR_API_VERSION}",
            "phone_number_id": SIMULATOR_PHONE_NUMBER_ID,
            "access_token": SecretStr(SIMULATOR_ACCESS_TOKEN),
            "app_secret": SecretStr(SIMULATOR_APP_SECRET),
            "verify_token": SecretStr(SIMULATOR_VERIFY_TOKEN),
        }
        unset = {name: value for name, value in simulators.items() if getattr(self.whatsapp, name) is None}
        return self.whatsapp.model_copy(update=unset)


def without_passwords(text: str) -> str:
    """Return *text* with the passwords of the URLs in it masked."""
    without = re.sub(r"(?<=://)([^:/@\s]*):[^/\s]*@", r"\1:********@", text)
    return re.sub(r"(?<=[?&])((?:ssl)?password)=[^&\s]*", r"\1=********", without)


def load_settings(**flags: object) -> Settings:
    """Return the settings; raise `SettingsError` naming the one that is bad. *flags* that are None are not set."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:  # pydantic-settings, for a value that must be JSON and is not
        raise SettingsError(str(error)) from error
    if settings.lease < 2 * settings.whatsapp.send_timeout:
        raise SettingsError(f"{PREFIX}LEASE: must be at least twice {PREFIX}WHATSAPP__SEND_TIMEOUT")
    _check_channel(settings)
    _check_grpc(settings)
    _check_genai(settings)
    return settings


def unknown_settings(environment: Iterable[str] | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield names in the *environment* that look like settings and are none, each with the nearest real name.

    By default, that is the process's environment and the `.env` file.
    """
    if environment is None:
        environment = [*os.environ, *dotenv_values(ENV_FILE)]
    known = list(flat_names())
    for name in environment:
        bare = name.upper().removeprefix(PREFIX)
        if name.upper().startswith(PREFIX) and bare not in known and not bare.startswith(("TEST_", EXTENSION)):
            nearest = difflib.get_close_matches(bare, known, n=1)
            yield name, PREFIX + nearest[0] if nearest else None


def extension_settings(package: str) -> dict[str, str]:
    """Return what the environment and the `.env` file set for an installed *package*, by lower-case name.

    `PROMPTPIPE_EXTENSION__MOOD_DIARY__EVERY` is `every` of `mood-diary`; runs of `-`, `_` and `.` in a package's name
    are one `_`.
    """
    prefix = f"{PREFIX}{EXTENSION}{re.sub('[-_.]+', '_', package).upper()}__"
    found = {**dotenv_values(ENV_FILE), **os.environ}
    return {
        name.upper().removeprefix(prefix).lower(): value
        for name, value in found.items()
        if name.upper().startswith(prefix) and value is not None
    }


def flat_names() -> Iterator[str]:
    """Yield the names of all settings as they stand in the environment, without the prefix."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from (f"{name}__{inner}".upper() for inner in type(field.default).model_fields)
        else:
            yield name.upper()


def is_loopback(bind: str) -> bool:
    """Whether only this machine can reach a `HOST:PORT`."""
    host, _ = split_bind(bind)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_grpc(settings: Settings) -> None:
    tls = settings.grpc_tls
    if (tls.cert_file is None) != (tls.key_file is None) or (tls.client_ca_file and not tls.cert_file):
        missing = "KEY_FILE" if tls.cert_file else "CERT_FILE"
        raise SettingsError(f"{PREFIX}GRPC_TLS__{missing}: is needed with the others")
    if settings.admin_token is not None and not settings.admin_token.get_secret_value().strip():
        raise SettingsError(f"{PREFIX}ADMIN_TOKEN: must not be empty; leave it out for none")
    if not is_loopback(settings.grpc_bind) and settings.admin_token is None and tls.client_ca_file is None:
        raise SettingsError(
            f"{PREFIX}ADMIN_TOKEN: is needed before {PREFIX}GRPC_BIND leaves loopback"
            f" (or {PREFIX}GRPC_TLS__CLIENT_CA_FILE)"
        )


def _check_genai(settings: Settings) -> None:
    key = settings.genai.api_key
    if key is not None and not key.get_secret_value().strip():
        raise SettingsError(f"{PREFIX}GENAI__API_KEY: must not be empty; leave it out for no language model")
    if not re.match("https?://[^/]", settings.genai.base_url):
        raise SettingsError(f"{PREFIX}GENAI__BASE_URL: must look like https://api.openai.com/v1")


def _check_channel(settings: Settings) -> None:
    whatsapp = settings.whatsapp_in_use()
    for name in WhatsAppSettings.model_fields:
        value = getattr(whatsapp, name)
        if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise SettingsError(f"{PREFIX}WHATSAPP__{name.upper()}: is needed for the {settings.channel.value} channel")
    if is_loopback(settings.http_bind):
        return
    public = {
        "app_secret": SIMULATOR_APP_SECRET,
        "access_token": SIMULATOR_ACCESS_TOKEN,
        "verify_token": SIMULATOR_VERIFY_TOKEN,
    }
    for name, secret in public.items():
        if getattr(whatsapp, name).get_secret_value() == secret:
            raise SettingsError(
                f"{PREFIX}WHATSAPP__{name.upper()}: the simulator's secret is public;"
                f" set your own before {PREFIX}HTTP_BIND leaves loopback"
            )
