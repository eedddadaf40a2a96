import { describe, expect, it } from "vitest";
import { ago, bytes, byteUnit, clock, count, decimal, duration, percent } from "../src/text/format";

describe("numbers for people", () => {
  it.each([
    [0, "0"],
    [999, "999"],
    [1234567, "1,234,567"],
  ])("groups %d as %s", (value, text) => {
    expect(count(value)).toBe(text);
  });

  it.each([
    [0, "0"],
    [0.054, "0.05"],
    [1, "1"],
    [1.234, "1.23"],
    [12.34, "12.3"],
    [1234.5, "1,235"],
    [-12.34, "-12.3"],
  ])("shows %d with about three digits as %s", (value, text) => {
    expect(decimal(value)).toBe(text);
  });

  it.each([
    [0, "0 ms"],
    [0.00004, "40 µs"],
    [0.123, "123 ms"],
    [0.9999, "1.00 s"],
    [1, "1 s"],
    [59.94, "59.9 s"],
    [59.99, "1 min"],
    [125, "2 min 5 s"],
    [3600, "1 h"],
    [11_040, "3 h 4 min"],
    [86_399, "23 h 59 min"],
    [453_600, "5 d 6 h"],
  ])("says %d s as %s", (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });

  it.each([
    [0, "0 B"],
    [512, "512 B"],
    [1536, "1.50 KiB"],
    [812 * 1024 ** 2, "812 MiB"],
    [3 * 1024 ** 4, "3 TiB"],
    [5000 * 1024 ** 4, "5,000 TiB"],
  ])("says %d bytes as %s", (value, text) => {
    expect(bytes(value)).toBe(text);
  });

  it("takes the unit of which there is at least one", () => {
    expect(byteUnit(1024 ** 2 - 1).name).toBe("KiB");
    expect(byteUnit(1024 ** 2)).toEqual({ name: "MiB", size: 1024 ** 2 });
  });

  it("has no share of nothing", () => {
    expect(percent(1, 4)).toBe("25 %");
    expect(percent(0, 0)).toBeNull();
  });
});

describe("times for people", () => {
  const now_ms = Date.parse("2026-11-22T12:00:00Z");

  it.each([
    ["2026-11-22T11:59:57Z", "3 s ago"],
    ["2026-11-22T12:00:05Z", "0 s ago"], // the gateway's clock is ahead of the reader's
    ["2026-11-22T11:55:00Z", "5 min ago"],
    ["2026-11-22T09:00:00Z", "3 h ago"],
    ["2026-11-20T11:00:00Z", "2 d ago"],
  ])("says %s as %s", (utc, text) => {
    expect(ago(utc, now_ms)).toBe(text);
  });

  it("shows what is no time as it came", () => {
    expect(clock("soon")).toBe("soon");
    expect(ago("soon", now_ms)).toBe("soon");
  });
});
