/** Numbers and times for people. Every function takes what is known; null is the caller's. */

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 1,234,567 */
export function count(value: number): string {
  return grouped.format(value);
}

/** Three significant digits, never more than two behind the point: 0.05, 1.23, 12.3, 1,234 */
export function decimal(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** 850 µs, 123 ms, 1.23 s, 2 min 5 s, 3 h 4 min, 5 d 6 h */
export function duration(seconds: number): string {
  if (seconds < 0.0005) return seconds === 0 ? "0 ms" : `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${decimal(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return pair(whole, 60, "min", "s");
  if (whole < 86_400) return pair(Math.floor(whole / 60), 60, "h", "min");
  return pair(Math.floor(whole / 3600), 24, "d", "h");
}

function pair(whole: number, size: number, big: string, small: string): string {
  const rest = whole % size;
  return `${Math.floor(whole / size)} ${big}${rest === 0 ? "" : ` ${rest} ${small}`}`;
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export interface Unit {
  readonly name: string;
  /** How much one of it is, in the unit that the values have. */
  readonly size: number;
}

/** The largest unit of which there is at least one. */
export function byteUnit(bytes: number): Unit {
  const power = Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return { name: BYTE_UNITS[power] ?? "B", size: 1024 ** power };
}

/** 512 B, 1.50 KiB, 812 MiB */
export function bytes(value: number): string {
  const unit = byteUnit(value);
  return `${decimal(value / unit.size)} ${unit.name}`;
}

/** 14:03:09, in the reader's time zone */
export function clock(utc: string): string {
  const time = new Date(utc);
  return Number.isNaN(time.getTime()) ? utc : time.toLocaleTimeString("en-GB");
}

/** 22 Nov 2026 14:03, in the reader's time zone */
export function day(utc: string): string {
  const time = new Date(utc);
  if (Number.isNaN(time.getTime())) return utc;
  const date = time.toLocaleDateString("en-GB", {
    day: "numeric",
    month: "short",
    year: "numeric",
  });
  return `${date} ${time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
}

/** 3 s ago, 5 min ago, 2 d ago; a time that cannot be read is shown as it came */
export function ago(utc: string, now_ms: number): string {
  const then_ms = new Date(utc).getTime();
  if (Number.isNaN(then_ms)) return utc;
  const seconds = Math.max(0, Math.round((now_ms - then_ms) / 1000));
  const [size, unit] =
    seconds < 60
      ? [1, "s"]
      : seconds < 3600
        ? [60, "min"]
        : seconds < 86_400
          ? [3600, "h"]
          : [86_400, "d"];
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

/** 25 %, of a part that may be 0 of 0 */
export function percent(part: number, whole: number): string | null {
  return whole === 0 ? null : `${decimal((100 * part) / whole)} %`;
}
