"""Recordings begun by command, and whether they are really written."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from cti.commands import CommandError
from cti.control.acting import Means
from cti.control.moves import NotPossible
from cti.control.ports import CallAnswer, Port
from cti.control.steps import PROOF, Steps
from cti.facts import CallCleared

LOOK_AGAIN = 0.1
"""Seconds between two looks at a file that is to be written."""

WAV_HEAD = 44
"""Bytes of a WAV file without sound."""

RECORDING = "recording"
"""The entry in a call's data that says whether it is recorded: starting, on, paused, or absent."""


RECORDING_ID, PAUSED = "CTI_RECORDING_ID", "CTI_RECORDING_PAUSED"
"""Variables of the recorded channel, by which a server that was restarted knows it: MixMonitor writes the first."""


@dataclass(slots=True)
class Recording:
    """A recording that runs. `channel`: where Asterisk taps the call; `id` Asterisk's own."""

    port: Port
    channel: str
    id: str
    file: str
    paused: bool = False


class Recorder(Steps):
    """Start, pause, resume, stop."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._recordings: dict[str, Recording] = {}

    async def record(self, call: str, agent: str) -> CallAnswer:
        """Starts to record the call, at the customer's channel, so that the recording goes on through transfers.

        Answered when sound has arrived in the file: Asterisk writes the first after two seconds. Other commands on the call
        do not wait for that.
        """
        async with self._act(call, agent, "record") as act:
            if call in self._recordings:
                raise NotPossible("wrong_state", "this call is being recorded already")
            port = act.port
            channel = self._channel(act, act.scene.customer)
            name = re.sub(r"[^0-9A-Za-z.-]", "-", f"{call}-{uuid4().hex[:6]}") + ".wav"
            file = f"{port.recordings.rstrip('/')}/{name}" if port.recordings else name
            answer = await self._send(
                port, "MixMonitor", Channel=channel, File=file, Options=f"i({RECORDING_ID})"
            )
            recording = Recording(port, channel, answer.get("MixMonitorID", ""), file)
            self._recordings[call] = recording
            self._say(port, call, "starting", agent)
        written = await self._is_written(recording, call, name)
        async with self._lock(call):
            if self._recordings.get(call) is recording:  # nobody has stopped it, and the call goes on
                if not written:
                    await self._give_up(recording, call, agent)
                elif not recording.paused:
                    self._say(port, call, "on", agent)
            return self._answer(act)

    async def _give_up(self, recording: Recording, call: str, agent: str) -> None:
        del self._recordings[call]
        self._say(recording.port, call, "", agent)
        with suppress(CommandError):
            await self._stop_recording(recording)
        why = (
            f"{recording.port.name} wrote no recording: look at the folder and its rights ({recording.file})"
        )
        raise CommandError("recording_failed", why)

    async def pause(self, call: str, agent: str, paused: bool) -> CallAnswer:
        """Leaves out of the recording what is said now (card numbers), or goes on with it."""
        async with self._act(call, agent, "record") as act:
            recording = self._recording(call)
            if recording.paused is paused:
                raise NotPossible(
                    "wrong_state", f"the recording is {'paused' if paused else 'running'} already"
                )
            if not paused:  # written before, or after: what is kept never says more is left out than is
                await self._note(recording, PAUSED, "")
            state = "1" if paused else "0"
            await self._send(
                act.port, "MixMonitorMute", Channel=recording.channel, Direction="both", State=state
            )
            if paused:
                await self._note(recording, PAUSED, "1")
            recording.paused = paused
            self._say(act.port, call, "paused" if paused else "on", agent)
            return self._answer(act)

    async def stop_recording(self, call: str, agent: str) -> CallAnswer:
        """Ends the recording."""
        async with self._act(call, agent) as act:
            await self._stop_recording(self._recording(call))
            self._recordings.pop(call, None)
            self._say(act.port, call, "", agent)
            return self._answer(act)

    async def _stop_recording(self, recording: Recording) -> None:
        id = {"MixMonitorID": recording.id} if recording.id else {}
        await self._send(recording.port, "StopMixMonitor", Channel=recording.channel, **id)
        with suppress(CommandError):
            await self._note(recording, RECORDING_ID, "")

    async def _note(self, recording: Recording, variable: str, value: str) -> None:
        await self._send(recording.port, "Setvar", Channel=recording.channel, Variable=variable, Value=value)

    async def find_recordings(self, pbx: str) -> None:
        """Takes over the recordings that run at a PBX, as a former server has begun them: asked of each call's parties."""
        port = self._ports[pbx]
        for view in port.calls.views():
            for party in view.connections:
                if view.id in self._recordings:
                    break
                if party.agent is not None:
                    continue  # the customer's channel is the one that is recorded
                with suppress(CommandError, NotPossible):
                    await self._find_recording(port, view.id, party.id)

    async def _find_recording(self, port: Port, call: str, connection: str) -> None:
        async with self._lock(call):
            channel = port.calls.channel_of(call, connection)
            if channel is None or call in self._recordings:
                return
            id = await self._variable(port, channel, RECORDING_ID)
            if not id:
                return
            file = await self._variable(port, channel, "MIXMONITOR_FILENAME")
            paused = bool(await self._variable(port, channel, PAUSED))
            if port.calls.channel_of(call, connection) is None:
                return
            self._recordings[call] = Recording(port, channel, id, file, paused)
            self._say(port, call, "paused" if paused else "on", "system")

    async def _variable(self, port: Port, channel: str, name: str) -> str:
        answer = await self._send(port, "Getvar", Channel=channel, Variable=name)
        return answer.get("Value", "")

    def _recording(self, call: str) -> Recording:
        found = self._recordings.get(call)
        if found is None:
            raise NotPossible("wrong_state", "this call is not being recorded: start it first")
        return found

    def forget(self, fact: CallCleared) -> None:
        """Lets go of what was kept about a call that is over."""
        self._recordings.pop(fact.call, None)

    def _say(self, port: Port, call: str, what: str, by: str) -> None:
        self._publish(port.calls.set_data(call, {RECORDING: what}, by=by, at=time.time()))

    async def _is_written(self, recording: Recording, call: str, name: str) -> bool:
        """Whether sound arrives in the file while the recording lasts; True where this machine cannot look."""
        seen_at = recording.port.recordings_seen_at
        if not seen_at:
            return True
        for _ in range(int(PROOF / LOOK_AGAIN)):
            if await asyncio.to_thread(_size, Path(seen_at) / name) > WAV_HEAD:
                return True
            if self._recordings.get(call) is not recording:
                return False
            await asyncio.sleep(LOOK_AGAIN)
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
