"""docker-compose.yml and the images it builds: right by the Compose specification, and everything they name exists.

There need be no Docker here; where its compose command is installed, that is asked too.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cti.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SECRETS = ("DATABASE_PASSWORD", "AMI_SECRET", "PHONE_SECRET", "SECRET_KEY")

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> Tree:
    loaded: Tree = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def variables_of(text: str) -> dict[str, str]:
    """Name each `${NAME...}` of the text with what follows the name, comments left out."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return dict(re.findall(r"\$\{([A-Z_]+)([^}]*)\}", "\n".join(lines)))


def test_it_is_valid_by_the_compose_specification(compose: Tree) -> None:
    schema = json.loads((ROOT / "tests" / "schemas" / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(compose)


def test_every_folder_file_network_and_volume_it_names_exists(compose: Tree) -> None:
    for name, service in compose["services"].items():
        if build := service.get("build"):
            context = ROOT / build["context"]
            assert (context / build.get("dockerfile", "Dockerfile")).is_file(), name
        assert set(service["networks"]) <= set(compose["networks"]), name
        for file in service.get("env_file", ()):
            assert file == {"path": "cti.env", "required": False}, name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in compose["volumes"], name
        assert set(service.get("depends_on", ())) <= set(compose["services"]), name


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "asterisk-config/Dockerfile"])
def test_every_file_an_image_copies_exists_and_is_sent_to_the_builder(dockerfile: str) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / dockerfile).read_text(), re.MULTILINE)
    assert copied
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in sent, f"{source} is kept from the builder by .dockerignore"


def test_no_secret_has_a_default_and_every_variable_is_explained(compose: Tree) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    explained = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    used = variables_of(text)
    assert set(used) <= explained
    for secret in SECRETS:
        assert used[secret].startswith(":?"), f"{secret} must be required, without a default"
        assert re.search(rf"^{secret}=$", (ROOT / ".env.example").read_text(), re.MULTILINE)


