/** What can go wrong between the page and the gateway, one class per decision of the page. */

/** Nobody answered, or a proxy in between: ask again. */
export class LostError extends Error {}

/** The session is over, or the key is wrong: sign in. */
export class SignedOutError extends Error {}

/** The gateway said no; its message is for people. */
export class RefusedError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const GATEWAY_IS_AWAY = new Set([502, 503, 504]);

export function errorOf(status: number, body: unknown): Error {
  const message = messageIn(body) ?? `The gateway answered ${status}`;
  if (status === 401) return new SignedOutError(message);
  if (GATEWAY_IS_AWAY.has(status) && messageIn(body) === null) return new LostError(message);
  return new RefusedError(status, message);
}

export function messageIn(body: unknown): string | null {
  if (typeof body !== "object" || body === null || !("error" in body)) return null;
  const error = body.error;
  if (typeof error === "string") return error;
  if (typeof error !== "object" || error === null || !("message" in error)) return null;
  return typeof error.message === "string" ? error.message : null;
}

export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
