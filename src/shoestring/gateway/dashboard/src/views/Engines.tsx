import type { Alias, Engine, EngineState } from "../api/contract";
import { Dot, type Mood } from "../parts/Dot";
import { Panel } from "../parts/Panel";
import { Share } from "../parts/Share";
import { Table, type Column } from "../parts/Table";
import { Time } from "../parts/Time";
import { Value } from "../parts/Value";
import { bytes, count } from "../text/format";
import { AliasList } from "./AliasList";

const MOODS: Readonly<Record<EngineState, Mood>> = {
  healthy: "good",
  down: "bad",
  unknown: "quiet",
};

const COLUMNS: readonly Column<Engine>[] = [
  {
    title: "Engine",
    cell: ({ name, kind }) => (
      <>
        <b>{name}</b>
        <br />
        <span className="hint">{kind}</span>
      </>
    ),
  },
  {
    title: "State",
    cell: ({ state, since_utc }) => (
      <>
        <Dot mood={MOODS[state]}>{state}</Dot>
        <br />
        <span className="hint">
          <Time utc={since_utc} as="ago" />
        </span>
      </>
    ),
  },
  { title: "Models", cell: ({ models }) => <Names of={models} why="it names none" /> },
  {
    title: "Active of slots",
    numeric: true,
    cell: ({ active, slots }) => (
      <>
        {count(active)} of {count(slots)}
        <Share of={active} full={slots} />
      </>
    ),
  },
  { title: "Waiting", numeric: true, cell: ({ waiting }) => count(waiting) },
  {
    title: "Memory",
    numeric: true,
    cell: ({ memory_bytes }) => (
      <Value of={memory_bytes} show={bytes} why="the engine does not tell its memory" />
    ),
  },
  {
    title: "Last error",
    cell: ({ last_error }) => (
      <Value of={last_error} show={(text) => text} why="none since the start" />
    ),
  },
];

interface Props {
  readonly engines: readonly Engine[];
  readonly aliases: readonly Alias[];
}

export function Engines({ engines, aliases }: Props) {
  return (
    <>
      <Panel title="Engines">
        <Table
          label="Engines"
          columns={COLUMNS}
          rows={engines}
          idOf={({ name }) => name}
          empty="No engine is set: name one in the settings file."
        />
      </Panel>
      <Panel title="Aliases" hint="a key stays with its target">
        <AliasList aliases={aliases} />
      </Panel>
    </>
  );
}

function Names({ of, why }: { readonly of: readonly string[]; readonly why: string }) {
  if (of.length === 0) return <Value of={null} show={String} why={why} />;
  return (
    <ul className="names">
      {of.map((name) => (
        <li key={name} className="mono">
          {name}
        </li>
      ))}
    </ul>
  );
}
