"""The register of REST routes, and the OpenAPI 3.1 document and readable page made from it. No I/O.

A route says once what it takes, gives and who may use it; the server checks requests by it and the document is
generated from it, so the two cannot differ.
"""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

from cti.people import Role
from cti.problems import CONTENT_TYPE, ProblemDetails

EVERYBODY = frozenset(Role)
PEOPLE = frozenset({Role.AGENT, Role.SUPERVISOR, Role.ADMIN})
SUPERVISORS = frozenset({Role.SUPERVISOR, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})

_REASONS = {
    400: "The request cannot be read.",
    401: "Not logged in, or the token has expired.",
    403: "Your role may not do this.",
    404: "There is nothing of this name that you may see.",
    409: "It contradicts the present state.",
    412: "Somebody else has changed it since you read it: read it again.",
    413: "The request is too large.",
    415: "Send application/json.",
    422: "The request is well formed and says something impossible.",
    428: "Say with If-Match which version you are changing.",
    429: "Too many requests: wait, then send it again.",
    500: "The server failed; its log says why.",
    503: "What is needed for this is out of reach at present: try again.",
    504: "The switch did not answer in time; what the facts say is what happened.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One thing the REST API does. `roles` None: open to everybody, without logging in.

    `idempotent`: a POST that takes an `Idempotency-Key`. `versioned`: needs `If-Match`. `raw`: the handler makes its
    own response, of the content type in `raw`. `also`: another content type that the result may come in. `takes`: content
    type of a body that is no JSON and which the handler reads itself.
    """

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Any]]
    summary: str
    tag: str
    roles: frozenset[Role] | None = EVERYBODY
    params: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    result: Any = None
    status: int = 200
    errors: frozenset[int] = frozenset()
    idempotent: bool = False
    versioned: bool = False
    raw: str | None = None
    also: str | None = None
    takes: str | None = None

    @property
    def names(self) -> list[str]:
        """The parameters in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def told(self) -> list[int]:
        """The error statuses that the route may answer with."""
        codes = set(self.errors) | {500}
        if self.roles is not None:
            codes |= {401}
            codes |= {403} if self.roles != EVERYBODY or self.method != "GET" else set()
        if self.names or self.query is not None or self.body is not None:
            codes |= {400, 422}
        if self.names:
            codes |= {404}
        if self.takes is not None:
            codes |= {400, 413, 422}
        if self.body is not None:
            codes |= {413, 415}
        if self.method == "POST":
            codes |= {409, 429}
        if self.versioned:
            codes |= {412, 428}
        return sorted(codes)


class Routes:
    """All routes, in the order of registration."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], Route] = {}

    def __iter__(self) -> Any:
        return iter(self._routes.values())

    def add(self, *routes: Route) -> None:
        """Registers routes; raises ValueError if one is there already."""
        for route in routes:
            key = (route.method, route.path)
            if key in self._routes:
                raise ValueError(f"{route.method} {route.path} is registered twice")
            self._routes[key] = route


def document(routes: Iterable[Route], *, title: str, version: str) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document."""
    routes = list(routes)
    wanted: list[tuple[Any, Any, TypeAdapter[Any]]] = [
        (ProblemDetails, "serialization", TypeAdapter(ProblemDetails))
    ]
    for route in routes:
        for shape, mode in (
            (route.params, "validation"),
            (route.query, "validation"),
            (route.body, "validation"),
            (route.result, "serialization"),
        ):
            if shape is not None:
                wanted.append((shape, mode, TypeAdapter(shape)))
    keyed = {
        (id(shape), mode): (number, shape, mode, adapter)
        for number, (shape, mode, adapter) in enumerate(wanted)
    }
    references, components = TypeAdapter.json_schemas(
        [(number, mode, adapter) for number, _, mode, adapter in keyed.values()],
        ref_template="#/components/schemas/{model}",
    )
    schemas = {place: references[(number, mode)] for place, (number, _, mode, _) in keyed.items()}

    def schema(shape: Any, mode: str) -> dict[str, Any]:
        return schemas[(id(shape), mode)]

    definitions = components.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema, definitions)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Errors are RFC 9457 problems; `code` is for programs. Lists are read on with `next`. "
            "Live changes come over the websocket, described at /api/asyncapi.json.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "an access token, or an API key (`cti_…`)",
                },
                "cookie": {"type": "apiKey", "in": "cookie", "name": "cti_access"},
            },
        },
    }


