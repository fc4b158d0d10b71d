"""A client of AMI beside the server, for what is done by hand in a comparison."""

from __future__ import annotations

from collections.abc import Callable

from cti.ami import AmiLink
from cti.ami_events import PARSERS, Record
from tests.centre import Centre


def bare_link(centre: Centre, heard: Callable[[list[Record]], None]) -> AmiLink:
    """A link to the centre's PBX that tells what it hears, and does nothing else."""
    return AmiLink(
        pbx="bare",
        host=centre.pbx.host,
        port=centre.pbx.ami_port,
        username=centre.pbx.username,
        secret=centre.pbx.secret,
        parsers=PARSERS,
        on_records=heard,  # type: ignore[arg-type]  # our parsers make records
        on_status=lambda status: None,
    )
