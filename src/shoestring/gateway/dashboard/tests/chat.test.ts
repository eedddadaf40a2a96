import { describe, expect, it, vi } from "vitest";
import { askModel, type Piece } from "../src/api/chat";
import { LostError, RefusedError, SignedOutError } from "../src/api/errors";

const QUESTION = { model: "m", prompt: "why?", temperature: 0.5, max_tokens: 7 };

function answering(body: string, init: ResponseInit = {}) {
  return vi.fn<typeof fetch>(() => Promise.resolve(new Response(body, init)));
}

async function pieces(fetcher: typeof fetch): Promise<Piece[]> {
  const signal = new AbortController().signal;
  let clock_s = 0;
  const all: Piece[] = [];
  for await (const piece of askModel(QUESTION, signal, fetcher, () => (clock_s += 1)))
    all.push(piece);
  return all;
}

const says = (content: string) =>
  `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`;

describe("asking a model", () => {
  it("sends one streamed question that wants its usage", async () => {
    const fetcher = answering("data: [DONE]\n\n");
    await pieces(fetcher);
    const [path, init] = fetcher.mock.calls[0] ?? [];
    expect(path).toBe("api/chat/completions");
    expect(init?.headers).toMatchObject({ "X-Requested-With": "shoestring" });
    expect(JSON.parse(init?.body as string)).toEqual({
      model: "m",
      messages: [{ role: "user", content: "why?" }],
      temperature: 0.5,
      max_tokens: 7,
      stream: true,
      stream_options: { include_usage: true },
    });
  });

  it("yields text, reasoning and the engine's own count, and passes over empty pieces", async () => {
    const body =
      'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n' +
      'data: {"choices":[{"delta":{"reasoning_content":"hm "}}]}\n\n' +
      says("yes") +
      'data: {"choices":[],"usage":{"completion_tokens":2}}\n\ndata: [DONE]\n\n';
    const answer = answering(body, { headers: { "x-cache": "hit" } });
    expect(await pieces(answer)).toEqual([
      { kind: "began", cache: "hit" },
      { kind: "text", text: "hm ", at_s: 1 },
      { kind: "text", text: "yes", at_s: 1 },
      { kind: "used", output_tokens: 2 },
    ]);
  });

  it("takes a stream without its end for broken", async () => {
    await expect(pieces(answering(says("half")))).rejects.toThrow(LostError);
  });

  it("tells what the gateway says inside a stream and instead of one", async () => {
    const inside = answering('data: {"error":{"message":"engine died"}}\n\n');
    await expect(pieces(inside)).rejects.toThrow("engine died");
    const instead = answering('{"error":{"message":"no scope inference"}}', { status: 403 });
    await expect(pieces(instead)).rejects.toThrow(new RefusedError(403, "no scope inference"));
    await expect(pieces(answering("", { status: 401 }))).rejects.toThrow(SignedOutError);
  });
});
