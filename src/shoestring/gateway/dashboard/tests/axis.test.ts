import { describe, expect, it } from "vitest";
import {
  bytesUnit,
  highest,
  requestsUnit,
  secondsUnit,
  timeTicks,
  valueAxis,
} from "../src/charts/axis";

describe("the axis of values", () => {
  it.each([0.0003, 0.01, 0.7, 1, 3, 7.3, 10, 99, 1001, 123_456])(
    "holds %d under its top, in few round steps",
    (most) => {
      const axis = valueAxis(most, requestsUnit);
      expect(axis.top).toBeGreaterThanOrEqual(most * (1 - 1e-9));
      expect(axis.top).toBeLessThanOrEqual(most * 2);
      expect(axis.ticks.length).toBeGreaterThanOrEqual(3);
      expect(axis.ticks.length).toBeLessThanOrEqual(5);
      expect(axis.ticks.at(-1)?.value).toBeCloseTo(axis.top, 9);
    },
  );

  it("labels in the unit of the highest value", () => {
    expect(valueAxis(0.2, secondsUnit).ticks.map(({ label }) => label)).toEqual([
      "0",
      "50",
      "100",
      "150",
      "200",
    ]);
    expect(valueAxis(0.2, secondsUnit).unit.name).toBe("ms");
    expect(valueAxis(4, secondsUnit).unit.name).toBe("s");
    expect(valueAxis(3 * 1024 ** 3, bytesUnit).ticks.map(({ label }) => label)).toEqual([
      "0",
      "1",
      "2",
      "3",
    ]);
  });

  it("has as many digits behind the point on every label", () => {
    expect(valueAxis(2, requestsUnit).ticks.map(({ label }) => label)).toEqual([
      "0.0",
      "0.5",
      "1.0",
      "1.5",
      "2.0",
    ]);
  });

  it("stands, from zero to one, where nothing or only zero is known", () => {
    expect(valueAxis(null, requestsUnit).top).toBe(1);
    expect(valueAxis(0, requestsUnit).top).toBe(1);
  });

  it("takes null for unknown, not for zero", () => {
    expect(highest([[null, -3], [null]])).toBe(-3);
    expect(highest([[null], []])).toBeNull();
  });
});

describe("the axis of time", () => {
  it("counts back from now in round spans", () => {
    expect(timeTicks(100, 1000).map(({ label }) => label)).toEqual([
      "now",
      "−5 min",
      "−10 min",
      "−15 min",
    ]);
    expect(timeTicks(0, 60).map(({ label }) => label)).toEqual(["now", "−30 s", "−1 min"]);
  });

  it("has one tick where there is one time", () => {
    expect(timeTicks(7, 7)).toEqual([{ value: 7, label: "now" }]);
  });
});
