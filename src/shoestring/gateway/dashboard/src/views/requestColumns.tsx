import type { Outcome } from "../api/contract";
import { Dot } from "../parts/Dot";
import type { Column } from "../parts/Table";
import { Time } from "../parts/Time";
import { Value } from "../parts/Value";
import { count, duration } from "../text/format";
import { isFailed } from "./requestFilter";

const NO_COUNT = "the engine sent no count";

export const REQUEST_COLUMNS: readonly Column<Outcome>[] = [
  {
    title: "Time",
    cell: ({ t_utc, request_id }) => (
      <>
        <Time utc={t_utc} as="clock" />
        <br />
        <span className="hint mono id" title={request_id}>
          {request_id}
        </span>
      </>
    ),
  },
  {
    title: "Key",
    cell: ({ key_name, address }) => (
      <>
        {key_name}
        <br />
        <span className="hint">{address}</span>
      </>
    ),
  },
  {
    title: "Model",
    cell: ({ model, variant, engine }) => (
      <>
        <span className="mono">{model}</span>
        <br />
        <span className="hint">{[variant, engine].filter((name) => name !== "").join(" on ")}</span>
      </>
    ),
  },
  {
    title: "What",
    cell: ({ operation, stream }) => (
      <>
        {operation}
        <br />
        <span className="hint">{stream ? "streamed" : "whole"}</span>
      </>
    ),
  },
  {
    title: "Outcome",
    cell: (request) => (
      <>
        <Dot mood={isFailed(request) ? "bad" : "good"}>{String(request.status)}</Dot>
        <br />
        <span className="hint">{request.failure ?? `cache ${request.cache}`}</span>
      </>
    ),
  },
  { title: "Queued", numeric: true, cell: ({ queue_s }) => duration(queue_s) },
  {
    title: "TTFT",
    numeric: true,
    cell: ({ ttft_s }) => <Value of={ttft_s} show={duration} why="no first token was seen" />,
  },
  { title: "Took", numeric: true, cell: ({ duration_s }) => duration(duration_s) },
  {
    title: "Tokens in",
    numeric: true,
    cell: ({ input_tokens }) => <Value of={input_tokens} show={count} why={NO_COUNT} />,
  },
  {
    title: "Tokens out",
    numeric: true,
    cell: ({ output_tokens }) => <Value of={output_tokens} show={count} why={NO_COUNT} />,
  },
];
