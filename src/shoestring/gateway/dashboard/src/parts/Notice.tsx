import type { ReactNode } from "react";

/** A line that somebody should know of. */
export function Notice({
  mood,
  children,
}: {
  readonly mood: "warn" | "bad";
  readonly children: ReactNode;
}) {
  return <p className={`notice ${mood}`}>{children}</p>;
}
