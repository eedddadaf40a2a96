export type Mood = "good" | "bad" | "warn" | "quiet";

/** A state as a coloured mark and a word: never by colour alone. */
export function Dot({ mood, children }: { readonly mood: Mood; readonly children: string }) {
  return (
    <span className={`dot ${mood}`}>
      <svg width="8" height="8" aria-hidden="true">
        {mood === "bad" ? <path d="M0 0H8V8H0Z" /> : <circle cx="4" cy="4" r="4" />}
      </svg>
      {children}
    </span>
  );
}
