"""Settings: read once at the start from the environment and an optional TOML file; a wrong one is a sentence, not a trace.

Names in the environment start with `CTI_`, levels are parted by `__`: `CTI_PBX__MAIN__HOST=10.0.0.5`. The same in TOML:

    database_url = "postgresql://..."
    [pbx.main]
    host = "10.0.0.5"
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


class WrongSettings(Exception):
    """The settings cannot be used; the message names each wrong one and what it should be."""


class CallerIdRule(BaseModel):
    """Which number a call to the outside shows: the first rule that fits says it. What is left out fits all."""

    model_config = ConfigDict(extra="forbid")

    show: str = Field(pattern=r"^\+?[0-9]{2,20}$", description="the number to show, as the carrier wants it")
    team: str = Field(default="", description="fits agents of this team")
    prefix: str = Field(
        default="", description="fits numbers that begin like this, as dialed without outside_prefix"
    )


class PbxSettings(BaseModel):
    """One Asterisk: where its AMI is, and how numbers look there."""

    model_config = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=5038, ge=1, le=65535)
    username: str = "cti"
    secret: SecretStr
    tls: bool = False
    region: Region = Field(
        default="US", description="ISO 3166 country of numbers written without a country code"
    )
    inbound_contexts: tuple[str, ...] = Field(
        default=("from-trunk", "from-pstn", "from-external", "from-did-direct"),
        description="dialplan contexts in which calls from outside arrive",
    )
    trunks: tuple[str, ...] = Field(
        default=("PJSIP/trunk",), description="devices behind which the outside world is, as `PJSIP/name`"
    )
    outside_prefix: str = Field(default="", description="what agents dial for an outside line, e.g. 9")
    caller_ids: tuple[CallerIdRule, ...] = Field(
        default=(), description="which number calls to the outside show; what the PBX says if no rule fits"
    )
    ring_seconds: int = Field(
        default=30,
        ge=3,
        le=120,
        description="seconds that a phone rings for a call made or handed on by command",
    )
    auto_answer: bool = Field(
        default=False,
        description="phones are told to answer by themselves when their agent makes a call on the screen",
    )
    recordings: str = Field(
        default="", description="folder on the PBX for recordings begun by command; Asterisk's own if empty"
    )
    recordings_seen_at: str = Field(
        default="",
        description="the same folder as this machine sees it, to look whether a recording is written",
    )
    resync_every: float = Field(
        default=60.0, gt=0, description="seconds between two full comparisons with Asterisk"
    )


class WrapUpSettings(BaseModel):
    """What happens after a queue call."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(default=30.0, ge=0)
    after: Literal["ready", "not_ready"] = "ready"


class RoutingSettings(BaseModel):
    """How the dialplan's questions are answered. The rules themselves are data, see docs/routing.md."""

    model_config = ConfigDict(extra="forbid")

    lookup_seconds: float = Field(
        default=0.03, gt=0, le=1, description="how long the look-up of a customer may hold up an answer"
    )
    limit_seconds: float = Field(
        default=0.15, gt=0, le=5, description="after this a question is not answered any more"
    )
    at_once: int = Field(default=200, ge=1, le=10_000, description="questions answered at the same time")


class SupervisionSettings(BaseModel):
    """Supervisors who listen. What an agent must be told differs from country to country."""

    model_config = ConfigDict(extra="forbid")

    announce: bool = Field(
        default=False, description="agents are shown on their screen that a supervisor listens, and who"
    )


class QueueTarget(BaseModel):
    """What is expected of a queue. Seconds."""

    model_config = ConfigDict(extra="forbid")

    answer_within: float = Field(default=20.0, ge=0, description="an answer within this time is in time")
    short_abandon: float = Field(
        default=5.0, ge=0, description="who hangs up sooner is counted apart and not held against the queue"
    )


class FiguresSettings(QueueTarget):
    """What figures are measured by; a change counts for facts from then on."""

    time_zone: str = Field(default="UTC", description="the call centre's, such as Europe/London: its days")
    first_call_days: int = Field(
        default=7, ge=1, le=90, description="days without another contact after which one was the last needed"
    )
    queues: dict[str, QueueTarget] = Field(
        default_factory=dict, description="queues with targets of their own, by id: `main:sales`"
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"there is no time zone {name!r}; take a name such as Europe/London")
        return name


class Settings(BaseSettings):
    """All settings of `cti serve`."""

    model_config = SettingsConfigDict(env_prefix="CTI_", env_nested_delimiter="__", extra="ignore")

    database_url: SecretStr = SecretStr("")
    database_pool: int = Field(default=8, ge=2, le=100)
    listen: str = "127.0.0.1"
    port: int = Field(default=8600, ge=0, le=65535)
    public_url: str = ""
    secret_key: SecretStr = Field(
        default=SecretStr(""),
        description="signs tokens; at least 32 characters; kept in the database if empty",
    )
    pbx: dict[Name, PbxSettings] = Field(default_factory=dict)
    wrap_up: WrapUpSettings = Field(default_factory=WrapUpSettings)
    routing: RoutingSettings = Field(default_factory=RoutingSettings)
    figures: FiguresSettings = Field(default_factory=FiguresSettings)
    supervision: SupervisionSettings = Field(default_factory=SupervisionSettings)
    not_ready_reasons: tuple[str, ...] = ("Break", "Lunch", "Meeting", "Training", "Back office")
    pop_url: str = Field(
        default="",
        description="address of another CRM to open with a pop; {e164} {account_number} {call} {queue} {dnis} "
        "are filled in, URL-encoded",
    )
    token_minutes: int = Field(default=15, ge=1, le=24 * 60)
    session_hours: int = Field(default=12, ge=1, le=24 * 30)
    heartbeat: float = Field(default=20.0, gt=0)
    client_buffer: int = Field(
        default=1 << 20, ge=1 << 14, description="bytes a slow client may lag behind before it is closed"
    )
    journal_buffer: int = Field(
        default=200_000, ge=1000, description="facts kept in memory while the database is away"
    )
    keep_journal_days: int = Field(default=90, ge=1, description="days that facts stay in the journal")
    keep_audit_days: int = Field(default=730, ge=90, description="days that the audit is kept")
    log_json: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if path := os.environ.get("CTI_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, Path(path)))
        return tuple(sources)


def load(**given: object) -> Settings:
    """Reads the settings; raises WrongSettings naming every wrong one. `given` outranks environment and file."""
    path = os.environ.get("CTI_CONFIG")
    if path and not Path(path).is_file():
        raise WrongSettings(f"CTI_CONFIG names {path}, which is not a file")
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(p) for p in e['loc']) or 'settings'}: {e['msg']}"
            for e in error.errors(include_input=False)
        ]
        raise WrongSettings("wrong settings:\n  " + "\n  ".join(lines)) from None
    except ValueError as error:
        raise WrongSettings(f"settings cannot be read: {error}") from None
