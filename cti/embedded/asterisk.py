"""A real Asterisk on loopback without root rights and without touching the machine: found, or fetched from
the distribution's own packages, then started and stopped. It never downloads anything but packages that apt
verifies, and never stops an Asterisk it has not started.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cti.embedded.place import LONGEST_SOCKET_FOLDER, give, lives, reachable, service_account

Say = Callable[[str], None]
"""Where progress is told to a person, one line at a time."""

OLDEST, NEWEST = 16, 22
"""Major versions taken: 18-22 are supported, 16 is what Debian's oldest package gives for a try-out."""

_NOT_FOR_THE_DAEMON = re.compile(
    r"(perl|perl-modules[^_]*|perl-base|debconf[^_]*|adduser|dpkg|systemd[^_]*|login[^_]*|passwd|init-system[^_]*)_"
)
_PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")


class AsteriskUnavailable(Exception):
    """No Asterisk can be had on this machine; the message is one sentence that says why."""


class AsteriskFailed(Exception):
    """Asterisk did not start, ended, or did not answer; the message ends with what its log said last."""


@dataclass(frozen=True, slots=True)
class Installation:
    """An Asterisk that can be started: its program, its modules, its sounds, and where it comes from."""

    binary: Path
    modules: Path
    data: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        """The first number of the version, 22 for 22.10.1."""
        return _major(self.version)


# ------------------------------------------------------------------------------------------- finding


def find_or_provision(home: Path, say: Say) -> Installation:
    """Get an Asterisk: the one `CTI_ASTERISK` names, one on PATH, one fetched earlier, else fetch one now.

    Fetching (some 80 MB, kept under `home`) needs neither root nor, from the second time on, a network. Any
    number of processes may ask at once: one fetches, the others wait. Raises AsteriskUnavailable.
    """
    if named := os.environ.get("CTI_ASTERISK"):
        return _installed(Path(named), "named by CTI_ASTERISK")
    if on_path := (shutil.which("asterisk") or shutil.which("asterisk", path="/usr/sbin:/usr/local/sbin")):
        try:
            return _installed(Path(on_path), "installed on this machine")
        except AsteriskUnavailable as unusable:
            say(f"Not used: {unusable}")
    return _provision(home / "asterisk", say)


def _installed(binary: Path, source: str) -> Installation:
    if not os.access(binary, os.X_OK):
        raise AsteriskUnavailable(f"{binary} ({source}) is not a program that may be run.")
    version = _version(binary)
    if not OLDEST <= _major(version) <= NEWEST:
        raise AsteriskUnavailable(f"{binary} ({source}) is {version}, wanted is 18 to {NEWEST}.")
    root = binary.resolve().parents[2] if len(binary.resolve().parents) > 2 else Path("/")
    provisioned = binary.parent / "stamp"
    if provisioned.is_file():
        return _read_stamp(binary.parent)
    modules = [*root.glob("usr/lib/*-linux-*/asterisk/modules"), *root.glob("usr/lib*/asterisk/modules")]
    modules += [*root.glob("lib/*-linux-*/asterisk/modules"), *root.glob("lib*/asterisk/modules")]
    usable = [folder for folder in modules if os.access(folder / "chan_pjsip.so", os.R_OK)]
    if not usable:
        raise AsteriskUnavailable(f"{binary} ({source}) has no readable modules folder with chan_pjsip.so.")
    data = [Path("/usr/share/asterisk"), Path("/var/lib/asterisk"), root / "share/asterisk"]
    sounds = [folder for folder in data if os.access(folder / "sounds", os.R_OK)]
    return Installation(binary, usable[0], sounds[0] if sounds else data[0], version, source)