def test_the_server_is_given_settings_it_knows(compose: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the container, filled in, is taken by the settings without a complaint."""
    for name in [name for name in os.environ if name.startswith("CTI_")]:
        monkeypatch.delenv(name)
    for name, value in compose["services"]["cti"]["environment"].items():
        filled = re.sub(r"\$\{[A-Z_]+:\?[^}]*\}", "s" * 40, str(value))
        filled = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", filled)
        monkeypatch.setenv(name, filled)
    settings = Settings()
    assert settings.database_url.get_secret_value() == f"postgresql://cti:{'s' * 40}@postgres:5432/cti"
    assert settings.pbx["main"].secret.get_secret_value() == "s" * 40
    assert (settings.listen, settings.port) == ("0.0.0.0", 8600)
    known = {f"CTI_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in compose["services"]["cti"]["environment"] if "__" not in name} <= known


def test_every_service_is_watched_and_comes_back(compose: Tree) -> None:
    images = {"asterisk": "asterisk-config/Dockerfile", "cti": "Dockerfile"}
    for name, service in compose["services"].items():
        assert service["restart"] == "unless-stopped"
        assert "healthcheck" in service or "HEALTHCHECK" in (ROOT / images[name]).read_text()
    assert compose["networks"]["data"]["internal"] is True
    published = compose["services"]["asterisk"]["ports"]
    assert not any("5038" in port for port in published), "AMI must not be published"
    assert "${PHONE_PUBLISH:-127.0.0.1:8088}:8088/tcp" in published, "it is not encrypted: for a proxy alone"


def test_what_asterisk_may_be_asked_from_is_the_network_the_server_is_in(compose: Tree) -> None:
    (subnet,) = compose["networks"]["data"]["ipam"]["config"]
    permitted = compose["services"]["asterisk"]["environment"]["CTI_PERMIT"]
    assert subnet["subnet"].split("/") == [permitted.split("/")[0], "24"]
    assert "data" in compose["services"]["cti"]["networks"]


def test_the_server_comes_to_asterisk_by_the_network_it_is_let_in_from(compose: Tree) -> None:
    """A service's own name leads to any network that two containers share; an alias in one of them leads there."""
    host = re.sub(
        r"\$\{\w+:-(\w+)\}", r"\1", compose["services"]["cti"]["environment"]["CTI_PBX__MAIN__HOST"]
    )
    known_in = [
        name
        for name, network in compose["services"]["asterisk"]["networks"].items()
        if host in network.get("aliases", ())
    ]
    assert (known_in, host in compose["services"]) == (["data"], False)


def test_who_is_believed_about_clients_is_the_machine_itself(compose: Tree) -> None:
    (network,) = compose["networks"]["telephony"]["ipam"]["config"]
    believed = compose["services"]["cti"]["environment"]["CTI_TRUSTED_PROXIES"]
    assert believed == f'${{TRUSTED_PROXIES:-["{network["gateway"]}"]}}'


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """The configuration as the container's entry point writes it; where it would start Asterisk, it stops."""
    if shutil.which("perl") is None:
        pytest.skip("the entry point needs perl, which is in the image but not here")
    source, target, programs = tmp_path / "source", tmp_path / "etc", tmp_path / "bin"
    shutil.copytree(ROOT / "asterisk-config" / "pbx", source / "pbx", symlinks=True)
    shutil.copytree(ROOT / "asterisk-config" / "include", source / "include")
    (source / "asterisk.conf").write_text("[options]\n")
    target.mkdir()
    programs.mkdir()
    for name in ("asterisk", "chown"):
        (programs / name).write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/{name}.told\n')
        (programs / name).chmod(0o755)
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CONFIG_SOURCE": str(source),
        "CONFIG_TARGET": str(target),
        "RUN_FOLDER": str(tmp_path / "run"),
        "CTI_SECRET": "a" * 32,
        "PHONE_SECRET": "b" * 32,
        "CTI_PERMIT": "172.30.86.0/255.255.255.0",
        "PUBLIC_ADDRESS": "203.0.113.7",
    }
    entry = ROOT / "asterisk-config" / "docker-entrypoint.sh"
    done = subprocess.run([entry], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_the_entry_point_fills_in_every_place_and_leaves_the_demo_out(rendered: Path) -> None:
    written = {str(path.relative_to(rendered)): path.read_text() for path in rendered.rglob("*.conf")}
    assert "include/manager_cti.conf" in written
    assert not [name for name in written if "_lab" in name]
    places = {
        name: found for name, text in written.items() if (found := re.findall(r"@[A-Z][A-Z0-9_]*@", text))
    }
    assert places == {}
    assert f"secret={'a' * 32}" in written["include/manager_cti.conf"]
    assert "external_media_address=203.0.113.7" in written["pjsip.conf"]
    assert "weak-secret" not in "".join(written.values())


def test_every_folder_given_to_asterisk_is_there(rendered: Path) -> None:
    """Debian's package brings three; that of its socket is made by a service that a container does not have."""
    who, *folders = (rendered.parent / "chown.told").read_text().removeprefix("-R ").split()
    assert who == "asterisk:asterisk"
    brought = {"/var/lib/asterisk", "/var/spool/asterisk", "/var/log/asterisk"}
    assert brought < set(folders)
    assert [folder for folder in folders if folder not in brought and not Path(folder).is_dir()] == []
    assert (rendered.parent / "asterisk.told").read_text() == "-f -U asterisk -G asterisk\n"


@pytest.mark.parametrize("missing", ["CTI_SECRET", "PHONE_SECRET", "CTI_PERMIT"])
def test_the_entry_point_refuses_to_start_without_a_secret(missing: str, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "CTI_SECRET": "a" * 32, "PHONE_SECRET": "b" * 32, "CTI_PERMIT": "x"}
    env["CONFIG_TARGET"] = str(tmp_path)
    del env[missing]
    entry = ROOT / "asterisk-config" / "docker-entrypoint.sh"
    done = subprocess.run([entry], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert missing in done.stderr


def test_make_secrets_writes_long_passwords_once_and_for_our_eyes_only(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", ".env.example"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["make", "-s", "secrets"], cwd=tmp_path, check=True, capture_output=True)
    first = (tmp_path / ".env").read_text()
    assert all(re.search(rf"^{secret}=[0-9a-f]{{48}}$", first, re.MULTILINE) for secret in SECRETS)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    subprocess.run(["make", "-s", "secrets"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / ".env").read_text() == first


def test_docker_compose_itself_accepts_it() -> None:
    command = ["docker", "compose"]
    told = None
    if shutil.which("docker") is not None:
        told = subprocess.run([*command, "version"], capture_output=True, check=False)
    if told is None or told.returncode != 0:
        pytest.skip("docker compose is not installed: the file was held to the specification's schema only")
    env = os.environ | dict.fromkeys(SECRETS, "s" * 48)
    done = subprocess.run(
        [*command, "config", "-q"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
