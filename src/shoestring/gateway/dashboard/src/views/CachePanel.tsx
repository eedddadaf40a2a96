import type { Cache } from "../api/contract";
import { Dot, type Mood } from "../parts/Dot";
import { Panel } from "../parts/Panel";
import { Share } from "../parts/Share";
import { Value } from "../parts/Value";
import { bytes, count, percent } from "../text/format";

const MOODS: Readonly<Record<string, Mood>> = { on: "good", off: "quiet", lost: "bad" };

/** Answers from memory. */
export function CachePanel({ cache }: { readonly cache: Cache }) {
  const { state, hits, misses, entries } = cache;
  return (
    <Panel title="Cache" actions={<Dot mood={MOODS[state] ?? "quiet"}>{state}</Dot>}>
      <dl className="facts">
        <dt>Hit rate</dt>
        <dd>
          <Value
            of={percent(hits, hits + misses)}
            show={(text) => text}
            why="nobody asked it yet"
          />
          <Share of={hits} full={hits + misses} />
        </dd>
        <dt>Hits</dt>
        <dd>{count(hits)}</dd>
        <dt>Misses</dt>
        <dd>{count(misses)}</dd>
        <dt>Answers kept</dt>
        <dd>{count(entries)}</dd>
        <dt>Memory</dt>
        <dd>{bytes(cache.bytes)}</dd>
      </dl>
    </Panel>
  );
}
