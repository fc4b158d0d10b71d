"""What a benchmark needs for itself and leaves no trace of: a folder, a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cti.embedded.place import remove_folder, scratch_folder
from cti.embedded.postgres import Postgres


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that the servers can reach, too."""
    made = scratch_folder("cti-bench-")
    try:
        yield made
    finally:
        remove_folder(made)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that runs, with no care for power cuts."""
    with folder() as place:
        server = Postgres(place / "data", durable=False)
        try:
            server.start()
            yield server
        finally:
            server.stop()
