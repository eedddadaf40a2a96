import { describe, expect, it } from "vitest";
import { eventReader } from "../src/api/sse";

const STREAM =
  ': hello\r\n\r\ndata: {"a":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata: [DONE]\n\n';

describe("server-sent events", () => {
  it.each([1, 2, 3, 7, 1000])("are the same in pieces of %d characters", (size) => {
    const read = eventReader();
    const events: string[] = [];
    for (let start = 0; start < STREAM.length; start += size) {
      events.push(...read(STREAM.slice(start, start + size)));
    }
    expect(events).toEqual(['{"a":1}', "two\nlines", "[DONE]"]);
  });

  it("come only when they are whole", () => {
    const read = eventReader();
    expect(read("data: half\n")).toEqual([]);
    expect(read("\n")).toEqual(["half"]);
  });
});
