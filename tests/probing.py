"""Probing an API with requests made up from its own OpenAPI document."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings


def run_schemathesis(schema: Any, token: str, examples: int) -> list[str]:
    """Tries every operation; returns what was wrong: a 5xx, or an answer that the document does not tell of."""
    failures: list[str] = []
    checks = [
        schemathesis.checks.not_a_server_error,
        *schemathesis.checks.CHECKS.get_by_names(
            ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
        ),
    ]
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy())
        def probe(case: Any) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=checks)

        try:
            probe()
        except (Exception, BaseExceptionGroup) as error:
            failures.append(f"{operation.label}: {error}"[:1500])
    return failures
