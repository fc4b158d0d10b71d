/** The page /phone: an agent's phone in the browser, with the customer beside it. */

import { CommandFailed, CtiSocket } from "../cti/socket";
import { get, loggedIn, logIn, logOut, Refused, renewed } from "../cti/session";
import type { AgentView, CallView, Connection, Pop, Reason } from "../cti/picture";
import * as devices from "../phone/devices";
import type { Account } from "../phone/line";
import { Phone, Undone, type Order } from "../phone/phone";
import type { Call } from "../phone/call";
import { Ringer } from "../phone/ringer";
import { chip, clock, day, el, fill, make, outside, say } from "./show";

const STATES: Record<string, [string, "" | "good" | "warn" | "bad"]> = {
  logged_off: ["Logged off", ""],
  not_ready: ["Not ready", "warn"],
  ready: ["Ready", "good"],
  reserved: ["A call is coming", "good"],
  busy: ["In a call", "good"],
  wrap_up: ["Wrap-up", "warn"],
  unknown: ["Not known", "bad"],
};

const MICROPHONE: Record<devices.MicrophoneProblem, string> = {
  not_secure: "Browsers give a microphone only to pages from https:// or from this computer itself. Open this page under its https address.",
  no_permission: "This page may not use the microphone. Allow it beside the address of the page, then try again.",
  no_microphone: "No microphone was found. Plug one in, then try again.",
  microphone_busy: "The microphone cannot be used: another program has it. Close that one, then try again.",
};

interface Trouble {
  text: string;
  mild?: boolean;
  action?: { name: string; do: () => void };
}

class Page {
  private readonly ringer = new Ringer();
  private readonly phone = new Phone(() => this.phoneChanged());
  private readonly socket = new CtiSocket(() => this.claims, {
    changed: () => this.render(),
    welcome: (phone) => this.welcomed(phone),
    seat: (phone) => this.seated(phone),
    order: (data) => void this.obey(data as unknown as Order),
    replaced: () => this.replaced(),
    shutOut: (reason) => void this.backToLogIn(reason),
    renew: () => renewed(),
  });
  private accounts: Account[] = [];
  private claims = false;
  private isPhone = false;
  private elsewhere = false;
  private microphoneTrouble: devices.MicrophoneProblem | null = null;
  private accountTrouble = "";
  private told = "";
  private lastProblem = "";
  private problemTimer = 0;
  private busy = false;
  private reported = "";
  private letGoOfTab: (() => void) | null = null;

  async start(): Promise<void> {
    this.wire();
    try {
      if (await loggedIn()) return await this.openDesk();
      this.showLogIn("");
    } catch (error) {
      this.showLogIn(error instanceof Error ? error.message : "The server cannot be reached.");
    }
  }

  // ------------------------------------------------------------------------------------------ coming and going

  private showLogIn(trouble: string): void {
    el("desk").hidden = true;
    el("log-in").hidden = false;
    el("log-in-trouble").hidden = trouble === "";
    say("log-in-trouble", trouble);
    document.title = "Phone";
    el<HTMLInputElement>("login").focus();
  }

  private async openDesk(): Promise<void> {
    el("log-in").hidden = true;
    el("desk").hidden = false;
    this.elsewhere = false;
    await this.becomePhone(false);
    this.socket.start();
    this.render();
  }

  /** Becomes the phone, unless another tab of this browser is; `anyway` takes it from that one. */
  private async becomePhone(anyway: boolean): Promise<void> {
    this.claims = await this.takeTab(anyway);
    this.elsewhere = !this.claims;
    if (!this.claims) return;
    await this.checkMicrophone();
    await this.openLines();
  }

  private takeTab(anyway: boolean): Promise<boolean> {
    if (!navigator.locks) return Promise.resolve(true);
    return new Promise((resolve) => {
      const held = (lock: Lock | null): Promise<void> | void => {
        if (!lock) return resolve(false);
        resolve(true);
        return new Promise((free) => (this.letGoOfTab = free));
      };
      const options: LockOptions = anyway ? { steal: true } : { ifAvailable: true };
      navigator.locks.request("cti.phone", options, held).catch(() => undefined); // stolen: the server says 4409
    });
  }

