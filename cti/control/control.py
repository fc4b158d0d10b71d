"""Call control as a whole. Who may ask is not decided here but where commands are registered (`cti.call_commands`)."""

from __future__ import annotations

from cti.control.conferring import Conferring
from cti.control.escalating import Escalating
from cti.control.recording import Recorder
from cti.control.ringing import Ringing
from cti.control.taking_up import TakingUp


class Control(Ringing, Escalating, Conferring, Recorder, TakingUp):
    """Carries out what is wished for calls on all PBXs, and answers with what the facts show afterwards."""
