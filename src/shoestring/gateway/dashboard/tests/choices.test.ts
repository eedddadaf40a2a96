import { describe, expect, it } from "vitest";
import type { Outcome } from "../src/api/contract";
import { viewAt, viewsFor } from "../src/route";
import { keepTheme, keptTheme, next } from "../src/theme";
import { isFailed, matches } from "../src/views/requestFilter";

describe("views", () => {
  it("are those that the key may use", () => {
    const ids = (scopes: Parameters<typeof viewsFor>[0]) => viewsFor(scopes).map(({ id }) => id);
    expect(ids(["dashboard"])).toEqual(["overview", "engines", "requests"]);
    expect(ids(["admin", "inference"])).toEqual([
      "overview",
      "engines",
      "requests",
      "keys",
      "playground",
    ]);
  });

  it("are named by the address; one that the key may not see is the first", () => {
    expect(viewAt("#requests", viewsFor(["dashboard"])).id).toBe("requests");
    expect(viewAt("#keys", viewsFor(["dashboard"])).id).toBe("overview");
    expect(viewAt("", viewsFor([])).id).toBe("overview");
  });
});

describe("the theme", () => {
  it("is kept, and the system's is no choice to keep", () => {
    const kept = new Map<string, string>();
    const storage = {
      getItem: (name: string) => kept.get(name) ?? null,
      setItem: (name: string, value: string) => void kept.set(name, value),
      removeItem: (name: string) => void kept.delete(name),
    };
    keepTheme("dark", () => storage);
    expect(keptTheme(() => storage)).toBe("dark");
    keepTheme("system", () => storage);
    expect(kept.size).toBe(0);
    expect(keptTheme(() => ({ getItem: () => "pink" }))).toBe("system");
  });

  it("goes on without storage where the browser forbids it", () => {
    const forbidden = () => {
      throw new DOMException("denied", "SecurityError");
    };
    expect(keptTheme(forbidden)).toBe("system");
    expect(() => {
      keepTheme("dark", forbidden);
    }).not.toThrow();
  });

  it("goes round", () => {
    expect([next("system"), next("light"), next("dark")]).toEqual(["light", "dark", "system"]);
  });
});

describe("finding requests", () => {
  const request = {
    request_id: "r1",
    key_name: "CI",
    model: "qwen2.5",
    status: 200,
    failure: null,
  } as Outcome;

  it("wants each word somewhere, in any case", () => {
    expect(matches(request, "")).toBe(true);
    expect(matches(request, "ci QWEN 200")).toBe(true);
    expect(matches(request, "ci gemma")).toBe(false);
  });

  it("counts broken streams as failures, which had begun with 200", () => {
    expect(isFailed(request)).toBe(false);
    expect(isFailed({ ...request, status: 429 })).toBe(true);
    expect(isFailed({ ...request, failure: "engine_died" })).toBe(true);
  });
});
