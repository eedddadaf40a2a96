import type { KeyLimits } from "../api/contract";
import { Value } from "../parts/Value";
import { count } from "../text/format";

/** The limits of a key that are set; the gateway's own hold where none is. */
export function KeyLimitsList({ limits }: { readonly limits: KeyLimits }) {
  const set = [
    { value: limits.requests_per_minute, unit: "requests/min" },
    { value: limits.tokens_per_minute, unit: "tokens/min" },
    { value: limits.concurrent, unit: "at once" },
  ].flatMap(({ value, unit }) => (value === null ? [] : [{ text: count(value), unit }]));
  if (set.length === 0)
    return <Value of={null} show={String} why="the gateway's own limits hold" />;
  return (
    <ul className="names">
      {set.map(({ text, unit }) => (
        <li key={unit}>
          {text} <span className="hint">{unit}</span>
        </li>
      ))}
    </ul>
  );
}
