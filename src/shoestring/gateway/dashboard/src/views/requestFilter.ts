/** Which of the recent requests a reader wants to see. */

import type { Outcome } from "../api/contract";

export function isFailed({ status, failure }: Outcome): boolean {
  return status >= 400 || failure !== null;
}

const SEARCHED = [
  "request_id",
  "key_id",
  "key_name",
  "address",
  "operation",
  "model",
  "variant",
  "engine",
  "failure",
  "cache",
] as const;

/** Whether each word stands somewhere in the request. */
export function matches(request: Outcome, words: string): boolean {
  const text = [...SEARCHED.map((name) => request[name] ?? ""), String(request.status)]
    .join("\n")
    .toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}
