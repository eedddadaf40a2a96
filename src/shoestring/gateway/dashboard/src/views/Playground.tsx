import { Panel } from "../parts/Panel";
import { AnswerPanel } from "./AnswerPanel";
import { QuestionForm } from "./QuestionForm";
import { useAnswer } from "./useAnswer";

/** Ask a model as the key that is signed in. */
export function Playground({ models }: { readonly models: readonly string[] }) {
  const { answer, ask, stop } = useAnswer();
  return (
    <div className="playground">
      <Panel title="Ask" hint="counted to the key that is signed in">
        <QuestionForm
          models={models}
          running={answer.state === "running"}
          onAsk={ask}
          onStop={stop}
        />
      </Panel>
      <AnswerPanel answer={answer} />
    </div>
  );
}
