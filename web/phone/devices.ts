/** Microphone and speaker: whether they may be used, which there are, which was chosen. */

export type MicrophoneProblem = "not_secure" | "no_permission" | "no_microphone" | "microphone_busy";

/** A microphone cannot be had; `problem` says why. */
export class NoMicrophone extends Error {
  constructor(readonly problem: MicrophoneProblem) {
    super(problem);
  }
}

const MICROPHONE = "cti.microphone";
const SPEAKER = "cti.speaker";

export function chosen(kind: "audioinput" | "audiooutput"): string {
  return localStorage.getItem(kind === "audioinput" ? MICROPHONE : SPEAKER) ?? "";
}

export function choose(kind: "audioinput" | "audiooutput", id: string): void {
  localStorage.setItem(kind === "audioinput" ? MICROPHONE : SPEAKER, id);
}

/** Sound from the chosen microphone; from another one if that has been unplugged. Asks the person for permission. */
export async function microphone(): Promise<MediaStream> {
  if (!window.isSecureContext || !navigator.mediaDevices) throw new NoMicrophone("not_secure");
  const sound: MediaTrackConstraints = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  const wanted = chosen("audioinput");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: wanted ? { ...sound, deviceId: { ideal: wanted } } : sound });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    if (name === "NotAllowedError" || name === "SecurityError") throw new NoMicrophone("no_permission");
    if (name === "NotReadableError" || name === "AbortError") throw new NoMicrophone("microphone_busy");
    throw new NoMicrophone("no_microphone");
  }
}

/** Raises NoMicrophone unless one may be used; asks for permission if nobody has yet. */
export async function tryMicrophone(): Promise<void> {
  const stream = await microphone();
  for (const track of stream.getTracks()) track.stop();
}

export async function list(kind: "audioinput" | "audiooutput"): Promise<MediaDeviceInfo[]> {
  const all = await navigator.mediaDevices.enumerateDevices();
  return all.filter((device) => device.kind === kind && device.deviceId !== "");
}

/** Whether this browser lets a page choose the speaker. */
export function speakerCanBeChosen(): boolean {
  return "setSinkId" in HTMLMediaElement.prototype;
}

/** Plays on the chosen speaker; on the usual one if that has been unplugged. */
export async function playOnChosen(audio: HTMLAudioElement): Promise<void> {
  if (!speakerCanBeChosen()) return;
  try {
    await audio.setSinkId(chosen("audiooutput"));
  } catch {
    await audio.setSinkId("");
  }
}
