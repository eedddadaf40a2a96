import type { Key } from "../api/contract";
import { Dot } from "../parts/Dot";
import { Share } from "../parts/Share";
import type { Column } from "../parts/Table";
import { Time } from "../parts/Time";
import { Value } from "../parts/Value";
import { count } from "../text/format";
import { KeyLimitsList } from "./KeyLimitsList";
import { standing } from "./keyStanding";

export function keyColumns(revoke: (key: Key) => void): readonly Column<Key>[] {
  return [
    {
      title: "Key",
      cell: ({ id, name }) => (
        <>
          <b>{name}</b>
          <br />
          <span className="hint mono">{id}</span>
        </>
      ),
    },
    {
      title: "State",
      cell: (key) => {
        const { mood, word, utc } = standing(key, Date.now());
        return (
          <>
            <Dot mood={mood}>{word}</Dot>
            {utc !== null && (
              <>
                <br />
                <span className="hint">
                  <Time utc={utc} as="day" />
                </span>
              </>
            )}
          </>
        );
      },
    },
    {
      title: "May",
      cell: ({ scopes, models }) => (
        <>
          {scopes.join(", ")}
          <br />
          <span className="hint mono">
            {models.length === 0 ? "all models" : models.join(", ")}
          </span>
        </>
      ),
    },
    { title: "Limits", cell: ({ limits }) => <KeyLimitsList limits={limits} /> },
    {
      title: "Budget",
      cell: ({ limits: { budget_tokens, budget_period }, use: { budget_used_tokens } }) =>
        budget_tokens === null ? (
          <Value of={null} show={String} why="this key has no budget" />
        ) : (
          <>
            <Value of={budget_used_tokens} show={count} why="its use is not known" /> of{" "}
            {count(budget_tokens)}
            <br />
            <span className="hint">tokens {PERIOD_WORDS[budget_period]}</span>
            <Share of={budget_used_tokens ?? 0} full={budget_tokens} />
          </>
        ),
    },
    { title: "Requests", numeric: true, cell: ({ use }) => count(use.requests) },
    { title: "Refused", numeric: true, cell: ({ use }) => count(use.rejected) },
    { title: "Tokens in", numeric: true, cell: ({ use }) => count(use.input_tokens) },
    { title: "Tokens out", numeric: true, cell: ({ use }) => count(use.output_tokens) },
    {
      title: "Last used",
      cell: ({ use: { last_used_utc } }) =>
        last_used_utc === null ? (
          <Value of={null} show={String} why="not since the gateway began" />
        ) : (
          <Time utc={last_used_utc} as="ago" />
        ),
    },
    {
      title: "Revoke",
      cell: (key) =>
        key.revoked_utc === null && (
          <button
            type="button"
            className="small"
            aria-label={`Revoke ${key.name}`}
            onClick={() => {
              revoke(key);
            }}
          >
            Revoke
          </button>
        ),
    },
  ];
}

const PERIOD_WORDS = { day: "a day", month: "a month", ever: "in all" } as const;
