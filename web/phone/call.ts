/** One call of this phone: a SIP session with its sound. */

import type { RTCSession } from "jssip/lib/RTCSession";
import { microphone, playOnChosen } from "./devices";

export type CallState = "ringing" | "answering" | "talking" | "over";

const SETTLES = 3000; // ms
const GATHERING = 400; // ms: after this the answer goes out with the addresses found so far

export interface Traffic {
  received: number;
  sent: number;
}

function settled(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}

export class Call {
  state: CallState = "ringing";
  muted = false;
  /** The line that stays open while its agent works off-hook: calls come and go on it. */
  get isOpenLine(): boolean {
    return this.channel.startsWith("cti-line-");
  }
  /** Held by this phone itself, not by the server. */
  heldHere = false;
  /** Why it ended by itself, or could not be answered: a sentence, "" if all was well. */
  trouble = "";
  /** When it was answered here, as Date.now(). */
  talkingSince = 0;
  private readonly audio = new Audio();
  private own: MediaStream | null = null;
  private answering: Promise<void> | null = null;

  /** `channel` is Asterisk's id of this leg, "" where the dialplan does not tell it. */
  constructor(
    private readonly session: RTCSession,
    readonly pbx: string,
    readonly channel: string,
    readonly number: string,
    readonly name: string,
    private readonly iceServers: RTCIceServer[],
    private readonly changed: () => void,
  ) {
    this.audio.autoplay = true;
    session.on("peerconnection", (event) => this.listen(event.peerconnection));
    session.on("icecandidate", (event) => void setTimeout(event.ready, GATHERING));
    session.on("confirmed", () => this.become("talking"));
    session.on("ended", () => this.end());
    session.on("failed", () => this.end());
    session.on("hold", (event) => this.hold(String(event.originator) === "local"));
    session.on("unhold", () => this.hold(false));
  }

  /** Answers; resolves once the session is through. Raises NoMicrophone, or Error when it ended meanwhile. Asked twice,
   * it answers once. */
  answer(): Promise<void> {
    if (this.state === "talking") return Promise.resolve();
    if (this.state === "over") return Promise.reject(new Error("it has stopped ringing"));
    this.answering ??= this.takeUp().finally(() => (this.answering = null));
    return this.answering;
  }

  private async takeUp(): Promise<void> {
    this.become("answering");
    try {
      this.own = await microphone();
    } catch (error) {
      if (!this.is("over")) this.become("ringing");
      throw error;
    }
    if (this.is("over")) {
      this.letGo();
      throw new Error("it has stopped ringing");
    }
    const through = new Promise<void>((resolve, reject) => {
      this.session.on("confirmed", () => resolve());
      this.session.on("failed", (event) => reject(new Error(event.cause)));
    });
    this.session.answer({
      mediaStream: this.own,
      pcConfig: { iceServers: this.iceServers, bundlePolicy: "max-bundle" },
    });
    await through;
  }

  hangUp(): void {
    if (this.state === "over") return;
    const ringing = this.state === "ringing";
    this.session.terminate(ringing ? { status_code: 486, reason_phrase: "Busy Here" } : {});
  }

  mute(muted: boolean): void {
    if (muted) this.session.mute({ audio: true });
    else this.session.unmute({ audio: true });
    this.muted = muted;
    this.changed();
  }

  /** Hold by the phone itself: for when the server is not there to do it. Resolves when the PBX has agreed. */
  async holdHere(held: boolean): Promise<void> {
    for (let waited = 0; waited < SETTLES; waited += 50) {
      if (this.state !== "talking") throw new Error("the call is over");
      if (this.heldHere === held) return;
      const { promise, resolve } = settled();
      if (held ? this.session.hold({}, resolve) : this.session.unhold({}, resolve)) return promise;
      await new Promise((later) => setTimeout(later, 50)); // the last change is not through yet
    }
    throw new Error("the PBX does not answer");
  }

  tone(digit: string): void {
    this.session.sendDTMF(digit, { transportType: "RFC2833" as never, duration: 120 });
  }

  /** Takes another microphone in the middle of the call. */
  async changeMicrophone(): Promise<void> {
    if (this.state !== "talking") return;
    const stream = await microphone();
    const track = stream.getAudioTracks()[0] ?? null;
    const sender = this.session.connection?.getSenders().find((one) => one.track?.kind === "audio");
    if (track && sender) {
      track.enabled = !this.muted;
      await sender.replaceTrack(track);
    }
    this.letGo();
    this.own = stream;
  }

  async changeSpeaker(): Promise<void> {
    await playOnChosen(this.audio);
  }

  /** Whether sound can pass at this moment. */
  get alive(): boolean {
    return this.session.connection?.connectionState === "connected";
  }

  /** Bytes of sound so far. */
  async traffic(): Promise<Traffic> {
    const sum: Traffic = { received: 0, sent: 0 };
    const reports = await this.session.connection?.getStats();
    reports?.forEach((report: RTCInboundRtpStreamStats & RTCOutboundRtpStreamStats & { type: string }) => {
      if (report.type === "inbound-rtp") sum.received += report.bytesReceived ?? 0;
      if (report.type === "outbound-rtp") sum.sent += report.bytesSent ?? 0;
    });
    return sum;
  }

  private listen(connection: RTCPeerConnection): void {
    connection.addEventListener("track", (event) => {
      this.audio.srcObject = new MediaStream([event.track]);
      void playOnChosen(this.audio).then(() => this.audio.play()).catch(() => undefined);
    });
    connection.addEventListener("connectionstatechange", () => {
      if (connection.connectionState === "failed" && this.state === "talking") {
        this.trouble = "The sound broke off: the PBX does not reach this computer any more.";
        this.session.terminate();
      }
      this.changed();
    });
  }

  private is(state: CallState): boolean {
    return this.state === state;
  }

  private become(state: CallState): void {
    if (this.state === "over") return;
    if (state === "talking") this.talkingSince = Date.now();
    this.state = state;
    this.changed();
  }

  private hold(held: boolean): void {
    this.heldHere = held;
    this.changed();
  }

  private end(): void {
    if (this.state === "over") return;
    this.state = "over";
    this.audio.srcObject = null;
    this.letGo();
    this.changed();
  }

  private letGo(): void {
    for (const track of this.own?.getTracks() ?? []) track.stop();
    this.own = null;
  }
}
