/** From values to the path of a line. */

export interface Frame {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** A value's place between two ends; the middle where both are the same. */
export function scale(
  value: number,
  [from, to]: readonly [number, number],
  [start, end]: readonly [number, number],
): number {
  const share = to === from ? 0.5 : (value - from) / (to - from);
  return start + share * (end - start);
}

/**
 * The `d` of an SVG path through the known values.
 *
 * Null breaks the line. A value between two nulls is a line of no length, which round caps
 * show as a dot.
 */
export function linePath(
  values: readonly (number | null)[],
  x: (index: number) => number,
  y: (value: number) => number,
): string {
  let pen = false;
  const parts: string[] = [];
  values.forEach((value, index) => {
    if (value === null) {
      pen = false;
      return;
    }
    const point = `${short(x(index))} ${short(y(value))}`;
    const alone = !pen && (values[index + 1] ?? null) === null;
    parts.push(`${pen ? "L" : "M"}${point}${alone ? "h0" : ""}`);
    pen = true;
  });
  return parts.join("");
}

function short(place: number): string {
  return String(Math.round(place * 10) / 10);
}

/** Which of rising numbers is nearest; null of none. */
export function nearest(rising: readonly number[], wanted: number): number | null {
  let best: number | null = null;
  rising.forEach((value, index) => {
    const before = best === null ? undefined : rising[best];
    if (before === undefined || Math.abs(value - wanted) < Math.abs(before - wanted)) best = index;
  });
  return best;
}
