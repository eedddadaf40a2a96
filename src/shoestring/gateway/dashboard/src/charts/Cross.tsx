import type { Frame } from "./path";

interface Props {
  readonly frame: Frame;
  readonly x: number;
  readonly time: string;
  /** Where the lines are at that time, each with its look. */
  readonly points: readonly { readonly y: number; readonly look: string }[];
}

/** The chosen time. */
export function Cross({ frame, x, time, points }: Props) {
  const onTheRight = x > (frame.left + frame.right) / 2;
  return (
    <g className="cross">
      <path d={`M${x} ${frame.top}V${frame.bottom}`} />
      {points.map(({ y, look }) => (
        <circle key={look} className={look} cx={x} cy={y} r="3.5" />
      ))}
      <text
        x={onTheRight ? x - 6 : x + 6}
        y={frame.top + 8}
        textAnchor={onTheRight ? "end" : "start"}
      >
        {time}
      </text>
    </g>
  );
}
