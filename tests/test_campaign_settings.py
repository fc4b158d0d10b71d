"""A campaign's settings: what is left out has a sensible value, what is wrong is refused with a sentence."""

import pytest
from pydantic import ValidationError

from dialer.management.settings import CampaignSettings

SALE = {"code": "sale", "label": "Sale", "category": "conversion"}


def test_nothing_said_is_a_campaign() -> None:
    settings = CampaignSettings.model_validate({})
    assert CampaignSettings.model_validate_json(settings.model_dump_json()) == settings
    busy = settings.retry("busy")
    assert busy is not None
    assert busy.after_minutes[0] == 15
    assert settings.retry("connected") is None


def test_one_retry_rule_replaces_the_usual_one_for_its_outcome() -> None:
    settings = CampaignSettings.model_validate({"retries": {"busy": {"after_minutes": [5]}}})
    busy, no_answer = settings.retry("busy"), settings.retry("no_answer")
    assert busy is not None
    assert busy.after_minutes == (5,)
    assert no_answer is not None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"hours": {"mon": ["9-12"]}}, "write it like 09:00-12:30"),
        ({"hours": {"mon": ["12:00-09:00"]}}, "write it like 09:00-12:30"),
        ({"min_ring_s": 30, "ring_timeout_s": 20}, "would never ring so long"),
        ({"max_line": 3}, "Extra inputs are not permitted"),
        ({"queue": "sales"}, "String should match pattern"),
        ({"message": "a,b"}, "String should match pattern"),
        ({"dispositions": [SALE, SALE]}, "dispositions: sale is there twice"),
        ({"dispositions": [SALE | {"code": "-"}]}, "String should match pattern"),
        ({"dispositions": [SALE | {"category": "won"}]}, "Input should be 'conversion', 'contact'"),
        ({"dispositions": [SALE | {"again_after_minutes": 5}]}, "after which is called again"),
        ({"dispositions": [SALE | {"do_not_call": "company"}]}, "this lists none"),
        (
            {"dispositions": [SALE | {"category": "do_not_call", "then": "again"}]},
            "is listed: leave `then` out",
        ),
        (
            {"dispositions": [SALE | {"category": "do_not_call", "do_not_call": "company"}]},
            "sale: the campaign names no company",
        ),
        ({"wrap_up": {"seconds": -1}}, "greater than or equal to 0"),
    ],
)
def test_wrong_ones_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CampaignSettings.model_validate(wrong)
