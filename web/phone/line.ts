/** The line to one PBX: registered as the agent's phone, kept registered over breaks, taking calls. */

import JsSIP from "jssip";
import type { IncomingRTCSessionEvent, OutgoingRTCSessionEvent, UA } from "jssip/lib/UA";
import { Call } from "./call";

/** How to be a phone, as `GET /api/v1/me/phone` says. */
export interface Account {
  pbx: string;
  url: string;
  uri: string;
  username: string;
  password: string;
  display_name: string;
  ice_servers: RTCIceServer[];
}

export type LineState = "connecting" | "registered" | "unreachable" | "refused" | "off";

const AT_ONCE = 4; // calls; more are told that the phone is busy

export class Line {
  state: LineState = "connecting";
  readonly calls: Call[] = [];
  private readonly ua: UA;

  constructor(
    readonly account: Account,
    private readonly changed: () => void,
  ) {
    this.ua = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(account.url)],
      uri: account.uri,
      authorization_user: account.username,
      password: account.password,
      display_name: account.display_name,
      register_expires: 120,
      session_timers: false,
      connection_recovery_min_interval: 1,
      connection_recovery_max_interval: 4,
      user_agent: "cti phone",
    });
    this.ua.on("registered", () => {
      this.become("registered");
      for (const call of [...this.calls]) if (call.state === "talking" && !call.alive) call.hangUp();
    });
    this.ua.on("disconnected", () => this.become("unreachable"));
    this.ua.on("connected", () => this.become("connecting"));
    this.ua.on("unregistered", () => this.become("connecting"));
    this.ua.on("registrationFailed", (event) => {
      const code = (event.response as { status_code?: number } | null)?.status_code ?? 0;
      this.become(code === 401 || code === 403 || code === 404 ? "refused" : "unreachable");
    });
    this.ua.on("newRTCSession", (event: IncomingRTCSessionEvent | OutgoingRTCSessionEvent) => this.arrive(event));
  }

  start(): void {
    this.ua.start();
  }

  /** Takes no more calls. Those that are on go on, unless `hangUp`. */
  stop(hangUp: boolean): void {
    this.state = "off";
    if (hangUp || this.calls.length === 0) this.ua.stop();
    else this.ua.unregister();
  }

  private become(state: LineState): void {
    if (this.state === "off" || this.state === state) return;
    this.state = state;
    this.changed();
  }

  private arrive(event: IncomingRTCSessionEvent | OutgoingRTCSessionEvent): void {
    const { session, request } = event;
    if (String(event.originator) !== "remote") return;
    if (this.state === "off" || this.calls.length >= AT_ONCE) {
      session.terminate({ status_code: 486, reason_phrase: "Busy Here" });
      return;
    }
    const from = session.remote_identity;
    const call = new Call(
      session,
      this.account.pbx,
      request.getHeader("X-CTI-Channel") ?? "",
      from.uri.user ?? "",
      from.display_name ?? "",
      this.account.ice_servers,
      () => {
        if (call.state === "over") {
          const at = this.calls.indexOf(call);
          if (at >= 0) this.calls.splice(at, 1);
          if (this.state === "off" && this.calls.length === 0) this.ua.stop();
        }
        this.changed();
      },
    );
    this.calls.push(call);
    this.changed();
    // the agent has asked for it themselves: an open line, a call made on the screen
    if (/answer-after=0\b/.test(request.getHeader("Call-Info") ?? "")) void call.answer().catch(() => undefined);
  }
}
