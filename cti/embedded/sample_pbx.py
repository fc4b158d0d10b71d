"""The sample call centre as two Asterisks on loopback: the PBX, and the world around it (customers behind a
carrier, agents' desk phones). Says which configuration, ports and passwords they get; how they behave is written
in asterisk-config/.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cti.embedded.asterisk import AsteriskInstance, Installation
from cti.embedded.place import CHECKOUT, free_ports

CONFIGURATION = CHECKOUT / "asterisk-config"
_RTP_WIDTH = 3000


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the PBX and the world behave, in seconds; "" means believable chance (for a demo).

    `records`: recordings may be begun by command: a right not given lightly (asterisk-config/include/manager_cti.conf).
    """

    ring_seconds: int = 15
    wrap_seconds: int = 2
    wait_seconds: int = 60
    overflow_seconds: int = 30
    park_seconds: int = 45
    menu_seconds: int = 5
    phone_delay: str = "1"
    phone_misses: int = 0
    phone_talk: str = "3600"
    customer_delay: str = "1"
    customer_talk: str = "30"
    records: bool = False


LIVELY = Behaviour(
    phone_delay="", phone_misses=4, phone_talk="", customer_delay="", customer_talk="", records=True
)
"""For the demo: agents answer after one to five seconds, miss a call now and then, and hang up first at times."""

MORE_RIGHTS = "[cti](+)\nwrite=call,agent,user,originate,reporting,system"


class SamplePbx:
    """The PBX of the sample call centre. It keeps its ports and passwords over stop, kill and start."""

    host = "127.0.0.1"
    username = "cti"
    admin_username = "admin"

    def __init__(
        self,
        installation: Installation,
        run_dir: Path,
        name: str = "",
        behaviour: Behaviour | None = None,
        ports: tuple[int, ...] = (),
    ) -> None:
        how = behaviour or Behaviour()
        self.name = name
        self.secret, self.admin_secret, self.phone_secret = (secrets.token_urlsafe(18) for _ in range(3))
        self.ami_port, self.sip_port, self.http_port, self.uas_port, self.peer_port, self.phones_port = (
            ports or tuple(free_ports(6))
        )
        rtp = 34_000 + 2 * secrets.randbelow(10_000)
        self.instance = AsteriskInstance(
            installation,
            run_dir,
            CONFIGURATION / "pbx",
            {
                "AMI_PORT": self.ami_port,
                "SIP_PORT": self.sip_port,
                "HTTP_PORT": self.http_port,
                "UAS_PORT": self.uas_port,
                "PEER_PORT": self.peer_port,
                "PHONES_PORT": self.phones_port,
                "RTP_START": rtp,
                "RTP_END": rtp + _RTP_WIDTH,
                "RING_SECONDS": how.ring_seconds,
                "WRAP_SECONDS": how.wrap_seconds,
                "WAIT_SECONDS": how.wait_seconds,
                "OVERFLOW_SECONDS": how.overflow_seconds,
                "PARK_SECONDS": how.park_seconds,
                "MENU_SECONDS": how.menu_seconds,
            },
            name,
            {
                "BIND": self.host,
                "MEDIA": f"bind_rtp_to_media_address=yes\nmedia_address={self.host}",
                "NAT": "",
                "PEER_HOST": "127.0.0.2",
                "CTI_PERMIT": f"{self.host}/255.255.255.255",
                "CTI_INTERNAL": "from-agent",
                "CTI_SECRET": self.secret,
                "CTI_MORE": MORE_RIGHTS if how.records else "",
                "ADMIN_SECRET": self.admin_secret,
                "PHONE_SECRET": self.phone_secret,
            },
        )

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self.instance.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.instance.running

    @property
    def run_dir(self) -> Path:
        """The folder with its configuration, logs, recordings."""
        return self.instance.run_dir

    def start(self) -> Self:
        """Start and wait until it is fully booted; raises AsteriskFailed."""
        self.instance.start()
        return self

    def stop(self) -> None:
        """End it in order."""
        self.instance.stop()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.instance.kill()

    def freeze(self) -> None:
        """Stop it in its tracks: sockets stay open, nothing answers."""
        self.instance.freeze()

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self.instance.thaw()

    def cli(self, command: str) -> str:
        """Run a command of Asterisk's command line; raises AsteriskFailed."""
        return self.instance.cli(command)


class World:
    """Everything outside the PBX: `username` may Originate here to make customers call, see asterisk-config/world."""

    host = "127.0.0.1"
    username = "world"

    def __init__(
        self, installation: Installation, run_dir: Path, pbx: SamplePbx, behaviour: Behaviour | None = None
    ) -> None:
        how = behaviour or Behaviour()
        self.pbx = pbx
        self.secret = secrets.token_urlsafe(18)
        (self.ami_port,) = free_ports(1)
        rtp = 34_000 + 2 * secrets.randbelow(10_000)
        self.instance = AsteriskInstance(
            installation,
            run_dir,
            CONFIGURATION / "world",
            {
                "AMI_PORT": self.ami_port,
                "PBX_PORT": pbx.sip_port,
                "PEER_PORT": pbx.peer_port,
                "PHONES_PORT": pbx.phones_port,
                "RTP_START": rtp,
                "RTP_END": rtp + _RTP_WIDTH,
                "PHONE_MISSES": how.phone_misses,
            },
            "world",
            {
                "WORLD_SECRET": self.secret,
                "PHONE_DELAY": how.phone_delay,
                "PHONE_TALK": how.phone_talk,
                "CUSTOMER_DELAY": how.customer_delay,
                "CUSTOMER_TALK": how.customer_talk,
            },
        )

    def start(self) -> Self:
        """Start and wait until it is fully booted; raises AsteriskFailed."""
        self.instance.start()
        return self

    def stop(self) -> None:
        """End it in order: all its calls end."""
        self.instance.stop()

    def kill(self) -> None:
        """End it as a power cut would: its calls hang until timers notice."""
        self.instance.kill()

    def cli(self, command: str) -> str:
        """Run a command of Asterisk's command line; raises AsteriskFailed."""
        return self.instance.cli(command)
