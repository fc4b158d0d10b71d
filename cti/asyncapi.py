"""The AsyncAPI 3 document of `cti.v1`, made from the models that are sent: frames, facts and commands. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import TypeAdapter

from cti.commands import Command
from cti.facts import Fact
from cti.protocol import ABOUT_THE_CONNECTION, CLOSE_CODES, FROM_SERVER, SUBPROTOCOL, Hello

SCHEMAS = "#/components/schemas/"
MESSAGES = "#/components/messages/"
CHANNEL = "#/channels/cti"


def fact_classes(base: type[Fact] = Fact) -> Iterator[type[Fact]]:
    """Returns every class of fact that has been imported and has a name on the wire, sorted by that name."""
    found: dict[str, type[Fact]] = {}
    rest = [base]
    while rest:
        kind = rest.pop()
        rest.extend(kind.__subclasses__())
        if kind.TYPE:
            found[kind.TYPE] = kind
    return iter(found[name] for name in sorted(found))


def document(
    *, facts: Iterable[type[Fact]], commands: Iterable[Command], title: str, version: str
) -> dict[str, Any]:
    """Returns the document. Data of facts may gain fields: whoever reads them passes over what they do not know."""
    facts, commands = list(facts), list(commands)
    shapes: list[tuple[Any, str]] = [(frame, "serialization") for frame in FROM_SERVER]
    shapes += [(Hello, "validation"), *((args, "validation") for _, args, _ in ABOUT_THE_CONNECTION)]
    shapes += [(fact, "serialization") for fact in facts]
    shapes += [(command.args, "validation") for command in commands]
    shapes += [(command.result, "serialization") for command in commands if command.result is not None]
    unique = {(id(shape), mode): (shape, mode) for shape, mode in shapes}
    references, extra = TypeAdapter.json_schemas(
        [(key, mode, TypeAdapter(shape)) for key, (shape, mode) in unique.items()],  # type: ignore[misc]
        ref_template=SCHEMAS + "{model}",
    )
    schemas: dict[str, Any] = extra.get("$defs", {})

    def schema(shape: Any, mode: str) -> dict[str, Any]:
        return references[((id(shape), mode), mode)]  # type: ignore[index]

    messages: dict[str, Any] = {}
    for frame in FROM_SERVER:
        name = frame.model_fields["type"].default
        messages[name] = _message(name, frame.__doc__, schema(frame, "serialization"))
    messages["hello"] = _message("hello", Hello.__doc__, schema(Hello, "validation"))
    for fact in facts:
        data = _without_at(schema(fact, "serialization"), schemas)
        messages[fact.TYPE] = _message(fact.TYPE, fact.__doc__, _fact_frame(fact.TYPE, data))
    operations: dict[str, Any] = {
        "hello": _operation("receive", ["hello"], "The client's first frame.", reply=["welcome"]),
        "tell": _operation(
            "send",
            [*(frame.model_fields["type"].default for frame in FROM_SERVER if frame.__name__ != "Result")],
            "What the server says of the connection.",
        ),
        "facts": _operation("send", [fact.TYPE for fact in facts], "What happens, to those who may see it."),
    }
    asked = [(command.op, command.summary, schema(command.args, "validation")) for command in commands]
    asked += [(op, summary, schema(args, "validation")) for op, args, summary in ABOUT_THE_CONNECTION]
    for op, summary, args in asked:
        name = f"command.{op}"
        messages[name] = _message(name, summary, _command_frame(op, args))
        operations[name] = _operation("receive", [name], summary, reply=["result"])
    for command in commands:
        if command.result is not None:
            operations[f"command.{command.op}"]["x-result"] = schema(command.result, "serialization")
        operations[f"command.{command.op}"]["x-roles"] = sorted(command.roles)
    codes = "; ".join(f"{code.code} {code.name}: {code.meaning}" for code in CLOSE_CODES.values())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": version,
            "description": f"The websocket at /ws, subprotocol {SUBPROTOCOL}, JSON text frames. Close codes: {codes}.",
        },
        "channels": {
            "cti": {
                "address": "/ws",
                "description": f"One websocket, subprotocol {SUBPROTOCOL}.",
                "messages": {_key(name): {"$ref": MESSAGES + _key(name)} for name in messages},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {_key(name): operation for name, operation in operations.items()},
        "components": {
            "messages": {_key(name): message for name, message in messages.items()},
            "schemas": schemas,
        },
    }


def payload_schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the schema of one message, by its name on the wire, as a JSON Schema that stands alone."""
    payload = document["components"]["messages"][_key(name)]["payload"]
    return {**payload, "components": {"schemas": document["components"]["schemas"]}}


def _key(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _message(name: str, says: str | None, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": " ".join((says or "").split()),
        "contentType": "application/json",
        "payload": payload,
    }


def _operation(action: str, names: list[str], says: str, reply: list[str] | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": CHANNEL},
        "summary": says,
        "messages": [{"$ref": f"{CHANNEL}/messages/{_key(name)}"} for name in names],
    }
    if reply is not None:
        operation["reply"] = {
            "channel": {"$ref": CHANNEL},
            "messages": [{"$ref": f"{CHANNEL}/messages/{_key(name)}"} for name in reply],
        }
    return operation


def _without_at(reference: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The time stands beside a fact's data in its frame, so it is taken out of the data's schema."""
    own = schemas[reference["$ref"].removeprefix(SCHEMAS)] if "$ref" in reference else reference
    own["properties"].pop("at", None)
    own["required"] = [name for name in own.get("required", ()) if name != "at"]
    return reference


def _fact_frame(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "seq": {"type": "integer", "minimum": 1},
            "type": {"const": name},
            "at": {"type": "string", "format": "date-time"},
            "data": data,
        },
        "required": ["seq", "type", "at", "data"],
        "additionalProperties": False,
    }


def _command_frame(op: str, args: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "op": {"const": op},
            "id": {"type": "string", "minLength": 1, "maxLength": 64},
            "args": args,
        },
        "required": ["op", "id"],
        "additionalProperties": False,
    }
