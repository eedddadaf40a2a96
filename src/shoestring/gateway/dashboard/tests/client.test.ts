import { describe, expect, it, vi } from "vitest";
import { apiOver } from "../src/api/client";
import { LostError, RefusedError, SignedOutError } from "../src/api/errors";

const signal = new AbortController().signal;
const answer = (status: number, body: string | null) =>
  apiOver(vi.fn<typeof fetch>(() => Promise.resolve(new Response(body, { status }))));

describe("the gateway's API", () => {
  it("unwraps what the gateway answers", async () => {
    expect(await answer(200, '{"keys":[]}').keys(signal)).toEqual([]);
    expect(await answer(204, null).signIn("shoe_x")).toBeNull();
  });

  it.each([
    ["a refused connection", () => Promise.reject(new TypeError("refused"))],
    ["a proxy without a gateway", () => Promise.resolve(new Response("<html>", { status: 502 }))],
  ])("takes %s for a lost connection", async (_what, fetcher) => {
    await expect(apiOver(fetcher).overview(signal)).rejects.toThrow(LostError);
  });

  it("tells an ended session from a refusal, with the gateway's words", async () => {
    const body = '{"error":{"message":"too many tries","type":"x","code":"y"}}';
    await expect(answer(401, body).overview(signal)).rejects.toThrow(
      new SignedOutError("too many tries"),
    );
    await expect(answer(429, body).overview(signal)).rejects.toThrow(
      new RefusedError(429, "too many tries"),
    );
  });

  it("marks every change as its own, and cannot be led to another path by an id", async () => {
    const fetcher = vi.fn<typeof fetch>(() => Promise.resolve(new Response(null, { status: 204 })));
    await apiOver(fetcher).revokeKey("../session");
    expect(fetcher.mock.calls[0]?.[0]).toBe("api/keys/..%2Fsession/revoke");
    expect(fetcher.mock.calls[0]?.[1]).toMatchObject({
      method: "POST",
      credentials: "same-origin",
      headers: { "X-Requested-With": "shoestring" },
    });
  });
});
