/** What the page knows, and how it changes with what the gateway says. */

import type { Key, Outcome, Overview, SessionKey } from "../api/contract";

export interface Known {
  readonly overview: Overview | null;
  readonly keys: readonly Key[] | null;
  readonly requests: readonly Outcome[] | null;
}

export type Source = keyof Known | "session";

export interface Page extends Known {
  /** undefined: not yet asked; null: signed out. */
  readonly session: SessionKey | null | undefined;
  /** Why somebody who was signed in has to sign in again. */
  readonly whyOut: string | null;
  /** Who does not answer now, and why. */
  readonly lost: ReadonlyMap<Source, string>;
}

export type Change =
  | { readonly kind: "signed_in"; readonly key: SessionKey }
  | { readonly kind: "signed_out" }
  | { readonly kind: "turned_out" }
  | { readonly kind: "arrived"; readonly known: Partial<Known> }
  | { readonly kind: "lost"; readonly source: Source; readonly why: string }
  | { readonly kind: "left"; readonly source: Source };

const NOTHING: Known = { overview: null, keys: null, requests: null };

export const START: Page = { ...NOTHING, session: undefined, whyOut: null, lost: new Map() };

export function changed(page: Page, change: Change): Page {
  switch (change.kind) {
    case "signed_in":
      return { ...START, session: change.key };
    case "signed_out": // what the key saw goes with it
      return { ...START, session: null };
    case "turned_out":
      return {
        ...START,
        session: null,
        whyOut: page.session ? "The session is over. Sign in again." : page.whyOut,
      };
    case "arrived":
      return { ...page, ...change.known, lost: without(page.lost, Object.keys(change.known)) };
    case "lost":
      return { ...page, lost: new Map(page.lost).set(change.source, change.why) };
    case "left":
      return { ...page, lost: without(page.lost, [change.source]) };
  }
}

function without(lost: Page["lost"], sources: readonly string[]): Page["lost"] {
  return sources.some((source) => lost.has(source as Source))
    ? new Map([...lost].filter(([source]) => !sources.includes(source)))
    : lost;
}
