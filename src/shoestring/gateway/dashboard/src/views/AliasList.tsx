import type { Alias } from "../api/contract";
import { Share } from "../parts/Share";
import { percent } from "../text/format";

/** Each alias with its targets and the share of keys that each target gets. */
export function AliasList({ aliases }: { readonly aliases: readonly Alias[] }) {
  if (aliases.length === 0) return <p className="empty">No alias is set.</p>;
  return (
    <ul className="aliases">
      {aliases.map(({ name, targets }) => {
        const sum = targets.reduce((total, { weight }) => total + weight, 0);
        return (
          <li key={name}>
            <h3 className="mono">{name}</h3>
            <ul>
              {targets.map(({ engine, model, variant, weight }) => (
                <li key={`${engine} ${model} ${variant}`} className="target">
                  <span className="mono">{model}</span>
                  <span className="hint">
                    {variant} on {engine}
                  </span>
                  <span className="number">{percent(weight, sum) ?? "0 %"}</span>
                  <Share of={weight} full={sum} />
                </li>
              ))}
            </ul>
          </li>
        );
      })}
    </ul>
  );
}
