/** One question to a model, answered as a stream of pieces, each stamped when it arrived. */

import { answered, OURS } from "./client";
import { LostError, messageIn, RefusedError, textOf } from "./errors";
import { eventReader } from "./sse";

export interface Question {
  readonly model: string;
  readonly prompt: string;
  readonly temperature: number;
  readonly max_tokens: number;
}

export type Piece =
  | { readonly kind: "began"; readonly cache: string | null }
  | { readonly kind: "text"; readonly text: string; readonly at_s: number }
  | { readonly kind: "used"; readonly output_tokens: number };

const END = "[DONE]";

/**
 * Ask and yield what comes.
 *
 * A stream without its end mark is a failure, not a short answer.
 */
export async function* askModel(
  question: Question,
  signal: AbortSignal,
  fetcher: typeof fetch = fetch,
  now_s: () => number = () => performance.now() / 1000,
): AsyncGenerator<Piece> {
  const response = await answered(fetcher, "api/chat/completions", {
    method: "POST",
    headers: { ...OURS, "Content-Type": "application/json" },
    body: JSON.stringify({
      model: question.model,
      messages: [{ role: "user", content: question.prompt }],
      temperature: question.temperature,
      max_tokens: question.max_tokens,
      stream: true,
      stream_options: { include_usage: true },
    }),
    signal,
  });
  yield { kind: "began", cache: response.headers.get("x-cache") };
  const events = eventReader();
  for await (const text of texts(response)) {
    const at_s = now_s();
    for (const data of events(text)) {
      if (data === END) return;
      yield* piecesIn(data, at_s);
    }
  }
  throw new LostError("The answer broke off before its end");
}

async function* texts(response: Response): AsyncGenerator<string> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } catch (error) {
    throw new LostError(textOf(error), { cause: error });
  } finally {
    await reader.cancel().catch(() => undefined); // what failed is told already
  }
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: Delta }[];
  readonly usage?: { readonly completion_tokens?: number } | null;
}

interface Delta {
  readonly content?: string | null;
  readonly reasoning_content?: string | null;
}

function* piecesIn(data: string, at_s: number): Generator<Piece> {
  const body: unknown = JSON.parse(data);
  const failure = messageIn(body);
  if (failure !== null) throw new RefusedError(200, failure);
  const chunk = body as Chunk;
  const delta = chunk.choices?.[0]?.delta;
  const text = (delta?.reasoning_content ?? "") + (delta?.content ?? "");
  if (text !== "") yield { kind: "text", text, at_s };
  const output_tokens = chunk.usage?.completion_tokens;
  if (output_tokens !== undefined) yield { kind: "used", output_tokens };
}