def _operation(
    route: Route, schema: Callable[[Any, str], dict[str, Any]], definitions: dict[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {str(route.status): _success(route, schema)},
    }
    parameters = [
        *_path_parameters(route, schema, definitions),
        *_query_parameters(route, schema, definitions),
    ]
    if route.idempotent:
        parameters.append(
            _header(
                "Idempotency-Key", "Any text: the same request sent again is not carried out twice.", False
            )
        )
    if route.versioned:
        parameters.append(_header("If-Match", "The ETag of the version that you are changing.", True))
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema(route.body, "validation")}},
        }
    elif route.takes is not None:
        content = {route.takes: {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.roles is None:
        operation["security"] = []
    else:
        operation["x-roles"] = sorted(route.roles)
    problem = {CONTENT_TYPE: {"schema": schema(ProblemDetails, "serialization")}}
    for status in route.told:
        operation["responses"][str(status)] = {"description": _REASONS[status], "content": problem}
    return operation


def _success(route: Route, schema: Callable[[Any, str], dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"description": "Done."}
    if route.result is not None:
        told["content"] = {"application/json": {"schema": schema(route.result, "serialization")}}
        if route.also is not None:
            told["content"][route.also] = {}
    elif route.raw is not None:
        told["content"] = {route.raw: {}}
    return told


def _fields(
    shape: Any, schema: Callable[[Any, str], dict[str, Any]], definitions: dict[str, Any]
) -> dict[str, Any]:
    found = schema(shape, "validation")
    if "$ref" in found:
        found = definitions[found["$ref"].rpartition("/")[2]]
    return found


def _path_parameters(
    route: Route, schema: Callable[[Any, str], dict[str, Any]], definitions: dict[str, Any]
) -> list[dict[str, Any]]:
    known = _fields(route.params, schema, definitions)["properties"] if route.params else {}
    text = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "schema": known.get(name, text)}
        for name in route.names
    ]


def _query_parameters(
    route: Route, schema: Callable[[Any, str], dict[str, Any]], definitions: dict[str, Any]
) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    shape = _fields(route.query, schema, definitions)
    return [
        {"name": name, "in": "query", "required": name in shape.get("required", ()), "schema": field}
        for name, field in shape["properties"].items()
    ]


def _header(name: str, says: str, required: bool) -> dict[str, Any]:
    # RFC 9110, 5.5: a field's value is visible ASCII with spaces inside
    schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[!-~]+$"}
    return {"name": name, "in": "header", "required": required, "description": says, "schema": schema}


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^a-zA-Z0-9]+", "_", route.path.removeprefix("/api/v1")).strip("_")
    return f"{route.method.lower()}_{words or 'root'}"


_STYLE = """
:root{color-scheme:light dark;--line:#d0d7de;--soft:#f6f8fa;--link:#0550ae}
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1f24;background:#fff;
overflow-wrap:anywhere}
a{color:var(--link)}:focus-visible{outline:3px solid var(--link);outline-offset:1px;border-radius:4px}
:target{border-color:var(--link)}nav a{display:inline-block;padding:.15rem .6rem .15rem 0}
h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}h3{font-size:1rem;margin:1rem 0 .5rem}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0}details>div{padding:0 1rem 1rem}
summary{padding:.5rem .75rem;cursor:pointer}summary:hover{background:var(--soft)}
summary b{display:inline-block;min-width:4.5rem;font-weight:600}summary code{margin-right:.4rem}
code,pre{font:14px ui-monospace,monospace}
pre{background:var(--soft);padding:.75rem;border-radius:6px;white-space:pre-wrap;margin:.5rem 0}
table{border-collapse:collapse}td,th{border:1px solid var(--line);padding:.25rem .6rem;text-align:left;vertical-align:top}
th{font-weight:400;white-space:nowrap}td{min-width:5rem}
@media(max-width:40rem){body{margin-top:1rem}summary span{display:block}summary b{min-width:3.6rem}
details>div{padding:0 .75rem .75rem}}
@media(prefers-color-scheme:dark){:root{--line:#3d444d;--soft:#161b22;--link:#58a6ff}body{color:#e6edf3;background:#0d1117}}
"""


