interface Props<T> {
  readonly of: T | null;
  readonly show: (known: T) => string;
  /** Why there may be none. */
  readonly why: string;
}

/** What is known, or a dash that says why nothing is. */
export function Value<T>({ of, show, why }: Props<T>) {
  if (of !== null) return <>{show(of)}</>;
  return (
    <span className="none" title={why}>
      –<span className="unseen"> ({why})</span>
    </span>
  );
}
