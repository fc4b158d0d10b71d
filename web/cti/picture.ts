/** What is true now for one agent: snapshot and facts folded, as docs/protocol.md says. Only what a phone shows. */

export interface Connection {
  id: string;
  device: string;
  state: string;
  since: string;
  agent: string | null;
  number: string | null;
  name: string | null;
}
export interface CallView {
  id: string;
  pbx: string;
  direction: string;
  ani: string | null;
  ani_name: string | null;
  queue: string | null;
  connections: Connection[];
}
export interface AgentView {
  agent: string;
  name: string;
  state: string;
  reason: string | null;
  since: string;
  pending: string | null;
  until: string | null;
  why: string | null;
  call: string | null;
  device: string | null;
  reachable: boolean | null;
}
/** Why an agent may be not ready. `limit`: minutes after which it has lasted too long; null: none. */
export interface Reason {
  name: string;
  paid: boolean;
  limit: number | null;
  chosen_by: string;
}
export interface Candidate {
  account: { id: number; number: string; name: string; classification: string; city: string; country: string; language: string };
  contact: { name: string; role: string } | null;
  interactions: { started: string; queue: string | null; channel: string; disposition: string | null; note: string | null }[];
  open_items: { kind: string; reference: string; subject: string; status: string; due: string | null }[];
  alerts: { severity: string; text: string }[];
}
export interface Pop {
  id: string;
  call: string;
  agent: string;
  state: string;
  number: string;
  formatted: string | null;
  withheld: boolean;
  name: string | null;
  country: string;
  queue: string | null;
  waiting_since: string | null;
  waited: number;
  lookup: string;
  candidates: Candidate[];
  consulted_by: string | null;
  transferred_by: string | null;
  data: Record<string, string>;
}
export interface Fact {
  seq?: number;
  type: string;
  at?: string;
  data?: Record<string, unknown>;
}

export class Picture {
  me = "";
  calls = new Map<string, CallView>();
  agents = new Map<string, AgentView>();
  pops = new Map<string, Pop>();
  reasons: Reason[] = [];

  show(data: Record<string, unknown>): void {
    const by = <T>(list: unknown, key: (one: T) => string): Map<string, T> =>
      new Map(((list as T[] | undefined) ?? []).map((one) => [key(one), one]));
    this.calls = by<CallView>(data["calls"], (call) => call.id);
    this.agents = by<AgentView>(data["agents"], (agent) => agent.agent);
    this.pops = by<Pop>(data["pops"], (pop) => pop.id);
    this.reasons = (data["reasons"] as Reason[] | undefined) ?? [];
  }

  fold(fact: Fact): void {
    const data = fact.data ?? {};
    if (fact.type.startsWith("call.")) this.foldCall(fact.type, data);
    else if (fact.type === "agent.state_changed") {
      const agent = this.agents.get(String(data["agent"]));
      if (agent) Object.assign(agent, data, { state: data["new"] });
    } else if (fact.type === "agent.reachability_changed") {
      const agent = this.agents.get(String(data["agent"]));
      if (agent) agent.reachable = data["reachable"] as boolean;
    } else if (fact.type === "pop.shown" || fact.type === "pop.updated") this.pops.set(String(data["pop"]), data["view"] as Pop);
    else if (fact.type === "pop.withdrawn") this.pops.delete(String(data["pop"]));
  }

  private foldCall(type: string, data: Record<string, unknown>): void {
    const id = String(data["call"]);
    if (type === "call.cleared") {
      this.calls.delete(id);
      return;
    }
    const part = data["connection"] as Connection | undefined;
    if (data["view"]) this.calls.set(id, data["view"] as CallView);
    else if (part) {
      const call = this.calls.get(id);
      if (call) {
        call.connections = call.connections.filter((one) => one.id !== part.id);
        if (part.state !== "null") call.connections.push(part);
      }
    }
    if (type === "call.merged") {
      const other = this.calls.get(String(data["merged"]));
      if (other && part) other.connections = other.connections.filter((one) => one.id !== part.id);
    }
    const call = this.calls.get(id);
    if (call && !call.connections.some((one) => one.agent === this.me)) this.calls.delete(id);
  }
}
