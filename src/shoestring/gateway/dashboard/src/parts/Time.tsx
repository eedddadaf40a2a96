import { ago, clock, day } from "../text/format";

const SHOWN = { clock, day, ago: (utc: string) => ago(utc, Date.now()) };

/** A time; the title has it in full, in UTC as it came. */
export function Time({ utc, as }: { readonly utc: string; readonly as: keyof typeof SHOWN }) {
  return (
    <time dateTime={utc} title={utc}>
      {SHOWN[as](utc)}
    </time>
  );
}
