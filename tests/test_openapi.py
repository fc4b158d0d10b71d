"""The generated documents: valid against their metaschemas, and true of what the server really sends."""

import asyncio
import gzip
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from schemathesis.specs.openapi.definitions import OPENAPI_31

from crm.facts import PopShown
from crm.views import PopView
from cti import asyncapi
from cti.bus import serialise
from cti.commands import Commands, add_basics
from cti.facts import CallView, Fact
from cti.openapi import Route, Routes
from cti.protocol import CLOSE_CODES, CommandFrame, StateNow
from tests.probing import run_schemathesis
from tests.web_stage import Stage, all_know, eventually

FACTS = list(asyncapi.fact_classes())
ASYNCAPI_3 = json.loads(
    gzip.decompress((Path(__file__).parent / "schemas/asyncapi-3.0.0.json.gz").read_bytes())
)


def spoken() -> dict[str, Any]:
    commands = Commands(audit=lambda *_: None)
    add_basics(commands, seq=lambda: 0, snapshot=lambda _actor: None, shape=StateNow)
    return asyncapi.document(facts=FACTS, commands=commands, title="CTI", version="1.0")


def closed(schema: Any) -> Any:
    """The schema with every object closed, so that a field it does not know is found too."""
    if isinstance(schema, dict):
        made = {key: closed(value) for key, value in schema.items()}
        if "properties" in made and isinstance(made["properties"], dict) and made.get("type") == "object":
            made.setdefault("additionalProperties", False)
        return made
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        closed(asyncapi.payload_schema(DOCUMENT, name)), format_checker=jsonschema.FormatChecker()
    )


DOCUMENT = spoken()

st.register_type_strategy(
    datetime,
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
st.register_type_strategy(float, st.floats(0, 1e9))
st.register_type_strategy(int, st.integers(-(1 << 53), 1 << 53))
for view in (CallView, PopView):  # hypothesis does not know their default, an empty table
    st.register_type_strategy(view, st.builds(view, data=st.dictionaries(st.text(), st.text(), max_size=3)))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.serve(stage.app()):
        yield stage


# ------------------------------------------------------------------------------------------ AsyncAPI


def test_the_asyncapi_document_is_valid() -> None:
    jsonschema.Draft7Validator(ASYNCAPI_3).validate(DOCUMENT)


def test_every_reference_in_it_leads_somewhere() -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                target: Any = DOCUMENT
                for part in reference.removeprefix("#/").split("/"):
                    target = target[part]
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(DOCUMENT)


def test_facts_are_described_in_their_own_words_and_named_once() -> None:
    assert len({kind.TYPE for kind in FACTS}) == len(FACTS) > 20
    for kind in FACTS:
        message = DOCUMENT["components"]["messages"][kind.TYPE.replace(".", "_")]
        assert message["name"] == kind.TYPE
        assert message["summary"]
        assert kind.__doc__
        assert " ".join(kind.__doc__.split()) == message["summary"]


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.TYPE)
def test_every_fact_published_is_as_described(kind: type[Fact]) -> None:
    check = validator(kind.TYPE)

    @settings(max_examples=8, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.from_type(kind))
    def conforms(fact: Fact) -> None:
        frame, _ = serialise(7, fact)
        check.validate(json.loads(frame))

    conforms()


def test_a_fact_with_a_field_too_many_would_be_found() -> None:
    frame = json.loads(serialise(7, all_know())[0])
    validator("pbx.status_changed").validate(frame)
    frame["data"]["secret"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validator("pbx.status_changed").validate(frame)


async def test_every_frame_the_server_sends_is_as_described(stage: Stage) -> None:
    seen: set[str] = set()

    async def check(client: Any, count: int) -> None:
        for _ in range(count):
            frame = await client.next()
            validator(frame["type"]).validate(frame)
            seen.add(frame["type"])

    async with stage.plain() as first, stage.plain() as second:
        await first.send(op="hello", id="1", token="anna-token")
        await check(first, 2)
        await second.send(op="hello", id="1", token="anna-token")
        await check(second, 2)
        stage.bus.publish([all_know()])
        await second.send(op="nonsense", id="2")
        await second.send(op="state.get", id="3")
        await second.send(x=1)
        await check(first, 2)
        await check(second, 4)
        session = next(session for session in stage.hub)
        session.grant = replace_expiry(session.grant, 30)
        await check(first, 1)
        stage.hub.stop()
        await check(first, 1)
    assert seen == {
        "welcome", "snapshot", "seat", "pbx.status_changed", "result", "error", "token_expiring", "goodbye",
    }  # fmt: skip


def replace_expiry(grant: Any, seconds: float) -> Any:
    return replace(grant, expires=datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC))


