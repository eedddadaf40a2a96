import { useId, useRef, useState } from "react";

/** A text to be copied; where the browser forbids that, it is selected for the reader to copy. */
export function CopyField({ label, text }: { readonly label: string; readonly text: string }) {
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const [said, say] = useState("");

  const copy = async () => {
    field.current?.select();
    // Browsers have a clipboard for https and localhost only.
    const clipboard = navigator.clipboard as Clipboard | undefined;
    const done = await clipboard?.writeText(text).then(
      () => true,
      () => false,
    );
    say(done ? "Copied." : "Selected: press Ctrl+C to copy.");
  };

  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <div className="copy">
        <input id={id} ref={field} className="mono" readOnly value={text} spellCheck={false} />
        <button type="button" className="primary" onClick={() => void copy()}>
          Copy
        </button>
      </div>
      <p className="hint" role="status">
        {said}
      </p>
    </div>
  );
}