  private async openLines(): Promise<void> {
    this.accountTrouble = "";
    if (this.microphoneTrouble || this.phone.lines.length > 0) return;
    try {
      this.accounts = (await get<{ phones: Account[] }>("/api/v1/me/phone")).phones;
      this.phone.open(this.accounts);
    } catch (error) {
      this.accountTrouble = error instanceof Refused ? error.message : "The phone could not be set up.";
    }
    this.report();
    this.render();
  }

  private async checkMicrophone(): Promise<void> {
    try {
      await devices.tryMicrophone();
      this.microphoneTrouble = null;
      await this.listDevices();
    } catch (error) {
      this.microphoneTrouble = error instanceof devices.NoMicrophone ? error.problem : "no_microphone";
    }
    this.report();
    this.render();
  }

  private replaced(): void {
    this.giveUpPhone();
    this.elsewhere = true;
    this.socket.start(); // goes on as an ordinary client: sees what happens
    this.render();
  }

  private giveUpPhone(): void {
    this.claims = this.isPhone = false;
    this.letGoOfTab?.();
    this.letGoOfTab = null;
    this.phone.close(false);
    this.reported = "";
  }

  private async useHere(): Promise<void> {
    this.phone.lines = this.phone.lines.filter((line) => line.calls.length > 0);
    await this.becomePhone(true);
    this.socket.renewConnection();
    this.render();
  }

  private async leave(): Promise<void> {
    if (this.phone.calls.length > 0 && !window.confirm("You are in a call. Hang up and leave?")) return;
    try {
      await logOut();
    } catch {
      // the session ends by itself
    }
    await this.backToLogIn("");
  }

  private async backToLogIn(reason: string): Promise<void> {
    this.socket.stop();
    this.giveUpPhone();
    this.phone.close(true);
    this.ringer.stop();
    this.told = "";
    this.showLogIn(reason);
  }

  private welcomed(phone: boolean): void {
    this.reported = "";
    this.seated(phone);
  }

  private seated(phone: boolean): void {
    this.isPhone = phone && this.claims;
    this.report();
    this.render();
  }

  // ------------------------------------------------------------------------------------------ the phone

  private phoneChanged(): void {
    const ringing = this.phone.calls.some((call) => call.state === "ringing");
    if (ringing) this.ringer.start();
    else this.ringer.stop();
    for (const call of this.phone.calls) if (call.trouble) this.complain(call.trouble);
    this.report();
    this.render();
  }

  private get problem(): string | null {
    if (this.microphoneTrouble) return this.microphoneTrouble;
    const states = this.phone.lines.map((line) => line.state);
    if (states.includes("refused")) return "refused_by_pbx";
    if (states.includes("unreachable")) return "pbx_unreachable";
    return null;
  }

  /** Tells the server how the phone is, when that has changed. */
  private report(): void {
    if (!this.isPhone || !this.socket.connected) return;
    const args = { registered: this.phone.registered, in_call: this.phone.calls.length > 0, problem: this.problem };
    const text = JSON.stringify(args);
    if (text === this.reported) return;
    this.reported = text;
    this.socket.ask("phone.state", args).catch(() => undefined);
  }

  private async obey(order: Order): Promise<void> {
    if (Date.parse(order.until) < Date.now() + this.socket.skew) return;
    const done: Record<string, unknown> = { order: order.order };
    try {
      await this.phone.carryOut(order);
    } catch (error) {
      done["code"] = error instanceof Undone ? error.code : "failed";
      if (done["code"] === "no_microphone") await this.checkMicrophone();
    }
    this.socket.ask("phone.done", done).catch(() => undefined);
  }

  // ------------------------------------------------------------------------------------------ what is pressed

