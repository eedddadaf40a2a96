import { useState, type Dispatch } from "react";
import type { Api } from "../api/client";
import type { Outcome } from "../api/contract";
import { Panel } from "../parts/Panel";
import { Table } from "../parts/Table";
import { usePoll } from "../polling/usePoll";
import type { Change } from "../state/page";
import { isFailed, matches } from "./requestFilter";
import { REQUEST_COLUMNS } from "./requestColumns";

interface Props {
  readonly api: Api;
  readonly paused: boolean;
  readonly dispatch: Dispatch<Change>;
  readonly requests: readonly Outcome[] | null;
}

const arrived = (requests: readonly Outcome[]): Change => ({
  kind: "arrived",
  known: { requests },
});

export function Requests({ api, paused, dispatch, requests }: Props) {
  usePoll("requests", api.requests, arrived, dispatch, { paused: paused && requests !== null });
  const [words, setWords] = useState("");
  const [failuresOnly, setFailuresOnly] = useState(false);
  if (requests === null) return <p className="empty">Asking the gateway…</p>;

  const shown = requests.filter(
    (request) => (!failuresOnly || isFailed(request)) && matches(request, words),
  );
  const filters = (
    <>
      <label className="check">
        <input
          type="checkbox"
          checked={failuresOnly}
          onChange={(event) => {
            setFailuresOnly(event.target.checked);
          }}
        />
        Failures only
      </label>
      <input
        type="search"
        aria-label="Find in requests"
        placeholder="key, model, engine, id…"
        value={words}
        onChange={(event) => {
          setWords(event.target.value);
        }}
      />
    </>
  );
  return (
    <Panel
      title="Recent requests"
      hint={`${shown.length} of ${requests.length}, newest first`}
      actions={filters}
    >
      <Table
        label="Recent requests"
        columns={REQUEST_COLUMNS}
        rows={shown}
        idOf={({ request_id }) => request_id}
        empty={
          requests.length === 0
            ? "Nobody asked anything yet."
            : "None of the recent requests is such a one."
        }
      />
    </Panel>
  );
}
