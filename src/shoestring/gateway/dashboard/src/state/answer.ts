/** One answer in the playground: what came, and how fast. */

import type { Piece } from "../api/chat";

export interface Answer {
  readonly state: "none" | "running" | "done" | "stopped" | "failed";
  readonly text: string;
  /** Of the reader's clock, when it was asked. */
  readonly asked_s: number;
  readonly first_s: number | null;
  readonly last_s: number | null;
  readonly output_tokens: number | null;
  readonly cache: string | null;
  readonly problem: string | null;
}

export type AnswerChange =
  | { readonly kind: "asked"; readonly at_s: number }
  | Piece
  | { readonly kind: "ended" }
  | { readonly kind: "stopped" }
  | { readonly kind: "failed"; readonly why: string };

export const NO_ANSWER: Answer = {
  state: "none",
  text: "",
  asked_s: 0,
  first_s: null,
  last_s: null,
  output_tokens: null,
  cache: null,
  problem: null,
};

export function answering(answer: Answer, change: AnswerChange): Answer {
  switch (change.kind) {
    case "asked":
      return { ...NO_ANSWER, state: "running", asked_s: change.at_s };
    case "began":
      return { ...answer, cache: change.cache };
    case "text":
      return {
        ...answer,
        text: answer.text + change.text,
        first_s: answer.first_s ?? change.at_s,
        last_s: change.at_s,
      };
    case "used":
      return { ...answer, output_tokens: change.output_tokens };
    case "ended":
      return { ...answer, state: "done" };
    case "stopped":
      return { ...answer, state: "stopped" };
    case "failed":
      return { ...answer, state: "failed", problem: change.why };
  }
}

/** Asked to first text, in this browser; null before it came. */
export function ttft_s({ asked_s, first_s }: Answer): number | null {
  return first_s === null ? null : first_s - asked_s;
}

/** (tokens − 1) / (last text − first text), or why there is no such rate. */
export function rate(answer: Answer): {
  readonly tokens_per_s: number | null;
  readonly why: string;
} {
  const { state, first_s, last_s, output_tokens } = answer;
  const none = (why: string) => ({ tokens_per_s: null, why });
  if (state === "running") return none("known when the answer has ended");
  if (output_tokens === null) return none("the engine sent no count of its tokens");
  if (output_tokens < 2 || first_s === null || last_s === null)
    return none("too few tokens for a rate");
  if (last_s === first_s) return none("the answer came in one piece");
  return { tokens_per_s: (output_tokens - 1) / (last_s - first_s), why: "" };
}
