"""An AMI peer for demonstrations, tests and benchmarks where no Asterisk can be had. It says that it is a simulator."""

from cti.simulator.actions import VERSION
from cti.simulator.plan import Caller, Plan
from cti.simulator.server import Simulator, User

__all__ = ["VERSION", "Caller", "Plan", "Simulator", "User"]
