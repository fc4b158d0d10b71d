"""Settings: read once at the start from the environment and an optional TOML file; a wrong one is a sentence, not a trace.

Names in the environment start with `CTI_`, levels are parted by `__`: `CTI_PBX__MAIN__HOST=10.0.0.5`. The same in TOML:

    database_url = "postgresql://..."
    [pbx.main]
    host = "10.0.0.5"
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from phonenumbers import SUPPORTED_REGIONS
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cti.reasons import Chooser
from cti.wrap_up import Disposition, WrapUp

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$")]


def _country(name: str) -> str:
    """A country whose number plan is known; without one every national number would be nobody's."""
    if name in SUPPORTED_REGIONS:
        return name
    meant = {"UK": "GB", "EN": "GB"}.get(name.upper(), name.upper())
    hint = f"write {meant}" if meant in SUPPORTED_REGIONS else "take an ISO 3166 code such as GB, US or DE"
    raise ValueError(f"{name!r} is no country code: {hint}")


Region = Annotated[str, AfterValidator(_country)]


def _network(given: object) -> object:
    try:
        return ip_network(str(given))
    except ValueError:
        raise ValueError(f"{given} is no address or network: write it like 10.0.0.1 or 10.0.0.0/24") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class WrongSettings(Exception):
    """The settings cannot be used; the message names each wrong one and what it should be."""


class CallerIdRule(BaseModel):
    """Which number a call to the outside shows: the first rule that fits says it. What is left out fits all."""

    model_config = ConfigDict(extra="forbid")

    show: str = Field(pattern=r"^\+?[0-9]{2,20}$", description="the number to show, as the carrier wants it")
    team: str = Field(default="", description="fits agents of this team")
    prefix: str = Field(
        default="", description="fits numbers that begin like this, as digits with the country code: 33"
    )


class IceServer(BaseModel):
    """A STUN or TURN server for phones in the browser that are not in the house's network."""

    model_config = ConfigDict(extra="forbid")

    urls: str = Field(pattern=r"^(stun|turn|turns):[^\s]+$", description="such as turn:turn.example:3478")
    username: str = ""
    credential: SecretStr = SecretStr("")


