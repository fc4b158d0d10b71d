/** The websocket `cti.v1`: keeps the picture, resumes after breaks, asks for commands, hears orders to the phone. */

import { Picture, type Fact } from "./picture";

export class CommandFailed extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export interface Told {
  /** Something shown has changed. */
  changed(): void;
  /** Welcomed: `phone` tells whether this page is the phone. */
  welcome(phone: boolean, tabs: number): void;
  seat(phone: boolean, tabs: number): void;
  order(data: Record<string, unknown>): void;
  /** Another page is the phone now; this one is closed and does not come back by itself. */
  replaced(): void;
  /** The session is over, or this user may not be here. */
  shutOut(reason: string): void;
  /** The access is about to run out: resolves to whether it was renewed. */
  renew(): Promise<boolean>;
}

type Answer = { resolve: (data: unknown) => void; reject: (error: Error) => void };

const REPLACED = 4409;
const NOT_AUTHENTICATED = 4401;
const FOR_GOOD = new Set([4400, 4403]);

export class CtiSocket {
  readonly picture = new Picture();
  connected = false;
  /** Server time minus this computer's, in milliseconds. */
  skew = 0;
  private socket: WebSocket | null = null;
  private epoch = "";
  private seq = 0;
  private tries = 0;
  private beat = 0;
  private again = 0;
  private numbered = 0;
  private wanted = false;
  private readonly answers = new Map<string, Answer>();
  private readonly mark = Math.random().toString(36).slice(2, 10);

  constructor(
    private readonly phone: () => boolean,
    private readonly told: Told,
  ) {}

  start(): void {
    this.wanted = true;
    this.connect();
  }

  stop(): void {
    this.wanted = false;
    clearTimeout(this.again);
    this.drop(this.socket);
    this.socket = null;
    this.connected = false;
  }

  /** A new connection in place of this one, without a moment in between: with a fresh cookie, or to become the phone. */
  renewConnection(): void {
    if (this.wanted) this.connect();
  }

  ask(op: string, args: Record<string, unknown> = {}, within = 30_000): Promise<unknown> {
    const socket = this.socket;
    if (!socket || !this.connected) return Promise.reject(new CommandFailed("not_connected", "There is no connection to the server."));
    const id = `${this.mark}-${++this.numbered}`;
    return new Promise((resolve, reject) => {
      const late = window.setTimeout(() => {
        this.answers.delete(id);
        reject(new CommandFailed("timed_out", "The server has not answered."));
      }, within);
      this.answers.set(id, {
        resolve: (data) => (clearTimeout(late), resolve(data)),
        reject: (error) => (clearTimeout(late), reject(error)),
      });
      socket.send(JSON.stringify({ op, id, args }));
    });
  }

  private connect(): void {
    clearTimeout(this.again);
    const former = this.socket;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`, ["cti.v1"]);
    if (!former) this.socket = socket;
    socket.onopen = () => {
      const hello: Record<string, unknown> = { op: "hello", id: "hello", phone: this.phone(), client: "phone page" };
      if (this.epoch) hello["resume"] = { epoch: this.epoch, seq: this.seq };
      socket.send(JSON.stringify(hello));
    };
    socket.onmessage = (event) => {
      const frame = JSON.parse(String(event.data)) as Record<string, unknown>;
      if (frame["type"] === "welcome" && this.socket !== socket) {
        const old = this.socket;
        this.socket = socket;
        this.drop(old);
      }
      if (this.socket === socket) this.hear(frame);
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.closed(event.code, event.reason);
      else if (this.wanted && !this.socket) this.later();
    };
  }

  private drop(socket: WebSocket | null): void {
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  private hear(frame: Record<string, unknown>): void {
    const data = (frame["data"] ?? {}) as Record<string, unknown>;
    switch (frame["type"]) {
      case "welcome": {
        this.epoch = String(frame["epoch"]);
        this.connected = true;
        this.tries = 0;
        this.picture.me = (frame["agent"] as { login: string }).login;
        this.skew = Date.parse((frame["server"] as { time: string }).time) - Date.now();
        this.keepAlive(Number(frame["heartbeat"]) * 1000);
        this.told.welcome(Boolean(frame["phone"]), Number(frame["tabs"]));
        break;
      }
      case "snapshot":
        this.seq = Number(frame["seq"]);
        this.picture.show(data);
        this.told.changed();
        break;
      case "result": {
        const answer = this.answers.get(String(frame["id"]));
        this.answers.delete(String(frame["id"]));
        const fault = frame["error"] as { code: string; message: string } | undefined;
        if (frame["ok"]) answer?.resolve(frame["data"]);
        else answer?.reject(new CommandFailed(fault?.code ?? "failed", fault?.message ?? "It did not work."));
        break;
      }
      case "seat":
        this.told.seat(Boolean(data["phone"]), Number(data["tabs"]));
        break;
      case "phone":
        this.told.order(data);
        break;
      case "token_expiring":
        void this.told.renew().then((renewed) => renewed && this.renewConnection(), () => undefined);
        break;
      default:
        if (typeof frame["seq"] === "number") {
          this.seq = frame["seq"];
          this.picture.fold(frame as unknown as Fact);
          this.told.changed();
        }
    }
  }

  private keepAlive(every: number): void {
    clearInterval(this.beat);
    this.beat = window.setInterval(() => {
      this.ask("ping", {}, 8000).catch(() => this.connected && this.socket?.close(4000));
    }, every);
  }

  private closed(code: number, reason: string): void {
    clearInterval(this.beat);
    this.connected = false;
    this.socket = null;
    for (const answer of this.answers.values())
      answer.reject(new CommandFailed("not_connected", "The connection to the server broke off: look whether it was done."));
    this.answers.clear();
    if (!this.wanted) return;
    this.told.changed();
    if (code === REPLACED) this.told.replaced();
    else if (FOR_GOOD.has(code)) this.told.shutOut(reason || "The server has closed this page.");
    else if (code === NOT_AUTHENTICATED)
      this.told.renew().then(
        (renewed) => (renewed ? this.connect() : this.told.shutOut("Your session has ended: log in again.")),
        () => this.later(),
      );
    else this.later();
  }

  private later(): void {
    clearTimeout(this.again);
    const pause = Math.min(5000, 400 * 2 ** this.tries++) * (0.75 + Math.random() / 2);
    this.again = window.setTimeout(() => this.connect(), pause);
  }
}
