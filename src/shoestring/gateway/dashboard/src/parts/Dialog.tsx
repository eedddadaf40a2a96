import { useEffect, useId, useRef, type KeyboardEvent, type ReactNode } from "react";

interface Props {
  readonly title: string;
  readonly onClose: () => void;
  /** Whether Escape closes it. */
  readonly escapable?: boolean;
  readonly children: ReactNode;
}

const FOCUSABLE = "a[href], button:not(:disabled), input:not(:disabled), select, textarea";

/** A modal dialog: all else is inert while it stands, and focus goes round inside it. */
export function Dialog({ title, onClose, escapable = true, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();

  useEffect(() => {
    const before = document.activeElement;
    const own = dialog.current;
    own?.showModal();
    return () => {
      own?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);

  const goRound = (event: KeyboardEvent<HTMLDialogElement>) => {
    if (event.key !== "Tab") return;
    const stops = [...event.currentTarget.querySelectorAll<HTMLElement>(FOCUSABLE)];
    const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
    if (document.activeElement !== from && stops.includes(document.activeElement as HTMLElement))
      return;
    event.preventDefault();
    to?.focus();
  };

  return (
    <dialog
      ref={dialog}
      aria-labelledby={id}
      onKeyDown={goRound}
      onCancel={(event) => {
        if (event.target !== dialog.current) return;
        event.preventDefault();
        if (escapable) onClose();
      }}
      onClose={(event) => {
        if (event.target === dialog.current) onClose(); // the browser may insist on closing it
      }}
    >
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}
