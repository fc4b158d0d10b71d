"""What an examination of a PBX means: evidence in, findings out, each with what to change in which file. No I/O.

Every check is a function of the evidence alone; `CHECKS` is their order on the page.
"""

from __future__ import annotations

from collections.abc import Iterable

from cti.doctor_dialplan import contexts, queue_keys, queues, recordings, routing, trunks, versions, voicemail
from cti.doctor_findings import Check, Evidence, Finding, Level
from cti.doctor_link import (
    channel_variables,
    clock,
    connection,
    encryption,
    event_filter,
    modules,
    read_classes,
    rights,
    timestamps,
    version,
    write_timeout,
)
from cti.doctor_people import people

CHECKS: tuple[tuple[str, tuple[Check, ...]], ...] = (
    ("Connection", (connection, version, encryption, clock)),
    ("Rights", (rights, modules)),
    ("Events", (read_classes, event_filter, timestamps, write_timeout, channel_variables)),
    ("Dialplan", (contexts, versions, trunks)),
    ("Routing", (routing, voicemail)),
    ("Queues", (queues, queue_keys)),
    ("People", (people,)),
    ("Recordings", (recordings,)),
)


def findings(evidence: Evidence) -> list[tuple[str, list[Finding]]]:
    """Returns the findings by chapter; after trouble with the connection only that chapter."""
    if evidence.trouble is not None:
        return [("Connection", list(connection(evidence)))]
    return [
        (title, found)
        for title, checks in CHECKS
        if (found := [finding for check in checks for finding in check(evidence)])
    ]


def usable(chapters: Iterable[tuple[str, list[Finding]]]) -> bool:
    """Whether nothing found stops the server from doing its work."""
    return all(finding.level is not Level.WRONG for _, found in chapters for finding in found)
