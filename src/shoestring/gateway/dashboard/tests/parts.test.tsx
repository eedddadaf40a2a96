import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { Connection } from "../src/parts/Connection";
import { Table } from "../src/parts/Table";
import { Value } from "../src/parts/Value";
import { standing } from "../src/views/keyStanding";

describe("parts", () => {
  it("shows null as a dash with its reason, and zero as zero", () => {
    const none = renderToStaticMarkup(<Value of={null} show={String} why="nobody asked" />);
    expect(none).toContain('title="nobody asked"');
    expect(none).toContain("–");
    expect(renderToStaticMarkup(<Value of={0} show={String} why="nobody asked" />)).toBe("0");
  });

  it("says each reason of a lost connection once, and nothing while it holds", () => {
    const lost = renderToStaticMarkup(
      <Connection
        lost={
          new Map([
            ["keys", "x"],
            ["overview", "x"],
          ])
        }
      />,
    );
    expect(lost).toContain("Connection lost, trying again");
    expect(lost.match(/>x</g)).toHaveLength(1);
    expect(renderToStaticMarkup(<Connection lost={new Map()} />)).not.toContain("lost");
  });

  it("says what an empty table means", () => {
    const table = (
      <Table label="Keys" columns={[]} rows={[]} idOf={String} empty="There are no keys." />
    );
    expect(renderToStaticMarkup(table)).toContain("There are no keys.");
  });
});

describe("the standing of a key", () => {
  const now_ms = Date.parse("2026-11-22T12:00:00Z");
  it.each([
    [null, null, "active"],
    ["2026-11-22T12:00:01Z", null, "active until"],
    ["2026-11-22T12:00:00Z", null, "expired"],
    ["2026-11-20T12:00:00Z", "2026-11-19T12:00:00Z", "revoked"],
  ])("expiring %s and revoked %s is %s", (expires_utc, revoked_utc, word) => {
    expect(standing({ expires_utc, revoked_utc }, now_ms).word).toBe(word);
  });
});