def page(document: dict[str, Any]) -> str:
    """Returns the document as one HTML page that needs nothing from anywhere else."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_section(path, method, operation))
    body = "".join(
        f'<h2 id="{_anchor(tag)}">{html.escape(tag)}</h2>{"".join(sections)}'
        for tag, sections in by_tag.items()
    )
    contents = " ".join(f'<a href="#{_anchor(tag)}">{html.escape(tag)}</a>' for tag in (*by_tag, "Shapes"))
    shapes = "".join(
        f'<details open id="{html.escape(name)}"><summary><code>{html.escape(name)}</code></summary><div>'
        f"{_text(shape.get('description', ''))}<pre>{_linked(shape)}</pre></div></details>"
        for name, shape in sorted(document["components"]["schemas"].items())
    )
    info = document["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(info['title'])}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{html.escape(info['title'])} {html.escape(info['version'])}</h1>{_text(info['description'])}"
        '<p>For programs: <a href="/api/openapi.json">OpenAPI 3.1</a>, '
        '<a href="/api/asyncapi.json">AsyncAPI 3</a> (the websocket).</p>'
        f'<nav aria-label="Contents">{contents}</nav>{body}<h2 id="{_anchor("Shapes")}">Shapes</h2>{shapes}'
        "</main></body></html>"
    )


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{html.escape(p["name"])}</code></th>'
        f"<td>{p['in']}{'' if p['required'] else ', optional'}</td>"
        f"<td>{_words(p.get('description') or p['schema'].get('description', ''))}</td></tr>"
        for p in operation.get("parameters", ())
    )
    body = operation.get("requestBody")
    sent = (
        f"<h3>Body</h3><pre>{_linked(next(iter(body['content'].values()))['schema'])}</pre>" if body else ""
    )
    answers = "".join(
        f'<tr><th scope="row">{status}</th><td>{_words(told["description"])} {_shape_link(told)}</td></tr>'
        for status, told in operation["responses"].items()
    )
    roles = operation.get("x-roles")
    who = "everybody, without logging in" if roles is None else ", ".join(roles)
    return (
        f'<details id="{html.escape(operation["operationId"])}"><summary><b>{method.upper()}</b> '
        f"<code>{html.escape(path)}</code> <span>{_words(operation['summary'])}</span></summary><div>"
        f"{_text(operation.get('description', ''))}<p>For: {html.escape(who)}</p>"
        f"{f'<h3>Parameters</h3><table>{rows}</table>' if rows else ''}{sent}"
        f"<h3>Answers</h3><table>{answers}</table></div></details>"
    )


def _anchor(heading: str) -> str:
    return "about-" + re.sub(r"[^a-z0-9]+", "-", heading.lower())


def _shape_link(told: dict[str, Any]) -> str:
    return " ".join(
        f"<code>{_linked(content['schema'])}</code>"
        for content in told.get("content", {}).values()
        if "$ref" in content.get("schema", {})
    )


def _linked(shape: Any) -> str:
    import json

    if isinstance(shape, dict) and list(shape) == ["$ref"]:
        name = html.escape(shape["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    text = html.escape(json.dumps(shape, indent=1, ensure_ascii=False), quote=False)
    return re.sub(r'"#/components/schemas/([\w.\-]+)"', r'<a href="#\1">\1</a>', text)


def _text(text: str) -> str:
    return f"<p>{_words(text)}</p>" if text else ""


def _words(text: str) -> str:
    """Text for the page; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
