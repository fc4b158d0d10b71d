"""The `cti` command: quick help, clear errors with exit codes, users, and settings as the documentation says them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from pydantic import BaseModel

from cti.__main__ import main
from cti.audit import Entry, list_entries
from cti.database import connection
from cti.settings import (
    DialerSettings,
    FiguresSettings,
    PbxSettings,
    RoutingSettings,
    Settings,
    SupervisionSettings,
    WrapUpSettings,
)

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ended]


@pytest.fixture
def cti(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the command in this process, without any setting but those given, with no terminal."""
    for name in [name for name in os.environ if name.startswith("CTI_")]:
        monkeypatch.delenv(name)
    handlers = logging.getLogger().handlers[:]

    def run(*arguments: str, given: str = "", **environment: str) -> Ended:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["cti", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(given))
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        told = capsys.readouterr()
        return Ended(int(ended.value.code or 0), told.out, told.err)

    yield run
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


def test_help_names_every_command_and_loads_nothing_heavy(cti: Run) -> None:
    told = cti("--help").stdout
    for command in ("serve", "doctor", "watch", "demo", "users", "migrate", "version"):
        assert f"  {command} " in told
    probe = "import sys, cti.__main__; print(sorted({'aiohttp', 'asyncpg', 'pydantic', 'rich', 'crm'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["serve", "doctor", "watch", "demo", "migrate", "users", "version"])
def test_every_command_has_help(cti: Run, command: str) -> None:
    shown = cti(command, "--help")
    assert shown.returncode == 0
    assert "Usage:" in shown.stdout


def test_the_version_can_be_read_by_people_and_scripts(cti: Run) -> None:
    assert cti("version").stdout.startswith("cti ")
    assert set(json.loads(cti("version", "--json").stdout)) == {"cti", "python"}


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [
        (["nonsense"], {}, 2, "No such command"),
        (["serve"], {}, 2, "no PBX is configured"),
        (["serve"], {"CTI_PORT": "99999"}, 2, "port: "),
        (["serve"], {"CTI_CONFIG": "/no/such/file.toml"}, 2, "which is not a file"),
        (["serve"], {"CTI_PBX__MAIN__SECRET": "x"}, 2, "no database is configured"),
        (["serve"], {"CTI_PBX__MAIN__SECRET": ""}, 2, "pbx.main.secret: "),
        (["serve"], {"CTI_PBX__MAIN__HOTS": "x"}, 2, "pbx.main.hots: there is no such setting"),
        (["serve"], {"CTI_PBX__MAIN__REGION": "UK"}, 2, "'UK' is no country code: write GB"),
        (["serve"], {"CTI_PBX__MAIN__TLS_CA": "/no/such"}, 2, "/no/such cannot be read"),
        (["serve"], {"CTI_PBX__MAIN__TRUNKS": "PJSIP/a"}, 2, "CTI_PBX__MAIN__TRUNKS is not JSON: a list is"),
        (["serve"], {"CTI_POPURL": "x"}, 2, "CTI_POPURL: there is no such setting, do you mean CTI_POP_URL?"),
        (["serve"], {"CTI_WRAP_UP_SECONDS": "5"}, 2, "do you mean CTI_WRAP_UP__SECONDS?"),
        (["serve"], {"CTI_PBX_MAIN_HOST": "x"}, 2, "do you mean CTI_PBX__MAIN__HOST?"),
        (["serve"], {"CTI_PBX_MAIN__HOST": "x"}, 2, "do you mean CTI_PBX__MAIN__HOST?"),
        (["serve"], {"CTI_PBX_SERVICE_HOST": "10.0.0.1"}, 2, "no PBX is configured"),
        (["serve"], {"CTI_PUBLIC_URL": "cti.example"}, 2, "public_url: write it with http"),
        (["serve"], {"CTI_SECRET_KEY": "short"}, 2, "secret_key: it needs at least 32 characters"),
        (["serve"], {"CTI_TRUSTED_PROXIES": '["proxy"]'}, 2, "proxy is no address or network"),
        (
            ["serve"],
            {"CTI_PBX__MAIN__SECRET": "x", "CTI_WRAP_UP__QUEUES": '{"mian:sales":{}}'},
            2,
            "mian:sales is of no PBX of these settings (main)",
        ),
        (["migrate"], {}, 2, "no database is configured"),
        (["migrate"], {"CTI_DATABASE_URL": "mysql://x"}, 1, "not the address of a PostgreSQL database"),
        (["migrate"], {"CTI_DATABASE_URL": "postgresql://a:b@127.0.0.1:9/x"}, 1, "cannot be reached"),
        (["users", "list"], {"CTI_DATABASE_URL": "postgresql://a:b@127.0.0.1:9/x"}, 1, "cannot be reached"),
        (["doctor"], {}, 2, "say which PBX"),
        (["doctor", "--host", "127.0.0.1"], {}, 2, "give the secret"),
        (["doctor", "--host", "127.0.0.1", "--secret-file", "/no/such"], {}, 2, "cannot be read"),
        (["doctor", "--host", "127.0.0.1", "--tls-ca", "/no/such"], {}, 2, "/no/such cannot be read"),
        (["doctor", "--pbx", "b"], {"CTI_PBX__A__SECRET": "x"}, 2, "no PBX b is configured, only a"),
        (["watch"], {}, 2, "say who looks"),
        (["watch", "--url", "ftp://x", "--login", "a"], {"CTI_PASSWORD": "x"}, 2, "no address of a server"),
        (
            ["watch", "--url", "http://127.0.0.1:9", "--login", "a"],
            {"CTI_PASSWORD": "x"},
            1,
            "nothing listens there",
        ),
    ],
)
def test_foreseeable_trouble_is_a_sentence_and_an_exit_code(
    cti: Run, arguments: list[str], environment: dict[str, str], code: int, sentence: str
) -> None:
    ended = cti(*arguments, **environment)
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    assert ended.returncode == code


