import { useId, useRef, useState, type KeyboardEvent, type PointerEvent } from "react";
import { clock, decimal } from "../text/format";
import { Value } from "../parts/Value";
import { highest, timeTicks, valueAxis, type UnitFor } from "./axis";
import { Cross } from "./Cross";
import { Grid } from "./Grid";
import { linePath, nearest, scale, type Frame } from "./path";
import { useWidth } from "./useWidth";

export interface Line {
  readonly name: string;
  readonly values: readonly (number | null)[];
  /** What null means. */
  readonly whyNone: string;
}

interface Props {
  readonly title: string;
  readonly unitFor: UnitFor;
  readonly t_utc_s: readonly number[];
  /** At most two: the first has the accent colour, the second is grey and dashed. */
  readonly lines: readonly [Line] | readonly [Line, Line];
}

const HEIGHT = 172;
const LOOKS = ["main", "second"] as const;

/** Lines over time; pointer and arrow keys choose the time whose values the legend shows. */
export function LineChart({ title, unitFor, t_utc_s, lines }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const titleId = useId();
  const [chosen_s, choose] = useState<number | null>(null);

  const axis = valueAxis(highest(lines.map((line) => line.values)), unitFor);
  const frame: Frame = { left: 40, right: width - 8, top: 8, bottom: HEIGHT - 20 };
  const first_s = t_utc_s[0] ?? 0;
  const last_s = t_utc_s.at(-1) ?? 0;
  const x = (time_s: number) => scale(time_s, [first_s, last_s], [frame.left, frame.right]);
  const y = (value: number) => scale(value, [0, axis.top], [frame.bottom, frame.top]);
  const last = t_utc_s.length - 1;
  const at = chosen_s === null ? last : (nearest(t_utc_s, chosen_s) ?? last);

  const shown = lines.map((line) => ({ line, value: line.values[at] ?? null }));
  const time = clock(new Date((t_utc_s[at] ?? 0) * 1000).toISOString());
  const inWords = shown.map(
    ({ line, value }) =>
      `${line.name} ${value === null ? "not known" : `${decimal(value / axis.unit.size)} ${axis.unit.name}`}`,
  );

  const point = (event: PointerEvent<HTMLDivElement>) => {
    const left = event.clientX - event.currentTarget.getBoundingClientRect().left;
    choose(scale(left, [frame.left, frame.right], [first_s, last_s]));
  };
  const step = (event: KeyboardEvent) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const time_s = t_utc_s[Math.min(last, Math.max(0, to))];
    choose(to >= last || time_s === undefined ? null : time_s); // the last one goes on being last
  };
  const forget = () => {
    choose(null);
  };

  return (
    <figure className="panel chart">
      <figcaption>
        <span id={titleId} className="chart-title">
          {title} <span className="unit">{axis.unit.name}</span>
        </span>
        <span className="legend">
          {shown.map(({ line, value }, index) => (
            <span key={line.name} className="legend-item">
              <svg
                className={`swatch ${LOOKS[index] ?? ""}`}
                width="16"
                height="8"
                aria-hidden="true"
              >
                <path d="M1 4H15" />
              </svg>
              {line.name}{" "}
              <b>
                <Value
                  of={value}
                  show={(known) => decimal(known / axis.unit.size)}
                  why={line.whyNone}
                />
              </b>
            </span>
          ))}
        </span>
      </figcaption>
      <div
        ref={box}
        className="plot"
        role="slider"
        tabIndex={0}
        aria-labelledby={titleId}
        aria-valuemin={0}
        aria-valuemax={Math.max(0, last)}
        aria-valuenow={Math.max(0, at)}
        aria-valuetext={last < 0 ? "nothing yet" : `${time}: ${inWords.join(", ")}`}
        onPointerMove={point}
        onPointerDown={point}
        onPointerLeave={forget}
        onBlur={forget}
        onKeyDown={step}
      >
        <svg width={width} height={HEIGHT} aria-hidden="true">
          <Grid
            frame={frame}
            values={axis.ticks}
            times={last > 0 ? timeTicks(first_s, last_s) : []}
            x={x}
            y={y}
          />
          {lines
            .map((line, index) => (
              <path
                key={line.name}
                className={`line ${LOOKS[index] ?? ""}`}
                d={linePath(line.values, (place) => x(t_utc_s[place] ?? 0), y)}
              />
            ))
            .reverse()}
          {chosen_s !== null && last >= 0 && (
            <Cross
              frame={frame}
              x={x(t_utc_s[at] ?? 0)}
              time={time}
              points={shown.flatMap(({ value }, index) =>
                value === null ? [] : [{ y: y(value), look: LOOKS[index] ?? "" }],
              )}
            />
          )}
          {shown.every(({ line }) => line.values.every((value) => value === null)) && (
            <text
              className="nothing"
              x={(frame.left + frame.right) / 2}
              y={HEIGHT / 2}
              textAnchor="middle"
            >
              nothing in the last 15 minutes
            </text>
          )}
        </svg>
      </div>
    </figure>
  );
}
