import type { Page } from "../state/page";

/** Says that the gateway does not answer; always there, so that its coming is read out. */
export function Connection({ lost }: { readonly lost: Page["lost"] }) {
  const why = [...new Set(lost.values())].join("; ");
  return (
    <div role="status" className="connection">
      {lost.size > 0 && (
        <p className="notice bad">
          <b>Connection lost, trying again.</b> <span className="hint">{why}</span>
        </p>
      )}
    </div>
  );
}
