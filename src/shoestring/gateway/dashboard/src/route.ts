/** Which view is shown: the part of the address behind the #, so that links and "back" work. */

import { useSyncExternalStore } from "react";
import type { Scope } from "./api/contract";

export interface View {
  readonly id: "overview" | "engines" | "requests" | "keys" | "playground";
  readonly title: string;
  /** Who may see it; null: everybody who is signed in. */
  readonly scope: Scope | null;
}

const OVERVIEW: View = { id: "overview", title: "Overview", scope: null };
const OTHERS: readonly View[] = [
  { id: "engines", title: "Engines", scope: null },
  { id: "requests", title: "Requests", scope: null },
  { id: "keys", title: "Keys", scope: "admin" },
  { id: "playground", title: "Playground", scope: "inference" },
];

/** The view that a hash names, or the first where it names none that this key may see. */
export function viewAt(hash: string, views: readonly [View, ...View[]]): View {
  return views.find((view) => `#${view.id}` === hash) ?? views[0];
}

export function viewsFor(scopes: readonly Scope[]): readonly [View, ...View[]] {
  return [OVERVIEW, ...OTHERS.filter(({ scope }) => scope === null || scopes.includes(scope))];
}

function watchHash(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  return () => {
    window.removeEventListener("hashchange", changed);
  };
}

export function useHash(): string {
  return useSyncExternalStore(watchHash, () => window.location.hash);
}