class PbxSettings(BaseModel):
    """One Asterisk: where its AMI is, and how numbers look there."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=5038, ge=1, le=65535)
    username: str = Field(default="cti", min_length=1)
    secret: SecretStr = Field(min_length=1)
    tls: bool = False
    tls_ca: str = Field(
        default="",
        description="file with the authority that the PBX's certificate is trusted by, or that certificate itself; "
        "the machine's own authorities if empty",
    )
    region: Region = Field(
        default="US", description="ISO 3166 country of numbers written without a country code"
    )
    inbound_contexts: tuple[str, ...] = Field(
        default=("from-trunk", "from-pstn", "from-external", "from-did-direct", "cti-callback"),
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
    line_music: str = Field(
        default="",
        description="what agents who work off-hook hear between calls: a class of music on hold; silence if empty",
    )
    phone_url: str = Field(
        default="",
        pattern=r"^(wss?://[^\s;,'\"@]+)?$",
        description="where browsers reach this PBX's SIP over websocket, such as wss://pbx.example:8089/ws; "
        "empty: no phones in the browser",
    )
    phone_domain: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9.-]*$",
        description="in their SIP addresses; the host of phone_url if empty",
    )
    ice_servers: tuple[IceServer, ...] = Field(
        default=(), description="STUN and TURN servers for phones in the browser outside the house"
    )
    resync_every: float = Field(
        default=60.0, gt=0, description="seconds between two full comparisons with Asterisk"
    )
    canary_every: float = Field(
        default=1.0,
        ge=0,
        le=60,
        description="seconds between two measurements of how late events are; 0: none",
    )
    events_late_after: float = Field(
        default=2.0,
        ge=0.1,
        description="seconds of age from which on events count as late and screens say so",
    )

    @field_validator("tls_ca")
    @classmethod
    def _readable(cls, file: str) -> str:
        if file:
            tls_context(file)
        return file


def tls_context(authority: str = "") -> ssl.SSLContext:
    """What checks a PBX's certificate: by this file of PEM, else by the machine's authorities. Raises ValueError."""
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if authority:  # certificates made by hand, as Asterisk's own script makes them, lack what is asked for from 3.13 on
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context
    except ssl.SSLError:
        raise ValueError(f"{authority} holds no certificate as PEM") from None
    except OSError as error:
        raise ValueError(f"{authority} cannot be read: {error.strerror}") from None


class ReasonSettings(BaseModel):
    """A reason for being not ready; in the list of reasons a name alone will do."""

    model_config = ConfigDict(extra="forbid")

    name: ShortText
    paid: bool = Field(default=True, description="whether this time is paid")
    limit: float | None = Field(
        default=None,
        gt=0,
        le=10_080,
        description="minutes after which it has lasted too long: shown and counted, nobody is made ready",
    )
    chosen_by: Chooser = Field(
        default=Chooser.AGENTS, description="agents, supervisors (for their agents), or only the system"
    )


class QueueWrapUpSettings(BaseModel):
    """What happens after the calls of one queue; what is left out is as in `wrap_up` itself."""

    model_config = ConfigDict(extra="forbid")

    seconds: float | None = Field(default=None, ge=0)
    after: Literal["ready", "not_ready"] | None = None
    mandatory: bool | None = None
    dispositions: dict[Code, ShortText] | None = None


class WrapUpSettings(BaseModel):
    """What happens after a queue call."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(default=30.0, ge=0)
    after: Literal["ready", "not_ready"] = "ready"
    mandatory: bool = Field(
        default=False, description="wrap-up does not end before the agent has said how the call ended"
    )
    dispositions: dict[Code, ShortText] = Field(
        default_factory=dict, description="what a call may have ended with, code and label; any text if empty"
    )
    queues: dict[str, QueueWrapUpSettings] = Field(
        default_factory=dict, description="queues with rules of their own, by id: `main:sales`"
    )

    @field_validator("queues")
    @classmethod
    def _ids(cls, queues: dict[str, QueueWrapUpSettings]) -> dict[str, QueueWrapUpSettings]:
        for queue in queues:
            if ":" not in queue:
                raise ValueError(f"{queue!r} is no queue's id: write it with its PBX, such as main:{queue}")
        return queues


class RoutingSettings(BaseModel):
    """How the dialplan's questions are answered. The rules themselves are data, see docs/routing.md."""

    model_config = ConfigDict(extra="forbid")

    lookup_seconds: float = Field(
        default=0.03, gt=0, le=1, description="how long the look-up of a customer may hold up an answer"
    )
    limit_seconds: float = Field(
        default=0.3, gt=0, le=5, description="after this a question is not answered any more"
    )
    at_once: int = Field(default=200, ge=1, le=10_000, description="questions answered at the same time")


class TrunkSettings(BaseModel):
    """A way out that the dialer uses; all campaigns share its limits."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")
    pbx: str = Field(default="main", description="the PBX it belongs to")
    dial: str = Field(
        description="what is dialed: `PJSIP/{number}@carrier` with {number} as +4930123456, or {digits} without the +"
    )
    priority: int = Field(default=0, ge=0, le=100, description="higher is tried first; equal ones in turn")
    calls_per_second: float = Field(default=10.0, gt=0, le=500)
    channels: int = Field(default=100, ge=1, le=20_000, description="calls at once at most")

    @field_validator("dial")
    @classmethod
    def _names_the_number(cls, dial: str) -> str:
        if not ("{number}" in dial or "{digits}" in dial) or not re.fullmatch(r"[A-Za-z0-9_./@:+{}-]+", dial):
            raise ValueError("write it like PJSIP/{number}@carrier")
        return dial


class DialerSettings(BaseModel):
    """What campaigns dial through, and what they may show."""

    model_config = ConfigDict(extra="forbid")

    trunks: tuple[TrunkSettings, ...] = Field(default=(), description="empty: campaigns cannot dial")
    caller_ids: tuple[Annotated[str, Field(pattern=r"^\+[1-9][0-9]{4,14}$")], ...] = Field(
        default=(), description="numbers verified with the carrier: the only ones that campaigns show"
    )
    profiles: str = Field(
        default="",
        description="a folder with country profiles of your own, which outrank those that come along",
    )
    tick_s: float = Field(
        default=0.5, ge=0.05, le=5, description="seconds between two decisions of a campaign's pace"
    )
    lease_s: float = Field(
        default=10.0,
        ge=1,
        le=120,
        description="seconds after which another server takes over a campaign of one that died",
    )


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


_OF_KUBERNETES = re.compile(r"_(SERVICE|PORT)(_|$)")
"""In names that it gives every program for each service."""

PREFIX = "CTI_"
"""What the environment's names of settings begin with."""

