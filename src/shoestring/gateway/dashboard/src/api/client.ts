/** The gateway's dashboard API, one function a request. Addresses are relative to the page. */

import type { CreatedKey, Key, NewKey, Outcome, Overview, SessionKey } from "./contract";
import { errorOf, LostError, textOf } from "./errors";

const LIMIT_MS = 10_000;
export const OURS = { "X-Requested-With": "shoestring" }; // a foreign page cannot send it

export interface Api {
  readonly session: (signal: AbortSignal) => Promise<SessionKey>;
  readonly signIn: (key: string) => Promise<unknown>;
  readonly signOut: () => Promise<unknown>;
  readonly overview: (signal: AbortSignal) => Promise<Overview>;
  readonly keys: (signal: AbortSignal) => Promise<readonly Key[]>;
  readonly createKey: (asked: NewKey) => Promise<CreatedKey>;
  readonly revokeKey: (id: string) => Promise<unknown>;
  readonly requests: (signal: AbortSignal) => Promise<readonly Outcome[]>;
}

export function apiOver(fetcher: typeof fetch): Api {
  const read = async (path: string, signal: AbortSignal): Promise<unknown> => {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(LIMIT_MS)]);
    return (await answered(fetcher, path, { signal: limited })).json();
  };
  const change = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    const response = await answered(fetcher, path, {
      method,
      headers: { ...OURS, "Content-Type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(LIMIT_MS),
    });
    return response.status === 204 ? null : response.json();
  };
  return {
    session: async (signal) => ((await read("api/session", signal)) as { key: SessionKey }).key,
    signIn: (key) => change("POST", "api/session", { key }),
    signOut: () => change("DELETE", "api/session"),
    overview: async (signal) => (await read("api/overview", signal)) as Overview,
    keys: async (signal) => ((await read("api/keys", signal)) as { keys: Key[] }).keys,
    createKey: async (asked) => (await change("POST", "api/keys", asked)) as CreatedKey,
    revokeKey: (id) => change("POST", `api/keys/${encodeURIComponent(id)}/revoke`),
    requests: async (signal) =>
      ((await read("api/requests?limit=100", signal)) as { requests: Outcome[] }).requests,
  };
}

/** Ask; whatever is not a 2xx is thrown as what the page decides by. */
export async function answered(
  fetcher: typeof fetch,
  path: string,
  init: RequestInit,
): Promise<Response> {
  let response: Response;
  try {
    response = await fetcher(path, { ...init, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    throw new LostError(textOf(error), { cause: error });
  }
  if (response.ok) return response;
  throw errorOf(response.status, await response.json().catch(() => null));
}
