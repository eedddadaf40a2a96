import type { Tick } from "./axis";
import type { Frame } from "./path";

interface Props {
  readonly frame: Frame;
  readonly values: readonly Tick[];
  readonly times: readonly Tick[];
  readonly x: (time_s: number) => number;
  readonly y: (value: number) => number;
}

/** The grid behind the lines, and what stands at its ends. */
export function Grid({ frame, values, times, x, y }: Props) {
  return (
    <g className="grid">
      {values.map(({ value, label }) => (
        <g key={value}>
          <path d={`M${frame.left} ${y(value)}H${frame.right}`} />
          <text x={frame.left - 6} y={y(value)} dy="0.32em" textAnchor="end">
            {label}
          </text>
        </g>
      ))}
      {times.map(({ value, label }, index) => (
        <text
          key={label}
          x={x(value)}
          y={frame.bottom + 15}
          textAnchor={index === 0 ? "end" : x(value) - frame.left < 24 ? "start" : "middle"}
        >
          {label}
        </text>
      ))}
    </g>
  );
}
