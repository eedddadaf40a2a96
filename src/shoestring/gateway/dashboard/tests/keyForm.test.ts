import { describe, expect, it } from "vitest";
import { readKeyForm } from "../src/views/keyForm";

function form(entries: Readonly<Record<string, string | readonly string[]>>): FormData {
  const data = new FormData();
  for (const [name, value] of Object.entries(entries)) {
    for (const one of typeof value === "string" ? [value] : value) data.append(name, one);
  }
  return data;
}

describe("the form of a new key", () => {
  it("gives what the gateway wants, and null for what is left empty", () => {
    const read = readKeyForm(
      form({
        name: " ci ",
        scopes: ["inference", "dashboard", "root"],
        models: "qwen2.5:*, gemma3  phi",
        requests_per_minute: "60",
        budget_tokens: "1000000",
        budget_period: "day",
      }),
    );
    expect(read).toEqual({
      asked: {
        name: "ci",
        scopes: ["inference", "dashboard"],
        models: ["qwen2.5:*", "gemma3", "phi"],
        limits: {
          requests_per_minute: 60,
          tokens_per_minute: null,
          concurrent: null,
          budget_tokens: 1_000_000,
          budget_period: "day",
        },
        expires_days: null,
      },
    });
  });

  it.each(["0", "-1", "1.5", "1e3", "many", "99999999999999999999"])(
    "refuses %s as a limit",
    (typed) => {
      const read = readKeyForm(form({ name: "a", scopes: "admin", concurrent: typed }));
      expect(read).toEqual({
        problems: [{ field: "concurrent", message: expect.stringContaining(typed) as string }],
      });
    },
  );

  it("names every field that is wrong", () => {
    const read = readKeyForm(form({ name: "  " }));
    expect("problems" in read && read.problems.map(({ field }) => field)).toEqual([
      "name",
      "scopes",
    ]);
  });
});