def test_close_codes_are_told() -> None:
    for code in CLOSE_CODES:
        assert str(code) in DOCUMENT["info"]["description"]


# ------------------------------------------------------------------------------------------- OpenAPI


async def test_the_openapi_document_is_valid_and_the_page_shows_all_of_it(stage: Stage) -> None:
    async with aiohttp.ClientSession(stage.url) as http:
        async with http.get("/api/openapi.json") as response:
            document = await response.json()
        async with http.get("/api/") as response:
            page = await response.text()
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        async with http.get("/api/asyncapi.json") as response:
            jsonschema.Draft7Validator(ASYNCAPI_3).validate(await response.json())
    jsonschema.Draft202012Validator(OPENAPI_31).validate(document)
    for path in document["paths"]:
        assert path in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_a_route_registered_twice_is_refused() -> None:
    async def handler(_asked: Any) -> None:
        return None

    routes = Routes()
    route = Route(method="GET", path="/x", handler=handler, summary="x", tag="x")
    routes.add(route)
    with pytest.raises(ValueError, match="GET /x is registered twice"):
        routes.add(route)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("token", ["root-token", "anna-token"])
async def test_schemathesis_finds_nothing_undocumented(stage: Stage, token: str) -> None:
    """Generated requests, right and wrong: never a 5xx, and every answer is one that the document tells of."""
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, stage.url + "/api/openapi.json")
    failures = await asyncio.to_thread(run_schemathesis, schema, token, 8)
    assert not failures, "\n\n".join(failures)


# --------------------------------------------------------------------------- what the documentation says

DOCS = Path(__file__).parent.parent / "docs"


def frames_in_the_documentation() -> list[tuple[str, dict[str, Any]]]:
    text = (DOCS / "protocol.md").read_text()
    found = []
    for block in text.split("```\n")[1::2]:
        for part in re.split(r"^(?=[→←] )", block, flags=re.MULTILINE):
            if part.strip():
                found.append((part[0], json.loads(part[2:])))
    return found


@pytest.mark.parametrize(("way", "frame"), frames_in_the_documentation())
def test_frames_in_the_documentation_are_as_described(way: str, frame: dict[str, Any]) -> None:
    if way == "←":
        validator(frame["type"]).validate(frame)
    elif frame["op"] == "hello":
        validator("hello").validate(frame)
    else:
        CommandFrame.model_validate(frame)


def test_the_documentation_names_every_close_code() -> None:
    text = (DOCS / "protocol.md").read_text()
    for code in CLOSE_CODES:
        assert f"| {code} |" in text


NODE = shutil.which("node")


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, str(DOCS / "clients/client.py")],
        pytest.param(
            [NODE or "node", "--experimental-websocket", str(DOCS / "clients/client.mjs")],
            marks=pytest.mark.skipif(NODE is None, reason="NO NODE: the JavaScript client was not tried"),
        ),
    ],
    ids=["python", "javascript"],
)
async def test_the_documentations_clients_print_a_pop_also_after_a_break(
    stage: Stage, command: list[str]
) -> None:
    env = {
        "CTI_URL": stage.url.replace("http", "ws") + "/ws",
        "CTI_TOKEN": "anna-token",
        "PATH": os.environ["PATH"],
    }
    shown = next(frame for _, frame in frames_in_the_documentation() if frame.get("type") == "pop.shown")
    pop = TypeAdapter(PopShown).validate_python({"at": shown["at"], **shown["data"]})
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        await eventually(lambda: len(stage.hub) == 1, 20)
        stage.bus.publish([pop])
        line = (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
        assert "+1 202-555-0143 for main:sales" in line
        assert "Kapoor Dental" in line
        next(iter(stage.hub)).wire.abort()
        stage.bus.publish([pop])
        async with asyncio.timeout(20):
            while "Kapoor Dental" not in (line := (await process.stdout.readline()).decode()):
                assert line
        assert stage.resumed_after == [101]
    finally:
        process.kill()
        await process.wait()