SHORTEST_KEY = 32
"""Characters of the key that signs tokens."""

DEFAULT_REASONS = ("Break", "Lunch", "Meeting", "Training", "Back office")


class Settings(BaseSettings):
    """All settings of `cti serve`."""

    FROM_OUTSIDE: ClassVar[bool] = True
    """Whether environment and file are read at all."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid")

    database_url: SecretStr = SecretStr("")
    database_pool: int = Field(default=8, ge=2, le=100)
    listen: str = "127.0.0.1"
    port: int = Field(default=8600, ge=0, le=65535)
    public_url: str = ""
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="proxies whose X-Forwarded-For says who a client is: addresses or networks",
    )
    secret_key: SecretStr = Field(
        default=SecretStr(""),
        description="signs tokens; at least 32 characters; kept in the database if empty",
    )
    pbx: dict[Name, PbxSettings] = Field(default_factory=dict)
    wrap_up: WrapUpSettings = Field(default_factory=WrapUpSettings)
    routing: RoutingSettings = Field(default_factory=RoutingSettings)
    figures: FiguresSettings = Field(default_factory=FiguresSettings)
    supervision: SupervisionSettings = Field(default_factory=SupervisionSettings)
    dialer: DialerSettings = Field(default_factory=DialerSettings)
    not_ready_reasons: tuple[ReasonSettings, ...] = Field(
        default=tuple(ReasonSettings(name=name) for name in DEFAULT_REASONS),
        description="why agents may be not ready: names, or name, paid, limit (minutes) and chosen_by",
    )
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

    @property
    def dsn(self) -> str:
        """Where the database is, password and all; raises WrongSettings when that is not set."""
        if not (dsn := self.database_url.get_secret_value()):
            raise WrongSettings(
                "no database is configured: set CTI_DATABASE_URL=postgresql://user:password@host/name"
            )
        return dsn

    @property
    def unpaid_reasons(self) -> frozenset[str]:
        """The reasons for being not ready whose time is not paid."""
        return frozenset(reason.name for reason in self.not_ready_reasons if not reason.paid)

    @property
    def reason_limits(self) -> dict[str, timedelta]:
        """How long one may be not ready for a reason, of those that have a limit."""
        return {
            reason.name: timedelta(minutes=reason.limit)
            for reason in self.not_ready_reasons
            if reason.limit is not None
        }

    @field_validator("public_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        """Cookies are for TLS only if this says https, and pages are ours if they come from here: it must be right."""
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/")):
            raise ValueError(
                "write it with http:// or https:// and without a path, such as https://cti.example"
            )
        return url.rstrip("/")

    @field_validator("secret_key")
    @classmethod
    def _long(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key.get_secret_value()) < SHORTEST_KEY:
            raise ValueError(
                f"it needs at least {SHORTEST_KEY} characters; make one with: openssl rand -base64 48"
            )
        return key

    @field_validator("not_ready_reasons", mode="before")
    @classmethod
    def _names(cls, given: object) -> object:
        """A name alone is a reason."""
        if not isinstance(given, list | tuple):
            return given
        return tuple({"name": one} if isinstance(one, str) else one for one in given)

    @model_validator(mode="after")
    def _of_known_pbxs(self) -> Settings:
        """What is said of a PBX that is none of these would have no effect, without a word."""
        named = [
            *((f"dialer.trunks {trunk.name}", trunk.pbx) for trunk in self.dialer.trunks),
            *((f"wrap_up.queues {queue}", queue.partition(":")[0]) for queue in self.wrap_up.queues),
            *((f"figures.queues {queue}", queue.partition(":")[0]) for queue in self.figures.queues),
        ]
        if self.pbx and (unknown := [what for what, pbx in named if pbx not in self.pbx]):
            raise ValueError(f"{unknown[0]} is of no PBX of these settings ({', '.join(sorted(self.pbx))})")
        return self

    @field_validator("not_ready_reasons")
    @classmethod
    def _once(cls, given: tuple[ReasonSettings, ...]) -> tuple[ReasonSettings, ...]:
        names = [reason.name for reason in given]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the reason {twice[0]!r} is there twice")
        return given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if not cls.FROM_OUTSIDE:
            return (init_settings,)
        sources: list[PydanticBaseSettingsSource] = [init_settings, _Environment(settings_cls)]
        if path := os.environ.get("CTI_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, Path(path)))
        return tuple(sources)


class _Given(Settings):
    """Settings in which neither environment nor file has a say."""

    FROM_OUTSIDE: ClassVar[bool] = False


def only(**given: object) -> Settings:
    """The settings that are given, whatever environment and file say; raises pydantic's ValidationError."""
    return _Given(**given)  # type: ignore[arg-type]  # pydantic checks them


