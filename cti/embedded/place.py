"""Where the servers we bring along keep their files, and as whom they run; starts nothing.

PostgreSQL refuses to run as root and Asterisk should not, so when we are root they run as `nobody`, who must be
able to walk to their files. Folders that are not ours are never made wider for that: another place is taken.
"""

import atexit
import hashlib
import os
import pwd
import random
import shutil
import socket
import stat
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

LONGEST_SOCKET_FOLDER = 80
"""Bytes of a folder's path that still leave room for a socket's file name (Linux: 107 for the whole)."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user a server runs as, for `subprocess`'s `user=` and `group=`."""

    uid: int
    gid: int
    name: str


def service_account() -> Account | None:
    """Tell as whom a server must be started: `nobody` when we are root, None (as ourselves) otherwise."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def reachable(path: Path) -> bool:
    """Tell whether the service account can walk to `path`: it may pass through every folder above it."""
    account = service_account()
    return account is None or all(_passable(folder, account) for folder in path.resolve().parents)


def _passable(folder: Path, account: Account) -> bool:
    try:
        status = folder.stat()
    except FileNotFoundError:  # will be made by us
        return True
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def home() -> Path:
    """Choose, and make, the folder for what is fetched once and kept: packages, binaries, data.

    `CTI_HOME` if set; else `.local/` in the checkout; else, where a server could not walk there, a folder of
    our own under /var/tmp. Raises PermissionError when somebody else has put something in that place.
    """
    if named := os.environ.get("CTI_HOME"):
        chosen = Path(named).expanduser().absolute()
    elif reachable(CHECKOUT / ".local" / "x"):
        chosen = CHECKOUT / ".local"
    else:
        mark = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
        chosen = Path("/var/tmp") / f"cti-{os.geteuid()}-{mark}"  # noqa: S108 - ownership is checked below
    chosen.mkdir(parents=True, exist_ok=True)
    if chosen.lstat().st_uid != os.geteuid() or chosen.is_symlink():
        raise PermissionError(f"{chosen} belongs to somebody else: set CTI_HOME to a folder of your own")
    return chosen


def scratch_folder(prefix: str, place: Path | None = None) -> Path:
    """Make an empty folder with a short path that only the service account (or we) may enter; the caller removes it.

    `place`: where, if the system's folder for passing files is not the one.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    if len(str(folder)) > LONGEST_SOCKET_FOLDER or not reachable(folder):
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    give(folder)
    return folder


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def give(folder: Path) -> None:
    """Hand `folder` and all below it to the service account; nothing happens when we run as ourselves."""
    if (account := service_account()) is None:
        return
    os.chown(folder, account.uid, account.gid)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, account.uid, account.gid, follow_symlinks=False)


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours with all below it; a missing one is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int, *, lowest: int = 10_000, highest: int = 32_000) -> list[int]:
    """Find `count` ports free for TCP and UDP on 127.0.0.1 and 127.0.0.2.

    Below the range the kernel gives to outgoing connections (so that none of those takes one before the server
    is up), and none that was found by another process a moment ago and is not in use yet.
    """
    found: list[int] = []
    for port in random.sample(range(lowest, highest), highest - lowest):
        if _is_free(port) and _taken_down(port):
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports between {lowest} and {highest}")


_FOUND: deque[socket.socket] = deque()
"""A name in Linux's abstract namespace for each of the last ports that were found here: it can be taken once on a machine,
and is free again when the process is gone."""

_REMEMBERED = 100
"""Ports found after which the first is surely in use."""


@atexit.register
def _let_go() -> None:
    for name in _FOUND:
        name.close()


def _taken_down(port: int) -> bool:
    if sys.platform != "linux":
        return True
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0cti-port-{port}")
    except OSError:
        name.close()
        return False
    _FOUND.append(name)
    if len(_FOUND) > _REMEMBERED:
        _FOUND.popleft().close()
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for host in ("127.0.0.1", "127.0.0.2"):
            with socket.socket(socket.AF_INET, kind) as probe:
                try:
                    probe.bind((host, port))
                except OSError:
                    return False
    return True
