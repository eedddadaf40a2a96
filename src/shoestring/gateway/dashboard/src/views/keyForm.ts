/** What somebody typed into the form of a new key, as the gateway wants it. */

import { PERIODS, SCOPES, type NewKey } from "../api/contract";

export interface Problem {
  readonly field: string;
  readonly message: string;
}

export type ReadForm = { readonly asked: NewKey } | { readonly problems: readonly Problem[] };

export const LIMIT_FIELDS = [
  { field: "requests_per_minute", label: "Requests a minute" },
  { field: "tokens_per_minute", label: "Tokens a minute" },
  { field: "concurrent", label: "Requests at once" },
  { field: "budget_tokens", label: "Budget, tokens" },
] as const;

export function readKeyForm(form: FormData): ReadForm {
  const problems: Problem[] = [];
  const number = (field: string): number | null => {
    const typed = textIn(form, field);
    if (typed === "") return null;
    const value = Number(typed);
    if (/^\d+$/.test(typed) && value >= 1 && Number.isSafeInteger(value)) return value;
    problems.push({ field, message: `${typed}: give a whole number from 1 on, or nothing` });
    return null;
  };

  const name = textIn(form, "name");
  if (name === "") problems.push({ field: "name", message: "Give the key a name" });
  const scopes = SCOPES.filter((scope) => form.getAll("scopes").includes(scope));
  if (scopes.length === 0) problems.push({ field: "scopes", message: "Choose at least one scope" });
  const asked: NewKey = {
    name,
    scopes,
    models: textIn(form, "models")
      .split(/[\s,]+/)
      .filter((glob) => glob !== ""),
    limits: {
      requests_per_minute: number("requests_per_minute"),
      tokens_per_minute: number("tokens_per_minute"),
      concurrent: number("concurrent"),
      budget_tokens: number("budget_tokens"),
      budget_period: PERIODS.find((period) => period === form.get("budget_period")) ?? "month",
    },
    expires_days: number("expires_days"),
  };
  return problems.length === 0 ? { asked } : { problems };
}

function textIn(form: FormData, field: string): string {
  const value = form.get(field);
  return typeof value === "string" ? value.trim() : "";
}
