import { useState, type SubmitEvent, type KeyboardEvent } from "react";
import type { Question } from "../api/chat";

interface Props {
  readonly models: readonly string[];
  readonly running: boolean;
  readonly onAsk: (question: Question) => void;
  readonly onStop: () => void;
}

export function QuestionForm({ models, running, onAsk, onStop }: Props) {
  const [temperature, setTemperature] = useState(0.7);

  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const text = (field: string) => {
      const value = form.get(field);
      return typeof value === "string" ? value : "";
    };
    if (running || text("prompt").trim() === "") return;
    onAsk({
      model: text("model"),
      prompt: text("prompt"),
      temperature,
      max_tokens: Number(text("max_tokens")),
    });
  };
  const sendByKey = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.currentTarget.form?.requestSubmit();
  };

  if (models.length === 0) return <p className="empty">No engine offers a model now.</p>;
  return (
    <form className="question" onSubmit={submit}>
      <div className="field">
        <label htmlFor="model">Model</label>
        <select id="model" name="model">
          {models.map((model) => (
            <option key={model}>{model}</option>
          ))}
        </select>
      </div>
      <div className="field">
        <label htmlFor="prompt">Prompt</label>
        <textarea
          id="prompt"
          name="prompt"
          rows={6}
          required
          onKeyDown={sendByKey}
          aria-describedby="prompt-hint"
        />
        <p id="prompt-hint" className="hint">
          Ctrl+Enter asks.
        </p>
      </div>
      <div className="pairs">
        <div className="field">
          <label htmlFor="temperature">
            Temperature <output htmlFor="temperature">{temperature.toFixed(1)}</output>
          </label>
          <input
            id="temperature"
            type="range"
            min="0"
            max="2"
            step="0.1"
            value={temperature}
            onChange={(event) => {
              setTemperature(event.target.valueAsNumber);
            }}
          />
        </div>
        <div className="field">
          <label htmlFor="max_tokens">Max tokens</label>
          <input
            id="max_tokens"
            name="max_tokens"
            type="number"
            min="1"
            max="32768"
            required
            defaultValue="256"
          />
        </div>
      </div>
      <div className="buttons">
        <button type="button" aria-disabled={!running} onClick={onStop}>
          Stop
        </button>
        <button type="submit" className="primary" aria-disabled={running}>
          Ask
        </button>
      </div>
    </form>
  );
}