  private wire(): void {
    el<HTMLFormElement>("log-in").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.logIn();
    });
    const press = (id: string, action: () => void): void => el(id).addEventListener("click", action);
    press("answer", () => void this.answer());
    press("hang-up", () => void this.hangUp());
    press("hold", () => void this.hold());
    press("mute", () => this.current()?.mute(!this.current()?.muted));
    press("keys", () => this.toggleKeypad());
    press("ready", () => void this.work());
    press("log-off", () => void this.command("agent.log_off"));
    press("leave", () => void this.leave());
    el("dial").addEventListener("submit", (event) => {
      event.preventDefault();
      const to = el<HTMLInputElement>("to");
      void this.command("call.make", { to: to.value.trim() }).then((done) => done && (to.value = ""));
    });
    el("reason").addEventListener("change", () => {
      const reason = el<HTMLSelectElement>("reason");
      if (reason.value) void this.command("agent.not_ready", { reason: reason.value });
      reason.value = "";
    });
    for (const digit of "123456789*0#") {
      const key = make("button", digit);
      key.type = "button";
      key.setAttribute("aria-label", digit === "*" ? "star" : digit === "#" ? "hash" : digit);
      key.addEventListener("click", () => this.current()?.tone(digit));
      el("keypad").append(key);
    }
    el("keypad").addEventListener("keydown", (event) => {
      if (/^[0-9*#]$/.test(event.key)) this.current()?.tone(event.key);
      if (event.key === "Escape") this.toggleKeypad();
    });
    for (const [id, kind] of [["microphone", "audioinput"], ["speaker", "audiooutput"]] as const)
      el<HTMLSelectElement>(id).addEventListener("change", (event) => {
        devices.choose(kind, (event.target as HTMLSelectElement).value);
        for (const call of this.phone.calls)
          void (kind === "audioinput" ? call.changeMicrophone() : call.changeSpeaker()).catch(() => void this.checkMicrophone());
      });
    navigator.mediaDevices?.addEventListener("devicechange", () => void this.listDevices());
    for (const touch of ["pointerdown", "keydown"]) document.addEventListener(touch, () => this.ringer.wake(), { passive: true });
    window.addEventListener("beforeunload", (event) => {
      if (this.phone.calls.some((call) => call.state === "talking")) event.preventDefault();
    });
    setInterval(() => this.tick(), 500);
  }

  private async logIn(): Promise<void> {
    const login = el<HTMLInputElement>("login"), password = el<HTMLInputElement>("password");
    const button = el("log-in").querySelector("button") as HTMLButtonElement;
    button.disabled = true;
    this.ringer.wake();
    try {
      await logIn(login.value.trim(), password.value);
      password.value = "";
      await this.openDesk();
    } catch (error) {
      this.showLogIn(error instanceof Error ? error.message : "That did not work.");
      password.select();
    } finally {
      button.disabled = false;
    }
  }

  private async answer(): Promise<void> {
    const call = this.phone.calls.find((one) => one.state === "ringing");
    if (!call) return;
    try {
      await call.answer();
      this.complain("");
    } catch (error) {
      if (error instanceof devices.NoMicrophone) await this.checkMicrophone();
      else if (call.state !== "over") this.complain(`The call could not be answered: ${error instanceof Error ? error.message : "no reason given"}.`);
    }
  }

  /** By the phone itself: works while the server is away too. A call on an open line ends, and the line stays. */
  private async hangUp(): Promise<void> {
    const own = this.current(), shown = this.shownCall();
    if (own && !(own.isOpenLine && shown && this.socket.connected)) own.hangUp();
    else if (shown) await this.command("call.hangup", { call: shown.id });
  }

  /** By the server, so that everybody sees it and transfers go from there; by the phone itself while that is away. */
  private async hold(): Promise<void> {
    const own = this.current(), shown = this.shownCall();
    if (own?.heldHere) await this.holdHere(false);
    else if (this.socket.connected && shown) await this.command(this.isHeld(shown) ? "call.retrieve" : "call.hold", { call: shown.id });
    else await this.holdHere(true);
  }

  private async work(): Promise<void> {
    const state = this.agent()?.state;
    if (state === "wrap_up") await this.command("agent.finish_wrap_up");
    else if (state === "logged_off") await this.command("agent.log_on", { ready: true });
    else await this.command("agent.ready");
  }

  private async command(op: string, args: Record<string, unknown> = {}): Promise<boolean> {
    this.busy = true;
    this.render();
    try {
      await this.socket.ask(op, args);
      this.complain("");
      return true;
    } catch (error) {
      this.complain(error instanceof CommandFailed ? sentence(error.message) : "That did not work.");
      return false;
    } finally {
      this.busy = false;
      this.render();
    }
  }

  private complain(text: string): void {
    this.lastProblem = text;
    clearTimeout(this.problemTimer);
    if (text)
      this.problemTimer = window.setTimeout(() => {
        this.lastProblem = "";
        this.render();
      }, 12_000);
    this.render();
  }

  private toggleKeypad(): void {
    const pad = el("keypad");
    pad.hidden = !pad.hidden;
    el("keys").setAttribute("aria-expanded", String(!pad.hidden));
    if (pad.hidden) el("keys").focus();
    else (pad.firstElementChild as HTMLElement).focus();
  }

  // ------------------------------------------------------------------------------------------ what is shown

  private agent(): AgentView | undefined {
    return this.socket.picture.agents.get(this.socket.picture.me);
  }

  private current(): Call | undefined {
    return this.phone.calls.find((call) => call.state !== "ringing") ?? this.phone.calls[0];
  }

  private mine(call: CallView): Connection | undefined {
    return call.connections.find((one) => one.agent === this.socket.picture.me);
  }

  /** The call as the server sees it: the one of this phone, else the one this agent is in. */
  private shownCall(): CallView | undefined {
    const own = this.current();
    const calls = [...this.socket.picture.calls.values()].filter((call) => this.mine(call));
    return calls.find((call) => own?.channel && this.mine(call)?.id === `${own.pbx}:${own.channel}`) ?? calls[0];
  }

  private other(call: CallView): Connection | undefined {
    return call.connections.find((one) => one.agent !== this.socket.picture.me);
  }

  private isHeld(call: CallView): boolean {
    const others = call.connections.filter((one) => one.agent !== this.socket.picture.me);
    return others.length > 0 && others.every((one) => one.state === "hold");
  }

  private popOf(call: CallView | undefined): Pop | undefined {
    const pops = [...this.socket.picture.pops.values()].filter((pop) => pop.agent === this.socket.picture.me);
    if (call) return pops.find((pop) => pop.call === call.id);
    return this.agent()?.state === "wrap_up" ? pops.filter((pop) => pop.state === "ended").at(-1) : undefined;
  }

  private render(): void {
    if (el("desk").hidden) return;
    const agent = this.agent(), own = this.current(), call = this.shownCall(), pop = this.popOf(call);
    say("me", outside(agent?.name) || this.socket.picture.me);
    this.renderTroubles();
    this.renderLine();
    this.renderWork(agent);
    this.renderCall(own, call, pop);
    this.renderCustomer(pop);
    this.tick();
  }

  private renderLine(): void {
    const states = this.phone.lines.map((line) => line.state);
    if (this.elsewhere) chip("line", "Not the phone", "");
    else if (this.microphoneTrouble || this.accountTrouble || states.includes("refused")) chip("line", "Phone off", "bad");
    else if (states.includes("unreachable")) chip("line", "PBX not reachable", "bad");
    else if (states.length > 0 && states.every((state) => state === "registered")) chip("line", "You are the phone", "good");
    else chip("line", "Connecting …", "warn");
  }

  private renderTroubles(): void {
    const troubles: Trouble[] = [];
    if (!this.socket.connected)
      troubles.push({ text: "No connection to the server: what is shown may be old. It is tried again; calls can be answered.", mild: true });
    if (this.elsewhere)
      troubles.push({ text: "Another tab is the phone now.", mild: true, action: { name: "Be the phone here", do: () => void this.useHere() } });
    else if (this.microphoneTrouble)
      troubles.push({
        text: MICROPHONE[this.microphoneTrouble],
        action: { name: "Try again", do: () => void this.checkMicrophone().then(() => this.openLines()) },
      });
    else if (this.accountTrouble)
      troubles.push({ text: sentence(this.accountTrouble), action: { name: "Try again", do: () => void this.openLines() } });
    for (const line of this.elsewhere ? [] : this.phone.lines) {
      if (line.state === "unreachable")
        troubles.push({ text: `The PBX ${line.account.pbx} cannot be reached from this computer. It is tried again all the time.` });
      if (line.state === "refused")
        troubles.push({ text: `The PBX ${line.account.pbx} does not take this phone's password. An administrator has to set it anew.` });
    }
    if (this.lastProblem) troubles.push({ text: this.lastProblem, mild: true });
    const text = JSON.stringify(troubles.map((trouble) => trouble.text));
    if (text === this.told) return;
    this.told = text;
    el("troubles").replaceChildren(
      ...troubles.map((trouble) => {
        const shown = make("div", "", trouble.mild ? "trouble mild" : "trouble");
        shown.append(make("span", outside(trouble.text)));
        if (trouble.action) {
          const button = make("button", trouble.action.name);
          button.type = "button";
          button.addEventListener("click", trouble.action.do);
          shown.append(button);
        }
        return shown;
      }),
    );
  }

  private renderWork(agent: AgentView | undefined): void {
    const [name, tone] = STATES[agent?.state ?? "unknown"] ?? ["", ""];
    const more = agent?.reason && agent.state === "not_ready" ? `: ${outside(agent.reason)}` : "";
    const pending = agent?.pending ? ` (then ${outside(agent.pending).replace("_", " ")})` : "";
    chip("state", `${name}${more}${pending}`, tone);
    const ready = el<HTMLButtonElement>("ready");
    say("ready", agent?.state === "wrap_up" ? "Done" : agent?.state === "logged_off" ? "Log on" : "Ready");
    ready.hidden = !["logged_off", "not_ready", "wrap_up"].includes(agent?.state ?? "") && !agent?.pending;
    ready.disabled = this.busy || !this.socket.connected;
    el("log-off").hidden = !agent || agent.state === "logged_off";
    const reason = el<HTMLSelectElement>("reason");
    reason.hidden = !agent || agent.state === "logged_off";
    reason.disabled = !this.socket.connected;
    const reasons = this.socket.picture.reasons.filter((one) => one.chosen_by === "agents");
    if (reasons.length === 0) reasons.push({ name: "Break", paid: true, limit: null, chosen_by: "agents" }); // any text is one
    const choice: [string, string][] = [["", "Not ready …"], ...reasons.map((one): [string, string] => [one.name, menuEntry(one)])];
    const written = JSON.stringify(choice);
    if (reason.dataset["choice"] === written) return;
    reason.dataset["choice"] = written;
    reason.replaceChildren(
      ...choice.map(([value, text]) => {
        const option = make("option", text);
        option.value = value;
        return option;
      }),
    );
  }

  private renderCall(own: Call | undefined, call: CallView | undefined, pop: Pop | undefined): void {
    const ringing = own?.state === "ringing";
    const held = Boolean(own?.heldHere || (call && this.isHeld(call)));
    const open = own?.isOpenLine && !call; // the line alone is no call
    const name = this.callerName(own, call, pop);
    el("call").classList.toggle("ringing", ringing);
    say("call-title", open ? (own.state === "talking" ? "Your line is open" : "Your line is being opened") : own || call ? name : pop ? `Over: ${name}` : "No call");
    say("number", !open && (own || call || pop) ? this.callerNumber(own, call, pop) : "");
    say("facts", this.facts(call, pop));
    const show = (id: string, wanted: boolean): void => {
      const button = el<HTMLButtonElement>(id);
      const focused = document.activeElement === button;
      button.hidden = !wanted;
      if (focused && !wanted) (el<HTMLButtonElement>("hang-up").hidden ? el("to") : el("hang-up")).focus();
    };
    const talking = own?.state === "talking";
    show("answer", Boolean(ringing || (own?.state === "answering" && !open)));
    el<HTMLButtonElement>("answer").disabled = own?.state === "answering";
    show("hang-up", Boolean(own || (call && this.mine(call))));
    say("hang-up", ringing ? "Decline" : open ? "Close the line" : "Hang up");
    show("hold", Boolean(talking && (call || !this.socket.connected)));
    say("hold", held ? "Retrieve" : "Hold");
    el("hold").classList.toggle("on", held);
    el<HTMLButtonElement>("hold").disabled = this.busy;
    show("mute", Boolean(talking));
    say("mute", own?.muted ? "Unmute" : "Mute");
    el("mute").classList.toggle("on", Boolean(own?.muted));
    show("keys", Boolean(talking && !open));
    el("actions").hidden = !own && !call;
    if (!talking && !el("keypad").hidden) {
      el("keypad").hidden = true;
      el("keys").setAttribute("aria-expanded", "false");
    }
    say("announce", ringing ? `Call from ${name}` : "");
    if (ringing && document.activeElement === document.body) el("answer").focus();
    el("dial").hidden = Boolean((own && !open) || call) || this.elsewhere;
    say("hint", this.hint(own, call));
    document.title = ringing ? `\u260E ${name}` : open ? "Line open" : own ? `In a call: ${name}` : "Phone";
  }

  private hint(own: Call | undefined, call: CallView | undefined): string {
    if (own?.isOpenLine && !call) return own.state === "talking" ? "Callers are with you after a beep. Keep this tab open." : "";
    if (own || call) return call && !own && this.mine(call)?.state === "alerting" && !this.elsewhere ? "Your phone rings elsewhere." : "";
    const state = this.agent()?.state;
    if (state === "logged_off") return "Log on to be offered the calls of your queues.";
    if (state === "ready") return "Calls ring here. Keep this tab open.";
    return "";
  }

  private callerName(own: Call | undefined, call: CallView | undefined, pop: Pop | undefined): string {
    const first = pop?.candidates[0];
    const known = first ? first.contact?.name || first.account.name : "";
    const told = call && call.direction !== "inbound" ? this.other(call)?.name : call?.ani_name; // in a call made here the caller is the agent
    const byPhone = own?.isOpenLine || call?.direction === "outbound" ? "" : own?.name;
    return outside(known || pop?.name || told || byPhone) || (pop?.withheld ? "Number withheld" : this.callerNumber(own, call, pop)) || "Unknown";
  }

  private callerNumber(own: Call | undefined, call: CallView | undefined, pop: Pop | undefined): string {
    if (pop?.withheld) return "Number withheld";
    return outside(pop?.formatted || pop?.number || (call?.direction === "inbound" ? call.ani : call && this.other(call)?.number) || (own?.isOpenLine ? "" : own?.number));
  }

  private facts(call: CallView | undefined, pop: Pop | undefined): string {
    const told: string[] = [];
    const queue = pop?.queue ?? call?.queue;
    if (queue) told.push(`Queue ${outside(queue.split(":").slice(1).join(":"))}`);
    if (pop && pop.waited >= 1) told.push(`waited ${clock(pop.waited)}`);
    if (pop?.transferred_by) told.push(`handed on by ${outside(pop.transferred_by)}`);
    if (pop?.consulted_by) told.push(`${outside(pop.consulted_by)} asks you`);
    const said = Object.entries(pop?.data ?? {}).filter(([name]) => !name.startsWith("CTI_"));
    for (const [name, value] of said.slice(0, 4)) told.push(`${outside(name)}: ${outside(value).slice(0, 80)}`);
    return told.join(" · ");
  }

  private renderCustomer(pop: Pop | undefined): void {
    const first = pop?.candidates[0];
    el("customer").hidden = !first;
    document.querySelector("main")?.classList.toggle("two", Boolean(first));
    if (!pop || !first) return;
    const account = outside(first.account.name);
    say("customer-title", account === el("call-title").textContent ? "Customer" : account);
    const about = [
      first.account.classification && `Class ${first.account.classification}`,
      first.contact && [first.contact.name, first.contact.role].filter(Boolean).join(", "),
      first.account.city,
      first.account.number,
      pop.candidates.length > 1 && `one of ${pop.candidates.length} who may be calling`,
    ];
    say("customer-about", outside(about.filter(Boolean).join(" · ")));
    fill("alerts", first.alerts.map((alert) => ({ text: outside(alert.text), className: alert.severity })));
    fill(
      "open",
      first.open_items.slice(0, 4).map((item) => ({
        text: outside(`${item.kind} ${item.reference}: ${item.subject}${item.due ? `, due ${day(item.due)}` : ""}`),
      })),
      "open-title",
    );
    fill(
      "before",
      first.interactions.slice(0, 3).map((one) => ({
        text: outside([day(one.started), one.disposition ?? one.channel, one.note].filter(Boolean).join(" · ")),
      })),
      "before-title",
    );
  }

  /** What only time changes. */
  private tick(): void {
    if (el("desk").hidden) return;
    const own = this.current(), call = this.shownCall(), agent = this.agent();
    const mine = call && this.mine(call);
    let text = "";
    if (own?.isOpenLine && !call) text = "";
    else if (own?.talkingSince && !own.isOpenLine) text = clock((Date.now() - own.talkingSince) / 1000);
    else if (mine?.state === "connected" || mine?.state === "hold")
      text = clock((Date.now() + this.socket.skew - Date.parse(mine.since)) / 1000);
    else if (own) text = "rings";
    else if (agent?.state === "wrap_up" && agent.until) text = clock((Date.parse(agent.until) - Date.now() - this.socket.skew) / 1000);
    const held = own?.heldHere || (mine && this.isHeld(call));
    say("timer", held ? `on hold ${text}` : text);
    this.tickPause(agent);
  }

  /** How long somebody has been not ready, whether that is paid, and what is left of it. Said aloud once: when it is over. */
  private tickPause(agent: AgentView | undefined): void {
    const pause = el("pause");
    pause.hidden = agent?.state !== "not_ready";
    if (agent?.state !== "not_ready") return say("pause-over", "");
    const reason = this.socket.picture.reasons.find((one) => one.name === agent.reason);
    const lasted = Math.max(0, (Date.now() + this.socket.skew - Date.parse(agent.since)) / 1000);
    const limit = reason?.limit ? reason.limit * 60 : null;
    const over = limit !== null && lasted > limit;
    const name = outside(agent.reason) || "Not ready";
    let time = `for ${clock(lasted)}`;
    if (limit !== null) time = `${clock(lasted)} of ${clock(limit)}, ${over ? `${clock(lasted - limit)} too long` : `${clock(Math.ceil(limit) - Math.floor(lasted))} left`}`;
    say("pause", [name, reason && (reason.paid ? "paid" : "unpaid"), time].filter(Boolean).join(" · "));
    pause.classList.toggle("over", over);
    say("pause-over", over ? `${name} has lasted longer than ${clock(limit)}` : "");
  }

  private async listDevices(): Promise<void> {
    for (const [id, kind] of [["microphone", "audioinput"], ["speaker", "audiooutput"]] as const) {
      const select = el<HTMLSelectElement>(id);
      const found = kind === "audiooutput" && !devices.speakerCanBeChosen() ? [] : await devices.list(kind);
      select.replaceChildren(
        ...[{ deviceId: "", label: "As the computer has it" }, ...found].map((device) => {
          const option = make("option", outside(device.label) || "Unnamed");
          option.value = device.deviceId;
          return option;
        }),
      );
      const wanted = devices.chosen(kind);
      select.value = found.some((device) => device.deviceId === wanted) ? wanted : "";
      select.disabled = found.length === 0;
    }
  }

  /** Hold at the phone itself, as while the server is away. */
  async holdHere(held: boolean): Promise<void> {
    try {
      await this.current()?.holdHere(held);
    } catch (error) {
      this.complain(sentence(error instanceof Error ? error.message : "that did not work"));
    }
  }

  /** For whoever looks after the sound: bytes received and sent by the call that is on. */
  async traffic(): Promise<{ received: number; sent: number } | null> {
    return (await this.current()?.traffic()) ?? null;
  }
}

/** A reason as the menu offers it: with what it costs and how long it may be. */
function menuEntry(reason: Reason): string {
  const limit = reason.limit ? `${reason.limit} min` : "";
  const more = [reason.paid ? "" : "unpaid", limit].filter(Boolean).join(", ");
  return outside(more ? `${reason.name} (${more})` : reason.name);
}

/** A message as a sentence of its own. */
function sentence(text: string): string {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

const page = new Page();
Object.assign(window, { ctiPhoneTraffic: () => page.traffic(), ctiPhoneHold: (held: boolean) => page.holdHere(held) });
void page.start();
