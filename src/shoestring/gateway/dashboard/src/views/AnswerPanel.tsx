import { Panel } from "../parts/Panel";
import { Value } from "../parts/Value";
import { rate, ttft_s, type Answer } from "../state/answer";
import { count, decimal, duration } from "../text/format";

const WORDS = {
  none: "nothing asked yet",
  running: "answering…",
  done: "done",
  stopped: "stopped",
  failed: "failed",
} as const;

/** The answer as plain text: nothing that a model writes is ever markup here. */
export function AnswerPanel({ answer }: { readonly answer: Answer }) {
  const { tokens_per_s, why } = rate(answer);
  const { state, text, cache, problem } = answer;
  return (
    <Panel title="Answer" actions={<span role="status">{WORDS[state]}</span>}>
      <dl className="facts inline">
        <dt>TTFT</dt>
        <dd>
          <Value of={ttft_s(answer)} show={duration} why="no token came yet" />
        </dd>
        <dt>Output tokens</dt>
        <dd>
          <Value of={answer.output_tokens} show={count} why="the engine counts at the end" />
        </dd>
        <dt>Tokens/s</dt>
        <dd>
          <Value of={tokens_per_s} show={decimal} why={why} />
        </dd>
        {cache !== null && (
          <>
            <dt>Cache</dt>
            <dd>{cache}</dd>
          </>
        )}
      </dl>
      <div role="alert">{problem !== null && <p className="notice bad">{problem}</p>}</div>
      <pre
        className="answer"
        dir="auto"
        role="region"
        aria-label="Answer"
        aria-live="polite"
        aria-busy={state === "running"}
        tabIndex={0}
      >
        {text}
      </pre>
    </Panel>
  );
}