def test_users_from_the_first_to_the_last(cti: Run, database: str) -> None:
    def run(*arguments: str, given: str = "") -> Ended:
        return cti(*arguments, given=given, CTI_DATABASE_URL=database)

    early = run("users", "list")
    assert (early.returncode, "run `cti migrate` first" in early.stderr) == (1, True)
    assert "applied 0001" in run("migrate").stdout
    assert run("migrate").stdout == "The database is up to date.\n"
    assert json.loads(run("migrate", "--json").stdout) == {"applied": []}
    assert "no users yet" in run("users", "list").stdout

    assert run("users", "team", "sales", "--name", "Sales", "--queue", "main:sales").returncode == 0
    work = ["--phone", "main=PJSIP/1001", "--queue", "main:sales", "--queue", "main:support:5"]
    place = ["--unit", "north", "--position", "senior"]
    added = run("users", "add", "anna", "--name", "Anna Berg", "--team", "sales", *work, *place, "--generate")
    assert re.search(r"^Password \(shown once\): \S{12,}$", added.stdout, re.MULTILINE)
    lead = ["--role", "supervisor", "--leads", "sales", "--password-stdin"]
    assert run("users", "add", "sue", *lead, given="a long sentence\n").returncode == 0

    anna, sue = json.loads(run("users", "list", "--json").stdout)
    assert anna == {
        "login": "anna",
        "name": "Anna Berg",
        "role": "agent",
        "team": "sales",
        "unit": "north",
        "position": "senior",
        "supervises": [],
        "disabled": False,
        "phones": {"main": "PJSIP/1001"},
        "queues": [{"queue": "main:sales", "penalty": 0}, {"queue": "main:support", "penalty": 5}],
    }
    assert sue["supervises"] == ["sales"]

    assert (
        run(
            "users",
            "change",
            "anna",
            "--team",
            "",
            "--unit",
            "",
            "--phone",
            "main=",
            "--queue",
            "main:billing",
        ).returncode
        == 0
    )
    assert run("users", "disable", "anna").stdout == "anna is shut out.\n"
    changed = json.loads(run("users", "list", "--json").stdout)[0]
    assert (changed["team"], changed["disabled"]) == (None, True)
    assert run("users", "enable", "anna").returncode == 0
    changed = json.loads(run("users", "list", "--json").stdout)[0]
    assert (changed["phones"], changed["queues"]) == ({}, [{"queue": "main:billing", "penalty": 0}])
    assert (changed["unit"], changed["position"]) == ("", "senior")
    assert "login  name" in run("users", "list").stdout
    assert run("users", "passwd", "anna", "--generate").returncode == 0

    assert "no API keys yet" in run("users", "keys").stdout
    made = json.loads(run("users", "key", "CRM", "--team", "sales", "--days", "30", "--json").stdout)
    assert made["key"].startswith(f"cti_{made['id']}_")
    shown = run("users", "key", "Wallboard", "--role", "supervisor").stdout
    assert re.search(r"^Key of Wallboard \(shown once\): cti_\S{50,}$", shown, re.MULTILINE)
    assert run("users", "revoke-key", made["id"]).returncode == 0
    listed = run("users", "keys").stdout
    assert re.search(rf"^{made['id']} +CRM +integration +sales .* revoked$", listed, re.MULTILINE)
    assert made["key"] not in listed
    assert {key["name"] for key in json.loads(run("users", "keys", "--json").stdout)} == {"CRM", "Wallboard"}

    trail = asyncio.run(audited(database))  # the last first
    assert [(one.actor, one.action, one.target) for one in trail[:4]] == [
        ("cti", "key.revoked", made["id"]),
        ("cti", "key.created", "Wallboard"),
        ("cti", "key.created", "CRM"),
        ("cti", "user.changed", "anna"),
    ]
    assert {"team.put", "user.created"} < {one.action for one in trail}


