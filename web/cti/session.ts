/** Logging in with cookies: this page never holds a token. Two tabs never refresh at the same moment. */

export interface Fault {
  code: string;
  detail: string;
}

export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

const WAS_HERE = "cti.session"; // no secret: somebody has logged in here, so it is worth asking

async function ask(method: string, path: string, body?: unknown): Promise<unknown> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, "unreachable", "The server cannot be reached.");
  }
  if (answer.status === 204) return null;
  const told: unknown = await answer.json().catch(() => null);
  if (!answer.ok) {
    const fault = (told ?? {}) as Partial<Fault>;
    throw new Refused(answer.status, fault.code ?? "failed", fault.detail ?? `The server said ${answer.status}.`);
  }
  return told;
}

export async function get<T>(path: string): Promise<T> {
  return (await ask("GET", path)) as T;
}

export async function logIn(login: string, password: string): Promise<void> {
  await ask("POST", "/api/v1/sessions", { login, password, cookie: true });
  localStorage.setItem(WAS_HERE, "1");
}

export async function logOut(): Promise<void> {
  localStorage.removeItem(WAS_HERE);
  await ask("POST", "/api/v1/sessions/log-out", {});
}

/** Whether somebody is logged in in this browser. Takes up the session if only its access has run out. */
export async function loggedIn(): Promise<boolean> {
  if (!localStorage.getItem(WAS_HERE)) return false;
  try {
    await ask("GET", "/api/v1/me");
    return true;
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
    return renewed(true);
  }
}

/** Gets the next access; false when the session is over. */
export async function renewed(unlessDone = false): Promise<boolean> {
  const renew = async (): Promise<boolean> => {
    try {
      if (unlessDone) {
        try {
          await ask("GET", "/api/v1/me");
          return true;
        } catch {
          // as expected
        }
      }
      await ask("POST", "/api/v1/sessions/refresh", {});
      return true;
    } catch (error) {
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) return false;
      throw error;
    }
  };
  return navigator.locks ? navigator.locks.request("cti.refresh", renew) : renew();
}
