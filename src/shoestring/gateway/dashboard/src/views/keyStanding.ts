/** Whether a key is good now. */

import type { Key } from "../api/contract";
import type { Mood } from "../parts/Dot";

export interface Standing {
  readonly mood: Mood;
  readonly word: string;
  /** Since or until when; null: for ever. */
  readonly utc: string | null;
}

export function standing(key: Pick<Key, "expires_utc" | "revoked_utc">, now_ms: number): Standing {
  const { expires_utc, revoked_utc } = key;
  if (revoked_utc !== null) return { mood: "quiet", word: "revoked", utc: revoked_utc };
  if (expires_utc === null) return { mood: "good", word: "active", utc: null };
  if (new Date(expires_utc).getTime() <= now_ms) {
    return { mood: "quiet", word: "expired", utc: expires_utc };
  }
  return { mood: "good", word: "active until", utc: expires_utc };
}
