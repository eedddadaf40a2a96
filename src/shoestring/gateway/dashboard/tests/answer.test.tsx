import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import {
  answering,
  NO_ANSWER,
  rate,
  ttft_s,
  type Answer,
  type AnswerChange,
} from "../src/state/answer";
import { AnswerPanel } from "../src/views/AnswerPanel";

const after = (...changes: AnswerChange[]): Answer => changes.reduce(answering, NO_ANSWER);
const text = (at_s: number, words = "x"): AnswerChange => ({ kind: "text", text: words, at_s });
const ASKED: AnswerChange = { kind: "asked", at_s: 10 };
const used = (output_tokens: number): AnswerChange => ({ kind: "used", output_tokens });
const ENDED: AnswerChange = { kind: "ended" };

describe("an answer in the playground", () => {
  it("times the first text and the rate between first and last", () => {
    const answer = after(ASKED, text(10.5), text(11), text(12.5), used(21), ENDED);
    expect(answer).toMatchObject({ state: "done", text: "xxx" });
    expect(ttft_s(answer)).toBe(0.5);
    expect(rate(answer).tokens_per_s).toBe(10);
  });

  it.each([
    ["while it runs", [ASKED, text(11), text(12), used(3)], /has ended/],
    ["without a count", [ASKED, text(11), text(12), ENDED], /no count/],
    ["of one token", [ASKED, text(11), used(1), ENDED], /too few/],
    ["that came at once", [ASKED, text(11), text(11), used(9), ENDED], /one piece/],
    ["that never came", [ASKED, used(9), ENDED], /too few/],
  ] as const)("has no rate %s, and says why", (_when, changes, why) => {
    expect(rate(after(...changes)).tokens_per_s).toBeNull();
    expect(rate(after(...changes)).why).toMatch(why);
  });

  it("keeps what came before it was stopped or failed, and begins anew when asked again", () => {
    expect(after(ASKED, text(11, "half"), { kind: "stopped" })).toMatchObject({
      state: "stopped",
      text: "half",
    });
    const failed = after(ASKED, text(11, "half"), { kind: "failed", why: "gone" });
    expect(failed).toMatchObject({ state: "failed", text: "half", problem: "gone" });
    expect(answering(failed, ASKED)).toEqual({ ...NO_ANSWER, state: "running", asked_s: 10 });
  });

  it("is shown as text, whatever it is written in", () => {
    const hostile = `<script>alert(1)</script><img src=x onerror="alert(1)">[a](javascript:alert(1))`;
    const html = renderToStaticMarkup(
      <AnswerPanel answer={after(ASKED, text(11, hostile), ENDED)} />,
    );
    expect(html).not.toMatch(/<(script|img|a)\b/);
    expect(html).toContain("&lt;script&gt;");
    expect(html).toContain("[a](javascript:alert(1))");
  });
});
