import type { Overview } from "../api/contract";
import { Notice } from "../parts/Notice";
import { Time } from "../parts/Time";
import { CachePanel } from "./CachePanel";
import { Charts } from "./Charts";
import { FiguresRow } from "./FiguresRow";

export function OverviewView({ overview }: { readonly overview: Overview }) {
  const down = overview.engines.filter(({ state }) => state === "down");
  return (
    <>
      {overview.draining && (
        <Notice mood="warn">
          The gateway is draining: it ends what runs and takes nothing new.
        </Notice>
      )}
      {overview.redis === "lost" && (
        <Notice mood="warn">
          Redis is lost: limits are counted by each replica, and the cache is off.
        </Notice>
      )}
      {down.map(({ name, since_utc, last_error }) => (
        <Notice key={name} mood="bad">
          <b>{name}</b> went down <Time utc={since_utc} as="ago" />
          {last_error === null ? "" : `: ${last_error}`}
        </Notice>
      ))}
      <FiguresRow figures={overview.figures} />
      <div className="charts">
        <Charts series={overview.series} />
        <CachePanel cache={overview.cache} />
      </div>
    </>
  );
}
