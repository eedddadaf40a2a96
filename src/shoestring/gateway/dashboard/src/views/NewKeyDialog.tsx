import { useState, type SubmitEvent } from "react";
import type { Api } from "../api/client";
import { SCOPES, type CreatedKey } from "../api/contract";
import { textOf } from "../api/errors";
import { Dialog } from "../parts/Dialog";
import { Field } from "../parts/Field";
import { LIMIT_FIELDS, readKeyForm, type Problem } from "./keyForm";

interface Props {
  readonly api: Api;
  readonly onClose: () => void;
  readonly onCreated: (created: CreatedKey) => void;
}

const SCOPE_HINTS = {
  inference: "ask models",
  metrics: "scrape /metrics only",
  dashboard: "see this page",
  admin: "this page, and make and revoke keys",
} as const;

export function NewKeyDialog({ api, onClose, onCreated }: Props) {
  const [problems, setProblems] = useState<readonly Problem[]>([]);
  const [busy, setBusy] = useState(false);
  const of = (field: string) =>
    problems.find((problem) => problem.field === field)?.message ?? null;

  const create = async (form: HTMLFormElement) => {
    const read = readKeyForm(new FormData(form));
    if ("problems" in read) {
      setProblems(read.problems);
      focusFirst(form, read.problems);
      return;
    }
    setBusy(true);
    try {
      onCreated(await api.createKey(read.asked));
    } catch (error) {
      setProblems([{ field: "form", message: textOf(error) }]);
      setBusy(false);
    }
  };
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (!busy) void create(event.currentTarget);
  };

  return (
    <Dialog title="New key" onClose={onClose}>
      <form noValidate onSubmit={submit} autoComplete="off">
        <Field name="name" label="Name" problem={of("name")} autoFocus maxLength={64} />
        <fieldset>
          <legend>Scopes</legend>
          {SCOPES.map((scope) => (
            <label key={scope} className="check">
              <input
                type="checkbox"
                name="scopes"
                value={scope}
                defaultChecked={scope === "inference"}
              />
              <span>
                {scope} <span className="hint">{SCOPE_HINTS[scope]}</span>
              </span>
            </label>
          ))}
          {of("scopes") !== null && <p className="problem">{of("scopes")}</p>}
        </fieldset>
        <Field
          name="models"
          label="Models"
          hint="names or globs, as qwen2.5:*; nothing means all"
          problem={of("models")}
        />
        <div className="pairs">
          {LIMIT_FIELDS.map(({ field, label }) => (
            <Field key={field} name={field} label={label} problem={of(field)} inputMode="numeric" />
          ))}
          <div className="field">
            <label htmlFor="budget_period">Budget for (UTC)</label>
            <select id="budget_period" name="budget_period" defaultValue="month">
              <option value="day">a day</option>
              <option value="month">a month</option>
              <option value="ever">ever</option>
            </select>
          </div>
          <Field
            name="expires_days"
            label="Expires after, days"
            problem={of("expires_days")}
            inputMode="numeric"
          />
        </div>
        <p className="hint">An empty limit leaves the gateway&apos;s own.</p>
        <div role="alert">
          {problems.length > 0 && (
            <p className="notice bad">
              {of("form") ?? problems.map(({ message }) => message).join(". ")}
            </p>
          )}
        </div>
        <div className="buttons">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="primary" aria-disabled={busy}>
            Create key
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function focusFirst(form: HTMLFormElement, problems: readonly Problem[]): void {
  const field = form.elements.namedItem(problems[0]?.field ?? "");
  const first = field instanceof RadioNodeList ? field[0] : field;
  if (first instanceof HTMLElement) first.focus();
}