def _version(binary: Path) -> str:
    try:
        told = subprocess.run([binary, "-V"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise AsteriskUnavailable(f"{binary} does not run: {_first_line(str(error))}.") from error
    return told.stdout.strip()


def _major(version: str) -> int:
    found = re.search(r"(\d+)\.\d+", version)
    return int(found.group(1)) if found else 0


# -------------------------------------------------------------------------------------- provisioning


@dataclass(frozen=True, slots=True)
class _Archive:
    """One place packages can come from: apt's source lines (None: the machine's own sources)."""

    suite: str
    lines: tuple[str, ...] | None


def _provision(folder: Path, say: Say) -> Installation:
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock"):
        if (folder / "stamp").is_file():
            with contextlib.suppress(OSError, KeyError, ValueError):
                return _read_stamp(folder)
        for program in ("dpkg-deb", "apt-get"):
            if shutil.which(program) is None:
                raise AsteriskUnavailable(
                    f"No Asterisk is installed and none can be fetched: {program} is missing (not Debian or Ubuntu)."
                )
        debs = Path(os.environ.get("CTI_ASTERISK_DEBS") or folder / "debs")
        if _complete(debs):
            say(f"Unpacking Asterisk from the packages kept in {debs}")
            suite = (debs / "SUITE").read_text().strip() if (debs / "SUITE").is_file() else "kept"
            return _unpack(folder, debs, suite)
        reasons: list[str] = []
        for archive in _archives():
            say(f"Fetching Asterisk's packages from {archive.suite} (about 80 MB, once)")
            try:
                _fetch(folder, debs, archive, say)
                return _unpack(folder, debs, archive.suite)
            except AsteriskUnavailable as failure:
                say(f"Not from {archive.suite}: {failure}")
                reasons.append(f"{archive.suite}: {failure}")
        raise AsteriskUnavailable("No Asterisk is installed and none can be fetched. " + " ".join(reasons))


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold `lock` so that one process at a time provisions; it is let go when the process dies, too."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _archives() -> list[_Archive]:
    """List where to look, best first; the archive's address is the one the machine's own apt sources name."""
    mirror = os.environ.get("DEBIAN_MIRROR", "").rstrip("/").removesuffix("/debian")
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not mirror:
        told = _run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages", "Origin: Debian"]
        )
        mirror = next(
            (line.rstrip("/")[:-7] for line in told.splitlines() if line.rstrip("/").endswith("/debian")), ""
        )
    if mirror and keyring.is_file():
        main = f"deb [signed-by={keyring}] {mirror}"
        return [
            _Archive("Debian sid", (f"{main}/debian sid main",)),
            _Archive(
                "Debian bullseye",
                (f"{main}/debian bullseye main", f"{main}/debian-security bullseye-security main"),
            ),
        ]
    return [_Archive("this machine's own package sources", None)]


def _fetch(folder: Path, debs: Path, archive: _Archive, say: Say) -> None:
    apt = folder / "apt"
    shutil.rmtree(apt, ignore_errors=True)
    for below in ("lists/partial", "cache/archives/partial"):
        (apt / below).mkdir(parents=True)
    (apt / "status").touch()
    options = {
        "Dir::State": str(apt),
        "Dir::State::status": str(apt / "status"),
        "Dir::State::Lists": str(apt / "lists"),
        "Dir::Cache": str(apt / "cache"),
        "APT::Install-Recommends": "false",
        # a mirror may be a frozen snapshot whose Release file has "expired"; its signature is still verified
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
        "APT::Update::Error-Mode": "any",
    }
    if archive.lines is not None:
        (apt / "sources.list").write_text("\n".join(archive.lines) + "\n")
        options |= {"Dir::Etc::SourceList": str(apt / "sources.list"), "Dir::Etc::SourceParts": "/dev/null"}
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    try:
        _apt(["apt-get", "-q", *flags, "update"], say)
        _apt(["apt-get", "-q", *flags, "-y", "--download-only", "install", "asterisk"], say)
        fetched = sorted((apt / "cache/archives").glob("*.deb"))
        if not any(deb.name.startswith("asterisk_") for deb in fetched):
            raise AsteriskUnavailable("the package asterisk was not among what apt fetched.")
        shutil.rmtree(debs, ignore_errors=True)
        debs.mkdir(parents=True)
        for deb in fetched:
            shutil.move(deb, debs / deb.name)
        (debs / "SUITE").write_text(archive.suite + "\n")
        sums = "".join(f"{_sha256(debs / deb.name)}  {deb.name}\n" for deb in fetched)
        (debs / "SHA256SUMS").write_text(sums)  # last: its presence says that the set is complete
    finally:
        shutil.rmtree(apt, ignore_errors=True)


def _apt(command: list[str], say: Say) -> None:
    """Run apt, telling how many of the packages are there; raises AsteriskUnavailable with apt's first error."""
    total, done, errors = 0, 0, ""
    env = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=env,
    ) as process:
        for line in process.stdout or ():
            if planned := re.search(r"(\d+) newly installed", line):
                total = int(planned.group(1))
            elif line.startswith("Get:") and total:
                done += 1
                if done % 25 == 0 or done == total:
                    say(f"  {done} of {total} packages")
            elif line.startswith("E:") and not errors:
                errors = line[2:].strip()
    if process.returncode != 0:
        raise AsteriskUnavailable(f"apt says: {_without_address(errors) or 'no reason'}.")