class _NotJson(ValueError):
    """What the environment gives for a list or a table cannot be read; the message names the variable."""


class _Environment(EnvSettingsSource):
    """The environment's settings; what should be JSON and is not is named."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            names = [name for name, held in self.env_vars.items() if held == value]
            raise _NotJson(
                f"{(names[0] if names else field_name).upper()} is not JSON: a list is written like"
                ' ["one","two"], and in a shell within single quotes'
            ) from None


def load(**given: object) -> Settings:
    """Reads the settings; raises WrongSettings naming every wrong one. `given` outranks environment and file."""
    path = os.environ.get("CTI_CONFIG")
    if path and not Path(path).is_file():
        raise WrongSettings(f"CTI_CONFIG names {path}, which is not a file")
    wrong = [f"{name}: there is no such setting, do you mean {meant}?" for name, meant in _mistyped()]
    try:
        settings = Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        wrong += [
            (f"{'.'.join(str(part) for part in e['loc'])}: " if e["loc"] else "")
            + (
                "there is no such setting"
                if e["type"] == "extra_forbidden"
                else e["msg"].removeprefix("Value error, ")
            )
            for e in error.errors(include_input=False)
        ]
    except tomllib.TOMLDecodeError as error:
        raise WrongSettings(f"{path} is not TOML: {error}") from None
    except ValueError as error:
        if isinstance(error.__cause__, _NotJson):
            raise WrongSettings(str(error.__cause__)) from None
        raise WrongSettings(f"settings cannot be read: {error}") from None
    if wrong:
        raise WrongSettings("wrong settings:\n  " + "\n  ".join(wrong))
    return settings


def _mistyped() -> Iterator[tuple[str, str]]:
    """Names in the environment that are nearly a setting's, and that one; what is unlike all of them is not for us."""
    known = Settings.model_fields
    kinds = {name: field.annotation for name, field in known.items()}
    levels = {
        "pbx",
        *(name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)),
    }
    for name in sorted(os.environ):
        first = name.removeprefix(PREFIX).partition("__")[0]
        rest = name[len(PREFIX + first) :]
        if not name.startswith(PREFIX) or first.lower() in known:
            continue
        level = next((one for one in levels if first.lower().startswith(f"{one}_")), None)
        if level is not None and not _OF_KUBERNETES.search(first):  # one underscore where there should be two
            within = first[len(level) + 1 :]
            within = within.replace("_", "__", 1) if level == "pbx" and not rest else within
            yield name, f"{PREFIX}{level.upper()}__{within}{rest}"
        elif near := difflib.get_close_matches(first.lower(), known, 1, 0.8):
            yield name, PREFIX + near[0].upper() + rest


def wrap_up_rule(settings: WrapUpSettings, queue: str | None = None) -> WrapUp:
    """The rule for the calls of a queue with settings of its own, or the general one."""
    own = settings.queues[queue] if queue is not None else QueueWrapUpSettings()
    seconds = settings.seconds if own.seconds is None else own.seconds
    after = settings.after if own.after is None else own.after
    mandatory = settings.mandatory if own.mandatory is None else own.mandatory
    dispositions = settings.dispositions if own.dispositions is None else own.dispositions
    return WrapUp(
        queue=queue,
        seconds=seconds,
        then_ready=after == "ready",
        mandatory=mandatory,
        dispositions=tuple(Disposition(code=code, label=label) for code, label in dispositions.items()),
    )
