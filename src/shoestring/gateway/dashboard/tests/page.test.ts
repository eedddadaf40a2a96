import { describe, expect, it } from "vitest";
import type { SessionKey } from "../src/api/contract";
import { changed, START, type Change } from "../src/state/page";

const ADMIN: SessionKey = { id: "aaaaaaaaaa", name: "admin", scopes: ["admin"] };
const IN: Change = { kind: "signed_in", key: ADMIN };
const after = (...changes: Change[]) => changes.reduce(changed, START);

describe("what the page knows", () => {
  it("forgets everything that a key saw when it signs out", () => {
    const page = after(IN, { kind: "arrived", known: { keys: [] } }, { kind: "signed_out" });
    expect(page).toEqual({ ...START, session: null });
  });

  it("says why somebody has to sign in again, and nothing to who never was", () => {
    expect(after(IN, { kind: "turned_out" }).whyOut).toMatch(/session is over/);
    expect(after({ kind: "turned_out" })).toEqual({ ...START, session: null });
  });

  it("says so once, though several polls are refused", () => {
    expect(after(IN, { kind: "turned_out" }, { kind: "turned_out" }).whyOut).toMatch(
      /session is over/,
    );
  });

  it("keeps what it knows while the connection is lost", () => {
    const page = after(
      IN,
      { kind: "arrived", known: { requests: [] } },
      { kind: "lost", source: "requests", why: "refused" },
    );
    expect(page.requests).toEqual([]);
    expect([...page.lost]).toEqual([["requests", "refused"]]);
  });

  it("is connected again only when each source has answered or is no longer asked", () => {
    const lost = after(
      IN,
      { kind: "lost", source: "requests", why: "x" },
      { kind: "lost", source: "keys", why: "y" },
    );
    const half = changed(lost, { kind: "arrived", known: { requests: [] } });
    expect([...half.lost.keys()]).toEqual(["keys"]);
    expect(changed(half, { kind: "left", source: "keys" }).lost.size).toBe(0);
  });
});