def _without_address(text: str) -> str:
    return re.sub(r"https?://\S+", "(the archive)", text).rstrip(".")


def _complete(debs: Path) -> bool:
    """Tell whether a kept set of packages is whole, by its SHA256SUMS."""
    try:
        lines = (debs / "SHA256SUMS").read_text().splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return bool(pairs) and all(_sha256(debs / name.lstrip("*")) == digest for digest, name in pairs)
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _unpack(folder: Path, debs: Path, suite: str) -> Installation:
    new, root = folder / "root.new", folder / "root"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for deb in sorted(debs.glob("*.deb")):
        if not _NOT_FOR_THE_DAEMON.match(deb.name):
            _run(["dpkg-deb", "-x", str(deb), str(new)])
    for unused in ("doc", "man", "locale", "info", "lintian", "doc-base", "bug"):
        shutil.rmtree(new / "usr/share" / unused, ignore_errors=True)
    _make_links_relative(new)
    english = new / "usr/share/asterisk/sounds/en"
    if not english.exists():  # what the package's postinst would do
        english.symlink_to("en_US_f_Allison")
    shutil.rmtree(root, ignore_errors=True)
    new.rename(root)
    modules = next(root.glob("usr/lib/*-linux-*/asterisk/modules"), None) or root / "usr/lib/asterisk/modules"
    loader = next((found for where in _LOADERS for found in root.glob(where) if found.exists()), None)
    if not modules.is_dir() or loader is None:
        raise AsteriskUnavailable(
            "the fetched packages have no modules or no program loader for this machine."
        )
    _write_wrapper(folder / "asterisk", root, loader)
    for reached in (folder, root):
        reached.chmod(0o755)
    version = _version(folder / "asterisk")
    stamp = {"suite": suite, "version": version, "modules": str(modules.relative_to(folder))}
    (folder / "stamp").write_text("".join(f"{name}={value}\n" for name, value in stamp.items()))
    return _read_stamp(folder)


_LOADERS = (
    "lib/*-linux-*/ld-linux*.so.*",
    "usr/lib/*-linux-*/ld-linux*.so.*",
    "lib/ld-linux*",
    "usr/lib/ld-linux*",
)


def _make_links_relative(root: Path) -> None:
    """Turn absolute links, which would leave the unpacked tree, into relative ones."""
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            link = Path(parent) / name
            if link.is_symlink() and (target := os.readlink(link)).startswith("/"):
                inside = root / target.lstrip("/")
                if inside.exists() or inside.is_symlink():
                    link.unlink()
                    link.symlink_to(os.path.relpath(inside, link.parent))


def _write_wrapper(wrapper: Path, root: Path, loader: Path) -> None:
    """Write the script that runs the unpacked Asterisk with the unpacked libraries instead of the machine's."""
    places = [*root.glob("lib/*-linux-*"), *root.glob("usr/lib/*-linux-*"), root / "usr/lib"]
    places += [folder / more for folder in list(places) for more in ("blas", "lapack", "pulseaudio")]
    libraries = ":".join(str(folder) for folder in places if folder.is_dir())
    command = [str(loader)]
    helped = subprocess.run([loader, "--help"], capture_output=True, text=True, check=False)
    if "--argv0" in helped.stdout:  # "core restart" starts argv[0] again: that must be this script
        command += ["--argv0", str(wrapper)]
    command += ["--library-path", libraries, str(root / "usr/sbin/asterisk")]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    wrapper.chmod(0o755)


def _read_stamp(folder: Path) -> Installation:
    stamp = dict(line.split("=", 1) for line in (folder / "stamp").read_text().splitlines())
    modules = folder / stamp["modules"] if "modules" in stamp else _modules_below(folder / "root")
    if not os.access(folder / "asterisk", os.X_OK) or not modules.is_dir():
        raise ValueError("the unpacked Asterisk is not whole")
    data = folder / "root/usr/share/asterisk"
    return Installation(
        folder / "asterisk", modules, data, stamp["version"], f"packages from {stamp['suite']}"
    )