async def audited(database: str) -> list[Entry]:
    async with connection(database, name="test") as db:
        return await list_entries(db)


@pytest.mark.parametrize(
    ("arguments", "given", "code", "sentence"),
    [
        (["add", "Anna", "--generate"], "", 2, "login: "),
        (["add", "anna", "--password-stdin"], "short\n", 2, "password: "),
        (["add", "anna"], "", 2, "give a password"),
        (["add", "anna", "--generate", "--password-stdin"], "", 2, "exclude each other"),
        (["add", "anna", "--generate", "--role", "boss"], "", 2, "role: "),
        (["add", "anna", "--generate", "--phone", "PJSIP/1"], "", 2, "phone: "),
        (["add", "anna", "--generate", "--queue", "sales"], "", 2, "queue: "),
        (["add", "anna", "--generate", "--team", "nowhere"], "", 1, "no team nowhere"),
        (["passwd", "nobody", "--generate"], "", 1, "There is no user nobody"),
        (["disable", "nobody"], "", 1, "There is no user nobody"),
        (["key", "CRM", "--team", "nowhere"], "", 1, "There is no team nowhere"),
        (["key", "CRM", "--role", "agent"], "", 2, "role: "),
        (["revoke-key", "nothing"], "", 1, "There is no such key"),
    ],
)
def test_wrong_input_about_users_is_a_sentence(
    cti: Run, database: str, arguments: list[str], given: str, code: int, sentence: str
) -> None:
    cti("migrate", CTI_DATABASE_URL=database)
    ended = cti("users", *arguments, given=given, CTI_DATABASE_URL=database)
    assert sentence in ended.stderr
    assert ended.returncode == code
    assert cti("users", "list", "--json", CTI_DATABASE_URL=database).stdout.strip() == "[]"


# -------------------------------------------------------------------------------------------- documentation


def fields(model: type[BaseModel], prefix: str) -> dict[str, str]:
    """The environment's names of a model's settings, with their defaults as the documentation writes them."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if name in ("pbx", "wrap_up", "figures", "queues", "routing", "supervision", "dialer"):
            continue
        default = field.default if field.default_factory is None else ()
        if field.is_required():
            shown = "required"
        elif isinstance(default, tuple):
            shown = ", ".join(getattr(item, "name", item) for item in default)
        elif hasattr(default, "get_secret_value"):
            shown = default.get_secret_value()
        else:
            shown = str(default).lower() if isinstance(default, bool) else str(default)
        found[prefix + name.upper()] = shown
    return found


def test_the_documentation_lists_every_setting_with_its_default() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(CTI_[A-Z_<>]+)` \| (.*?) \|", text, re.MULTILINE))
    wanted = {
        **fields(Settings, "CTI_"),
        **fields(WrapUpSettings, "CTI_WRAP_UP__"),
        **fields(RoutingSettings, "CTI_ROUTING__"),
        **fields(SupervisionSettings, "CTI_SUPERVISION__"),
        **fields(FiguresSettings, "CTI_FIGURES__"),
        **fields(DialerSettings, "CTI_DIALER__"),
        **fields(PbxSettings, "CTI_PBX__<NAME>__"),
    }
    assert {name: shown.strip("`") for name, shown in rows.items()} == wanted


def test_links_and_commands_in_the_documentation_exist(cti: Run) -> None:
    commands = {
        line.split()[0]
        for line in cti("--help").stdout.split("Commands:")[1].splitlines()
        if line[:2] == "  " and line[2:3].strip()
    }
    for page in (ROOT / "README.md", ROOT / "docs" / "operations.md"):
        text = page.read_text()
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
        for command in re.findall(r"(?:^ +|`|bin/|exec cti )cti ([a-z]+)", text, re.MULTILINE):
            assert command in commands, f"{page.name}: cti {command}"
        for target in re.findall(r"`make ([a-z]+)", text):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
