/** Where the lines of a chart's grid lie, and what stands beside them. */

import { byteUnit, duration, type Unit } from "../text/format";

/** Which unit an axis has whose highest value is this. */
export type UnitFor = (most: number) => Unit;

export const secondsUnit: UnitFor = (most) =>
  most < 1 ? { name: "ms", size: 0.001 } : { name: "s", size: 1 };
export const bytesUnit: UnitFor = byteUnit;
export const perSecond: UnitFor = () => ({ name: "1/s", size: 1 });
export const tokensPerSecond: UnitFor = () => ({ name: "tokens/s", size: 1 });
export const requestsUnit: UnitFor = () => ({ name: "requests", size: 1 });

export interface Tick {
  readonly value: number;
  readonly label: string;
}

export interface ValueAxis {
  readonly unit: Unit;
  /** Of the highest grid line, at or above the highest value. */
  readonly top: number;
  readonly ticks: readonly Tick[];
}

const STEPS = [1, 2, 2.5, 5, 10];
const MOST_TICKS = 4; // above zero

/** An axis from zero on; `most` null: nothing to show, and the axis goes to one. */
export function valueAxis(most: number | null, unitFor: UnitFor): ValueAxis {
  const unit = unitFor(most ?? 0);
  const shown = most === null || most <= 0 ? 1 : most / unit.size;
  const step = niceStep(shown / MOST_TICKS);
  const steps = Math.max(1, Math.ceil(shown / step - 1e-9));
  const behindPoint = digitsBehindPoint(step);
  const ticks = Array.from({ length: steps + 1 }, (_, index) => ({
    value: index * step * unit.size,
    label: (index * step).toLocaleString("en-US", {
      minimumFractionDigits: behindPoint,
      maximumFractionDigits: behindPoint,
    }),
  }));
  return { unit, top: steps * step * unit.size, ticks };
}

function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  const factor = STEPS.find((step) => step * power >= least * (1 - 1e-9)) ?? 10;
  return factor * power;
}

function digitsBehindPoint(step: number): number {
  const enough = [0, 1, 2, 3, 4, 5].find(
    (digits) => Math.abs(Number(step.toFixed(digits)) - step) < 1e-9,
  );
  return enough ?? 6;
}

const TIME_STEPS_S = [5, 10, 30, 60, 120, 300, 600, 1800];
const MOST_TIME_STEPS = 3;

/** How long before the last time, at round spans. */
export function timeTicks(first_s: number, last_s: number): readonly Tick[] {
  const span_s = last_s - first_s;
  const step_s = TIME_STEPS_S.find((step) => span_s / step <= MOST_TIME_STEPS + 0.2) ?? span_s;
  const steps = step_s > 0 ? Math.floor(span_s / step_s) : 0;
  return Array.from({ length: steps + 1 }, (_, index) => ({
    value: last_s - index * step_s,
    label: index === 0 ? "now" : `−${duration(index * step_s)}`,
  }));
}

/** The highest value of all lines; null where none is known. */
export function highest(lines: readonly (readonly (number | null)[])[]): number | null {
  const known = lines.flat().filter((value) => value !== null);
  return known.length === 0 ? null : Math.max(...known);
}