def _modules_below(root: Path) -> Path:
    return next(root.glob("usr/lib/*-linux-*/asterisk/modules"))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    except subprocess.CalledProcessError as error:
        raise AsteriskUnavailable(f"{command[0]} failed: {_first_line(error.stderr)}.") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AsteriskUnavailable(f"{command[0]} failed: {_first_line(str(error))}.") from error
    return done.stdout


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0].rstrip(".")


# ------------------------------------------------------------------------------------------- running


class AsteriskInstance:
    """One Asterisk process with a configuration of its own; all it writes stays below its run folder.

    `ports` and `substitutions` fill the `@NAME@` places of the configuration files, which are copied from
    `config_dir` (links followed) at each start. A leftover of an earlier run in the same folder is ended first.
    Not for use by two threads at once.
    """

    def __init__(
        self,
        installation: Installation,
        run_dir: Path,
        config_dir: Path,
        ports: Mapping[str, int],
        name: str = "",
        substitutions: Mapping[str, str] | None = None,
    ) -> None:
        if len(os.fsencode(run_dir.absolute())) > LONGEST_SOCKET_FOLDER:
            raise ValueError(f"{run_dir} is too long a path for a unix socket: use a shorter one")
        self.installation = installation
        self.run_dir = run_dir.absolute()
        self.config_dir = config_dir
        self.ports = dict(ports)
        self.name = name
        self._substitutions = dict(substitutions or {})
        self._process: subprocess.Popen[bytes] | None = None
        account = service_account()
        self._user = account.uid if account else None
        self._group = account.gid if account else None
        self._extra_groups: tuple[int, ...] | None = () if account else None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process lives (it may be frozen)."""
        return self._process is not None and self._process.poll() is None

    def start(self, patience: float = 30.0) -> None:
        """Start, and return once fully booted; nothing happens if it runs. Raises AsteriskFailed with the log's end."""
        if self.running:
            return
        self._end_leftover()
        self._lay_out()
        log = self.run_dir / "log" / "console"
        with log.open("wb") as console:
            self._process = self._spawn(["-f", "-n"], console)
        (self.run_dir / "pid").write_text(f"{self._process.pid}\n")
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AsteriskFailed(
                    f"Asterisk ended at its start (code {self._process.returncode}). {self._tail()}"
                )
            if (self.run_dir / "run" / "asterisk.ctl").exists():
                with contextlib.suppress(AsteriskFailed):
                    if "fully booted" in self.cli("core waitfullybooted"):
                        return
            time.sleep(0.05)
        said = self._tail()
        self.kill()
        raise AsteriskFailed(f"Asterisk was not fully booted after {patience:.0f} s. {said}")

    def stop(self, patience: float = 10.0) -> None:
        """End it as `core stop now` would, by force after `patience` seconds; a stopped one is fine."""
        if (process := self._process) is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)  # a frozen one hears nothing else
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        (self.run_dir / "pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL); a stopped one is fine."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            (self.run_dir / "pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): its sockets stay open and nothing answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def cli(self, command: str, patience: float = 20.0) -> str:
        """Run a command of Asterisk's own command line and give back what it printed; raises AsteriskFailed."""
        arguments = [str(self.installation.binary), "-C", str(self._config), "-rx", command]
        try:
            done = subprocess.run(
                arguments,
                capture_output=True,
                timeout=patience,
                env=self._environment(),
                check=False,
                user=self._user,
                group=self._group,
                extra_groups=self._extra_groups,
            )
        except subprocess.TimeoutExpired:
            raise AsteriskFailed(f"Asterisk did not answer {command!r} within {patience:.0f} s.") from None
        printed = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise AsteriskFailed(
                f"Asterisk refused {command!r}: {_first_line(printed or done.stderr.decode())}."
            )
        return printed

    # -------------------------------------------------------------------------------- how it is done

    @property
    def _config(self) -> Path:
        return self.run_dir / "etc" / "asterisk.conf"

    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.run_dir), "LANG": "C.UTF-8", "PATH": os.environ.get("PATH", "/usr/bin:/bin")}

    def _spawn(self, flags: list[str], console: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self.installation.binary), *flags, "-C", str(self._config)],
            cwd=self.run_dir,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the keyboard is for us, who then stop it in order
            user=self._user,
            group=self._group,
            extra_groups=self._extra_groups,
        )

    def _end_leftover(self) -> None:
        """End an Asterisk that an earlier, killed run of ours left in this very folder."""
        try:
            pid = int((self.run_dir / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if os.fsencode(self._config) in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 5
            while lives(pid) and time.monotonic() < deadline:
                time.sleep(0.02)

    def _lay_out(self) -> None:
        """Write the configuration and make the folders; what an earlier start left in its database stays."""
        if not reachable(self.run_dir) or not reachable(self.installation.binary):
            raise AsteriskFailed(
                f"Asterisk runs as nobody here and cannot walk to {self.run_dir} or {self.installation.binary}: "
                "set CTI_HOME to a folder that everybody may enter."
            )
        shutil.rmtree(self.run_dir / "etc", ignore_errors=True)
        shutil.rmtree(self.run_dir / "run", ignore_errors=True)
        spool = [
            f"spool/{name}" for name in ("monitor", "voicemail", "tmp", "system", "outgoing", "recording")
        ]
        for below in ("etc", "run", "var/db", "var/keys", "log", "cache", "moh", *spool):
            (self.run_dir / below).mkdir(parents=True, exist_ok=True)
        _write_tone(self.run_dir / "moh" / "tone.wav")
        values = self._values()
        for parent, _, files in os.walk(self.config_dir, followlinks=True):
            target = self.run_dir / "etc" / Path(parent).relative_to(self.config_dir)
            target.mkdir(parents=True, exist_ok=True)
            for name in files:
                if name.endswith(".conf"):
                    (target / name).write_text(fill_in((Path(parent) / name).read_text(), values, name))
        self._config.write_text(self._own_config())
        give(self.run_dir)
        (self.run_dir / "etc").chmod(stat.S_IRWXU)  # passwords are in there

    def _values(self) -> dict[str, str]:
        built_in = {
            "MOH": str(self.run_dir / "moh"),
            "ICE": _ice_on_loopback(_address_of_this_machine()),
        }
        return built_in | {name: str(port) for name, port in self.ports.items()} | self._substitutions

    def _own_config(self) -> str:
        run, data = self.run_dir, self.installation.data
        folders = {
            "astcachedir": run / "cache",
            "astetcdir": run / "etc",
            "astmoddir": self.installation.modules,
            "astvarlibdir": run / "var",
            "astdbdir": run / "var/db",
            "astkeydir": run / "var",
            "astdatadir": data,
            "astagidir": data / "agi-bin",
            "astspooldir": run / "spool",
            "astrundir": run / "run",
            "astlogdir": run / "log",
        }
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = 65_536 if most == resource.RLIM_INFINITY else min(65_536, most)
        options = [f"systemname = {self.name}"] if self.name else []
        options += [f"maxfiles = {files}", "transmit_silence = no"]
        lines = [
            "[directories]",
            *(f"{name} => {folder}" for name, folder in folders.items()),
            "[options]",
            *options,
        ]
        return "\n".join(lines) + "\n"

    def _tail(self, lines: int = 15) -> str:
        try:
            said = (self.run_dir / "log" / "console").read_text(errors="replace").strip().splitlines()
        except OSError:
            said = []
        return "Its log ends:\n" + "\n".join(said[-lines:])


def fill_in(text: str, values: Mapping[str, str], where: str) -> str:
    """Replace each `@NAME@` by its value; a name without a value raises ValueError that names it and the file."""

    def value(found: re.Match[str]) -> str:
        if (name := found.group(1)) not in values:
            raise ValueError(f"{where}: no value for @{name}@")
        return values[name]

    return _PLACEHOLDER.sub(value, text)


def _address_of_this_machine() -> str:
    """Tell an IPv4 address of this machine other than loopback, "" if it has none; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a UDP connect only asks the routing table (RFC 5737 address)
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _ice_on_loopback(address: str) -> str:
    """Write the part of rtp.conf that lets browser phones on this machine speak over loopback, and nobody else.

    Asterisk offers no loopback address as ICE candidate, so a real one is gathered and announced as 127.0.0.1.
    """
    lines = ["ice_deny=0.0.0.0/0", "ice_deny=::/0", "ice_permit=127.0.0.0/8"]
    if address:
        lines += [f"ice_permit={address}/32", "[ice_host_candidates]", f"{address} => 127.0.0.1"]
    return "\n".join(lines)


def _write_tone(path: Path) -> None:
    """Write ten seconds of a soft tone as music on hold; an existing file is kept."""
    if path.exists():
        return
    tenth = struct.pack("<800h", *(round(3000 * math.sin(2 * math.pi * 330 * i / 8000)) for i in range(800)))
    with wave.open(str(path), "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(8000)
        tone.writeframes(tenth * 100)
