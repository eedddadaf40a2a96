import { describe, expect, it } from "vitest";
import { linePath, nearest, scale } from "../src/charts/path";

const x = (index: number) => index * 10;
const y = (value: number) => 100 - value;

describe("the path of a line", () => {
  it("goes through the known values", () => {
    expect(linePath([1, 2, 3], x, y)).toBe("M0 99L10 98L20 97");
  });

  it("breaks where nothing is known", () => {
    expect(linePath([1, 2, null, 3, 4], x, y)).toBe("M0 99L10 98M30 97L40 96");
  });

  it("shows a value between unknown ones as a dot", () => {
    expect(linePath([null, 5, null], x, y)).toBe("M10 95h0");
    expect(linePath([5], x, y)).toBe("M0 95h0");
  });

  it("draws zero, which is not unknown", () => {
    expect(linePath([0, 0], x, y)).toBe("M0 100L10 100");
  });

  it("is empty of nothing", () => {
    expect(linePath([], x, y)).toBe("");
    expect(linePath([null, null], x, y)).toBe("");
  });

  it("rounds to a tenth of a pixel", () => {
    expect(linePath([1 / 3, 2 / 3], x, y)).toBe("M0 99.7L10 99.3");
  });
});

describe("places", () => {
  it("puts a value between the ends, in the middle of no span", () => {
    expect(scale(5, [0, 10], [100, 200])).toBe(150);
    expect(scale(5, [5, 5], [100, 200])).toBe(150);
  });

  it("finds the nearest", () => {
    expect(nearest([0, 5, 10], 6)).toBe(1);
    expect(nearest([0, 5, 10], 99)).toBe(2);
    expect(nearest([], 1)).toBeNull();
  });
});
