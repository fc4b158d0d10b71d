/** The agent's phone in this page: its lines, its calls, and the orders that the server gives. */

import { NoMicrophone } from "./devices";
import { Line, type Account } from "./line";
import type { Call } from "./call";

const ARRIVES = 1500; // ms

export interface Order {
  order: string;
  do: "answer" | "mute" | "unmute" | "retrieve";
  connection: string;
  /** Server's time after which it is not to be done any more: a page that was asleep answers nobody by surprise. */
  until: string;
}

/** Why an order could not be carried out: `code` as in docs/protocol.md. */
export class Undone extends Error {
  constructor(
    readonly code: "no_such_call" | "no_microphone" | "failed",
    message: string,
  ) {
    super(message);
  }
}

export class Phone {
  lines: Line[] = [];

  constructor(private readonly changed: () => void) {}

  open(accounts: Account[]): void {
    this.lines = accounts.map((account) => new Line(account, this.changed));
    for (const line of this.lines) line.start();
  }

  /** Is no phone any more; calls that are on go on to their end unless `hangUp`. */
  close(hangUp: boolean): void {
    for (const line of this.lines) line.stop(hangUp);
    if (hangUp) this.lines = [];
  }

  get calls(): Call[] {
    return this.lines.flatMap((line) => line.calls);
  }

  get registered(): string[] {
    return this.lines.filter((line) => line.state === "registered").map((line) => line.account.pbx);
  }

  /** Carries out what the server wishes; raises Undone. */
  async carryOut(order: Order): Promise<void> {
    const call = await this.soon(order);
    try {
      if (order.do === "answer") await call.answer();
      else if (order.do === "retrieve") await call.holdHere(false);
      else call.mute(order.do === "mute");
    } catch (error) {
      if (error instanceof NoMicrophone) throw new Undone("no_microphone", error.problem);
      throw new Undone("failed", error instanceof Error ? error.message : "it did not work");
    }
  }

  /** The call that is meant. The server may hear of it a moment before this phone does. */
  private async soon(order: Order): Promise<Call> {
    for (let waited = 0; ; waited += 50) {
      try {
        return this.find(order);
      } catch (error) {
        if (waited >= ARRIVES) throw error;
        await new Promise((later) => setTimeout(later, 50));
      }
    }
  }

  private find(order: Order): Call {
    const pbx = order.connection.split(":", 1)[0] ?? "";
    const named = this.calls.find((call) => call.channel !== "" && `${call.pbx}:${call.channel}` === order.connection);
    if (named) return named;
    const wanted = order.do === "answer" ? "ringing" : "talking";
    const might = this.calls.filter((call) => call.pbx === pbx && call.state === wanted && call.channel === "");
    const only = might[0];
    if (!only || might.length > 1) throw new Undone("no_such_call", `this phone has no such ${wanted} call`);
    return only;
  }
}
