/** Server-sent events, cut from text that arrives in pieces of any size. */

/** Takes pieces; gives back the data of the events that are whole by now. */
export function eventReader(): (piece: string) => string[] {
  let rest = "";
  return (piece) => {
    // A CR at the end may be the first half of a line's end.
    const text = rest + piece;
    const safe = text.endsWith("\r") ? text.length - 1 : text.length;
    const blocks = text.slice(0, safe).replace(/\r\n?/g, "\n").split("\n\n");
    rest = (blocks.pop() ?? "") + text.slice(safe);
    return blocks.map(dataOf).filter((data) => data !== null);
  };
}

function dataOf(block: string): string | null {
  const lines = block
    .split("\n")
    .filter((line) => line.startsWith("data:"))
    .map((line) => line.slice(5).replace(/^ /, ""));
  return lines.length === 0 ? null : lines.join("\n");
}
