import { useId, type InputHTMLAttributes } from "react";

interface Props extends InputHTMLAttributes<HTMLInputElement> {
  readonly label: string;
  readonly hint?: string;
  readonly problem: string | null;
}

/** A labelled input; what is wrong with it stands below and belongs to it. */
export function Field({ label, hint, problem, ...input }: Props) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input {...input} id={id} aria-invalid={problem !== null} aria-describedby={`${id}-about`} />
      <p id={`${id}-about`} className={problem === null ? "hint" : "problem"}>
        {problem ?? hint}
      </p>
    </div>
  );
}
