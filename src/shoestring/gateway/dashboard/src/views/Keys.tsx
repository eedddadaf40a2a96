import { useCallback, useState, type Dispatch } from "react";
import type { Api } from "../api/client";
import type { CreatedKey, Key } from "../api/contract";
import { Panel } from "../parts/Panel";
import { Table } from "../parts/Table";
import { usePoll } from "../polling/usePoll";
import type { Change } from "../state/page";
import { keyColumns } from "./keyColumns";
import { NewKeyDialog } from "./NewKeyDialog";
import { RevokeDialog } from "./RevokeDialog";
import { SecretDialog } from "./SecretDialog";

interface Props {
  readonly api: Api;
  readonly paused: boolean;
  readonly dispatch: Dispatch<Change>;
  readonly keys: readonly Key[] | null;
}

type Open =
  | { readonly kind: "none" }
  | { readonly kind: "new" }
  | { readonly kind: "secret"; readonly created: CreatedKey }
  | { readonly kind: "revoke"; readonly key: Key };

export function Keys({ api, paused, dispatch, keys }: Props) {
  const [open, setOpen] = useState<Open>({ kind: "none" });
  const [again, setAgain] = useState(0);
  const [stale, setStale] = useState(false); // a change of ours shows even on a paused page
  const arrived = useCallback((known: readonly Key[]): Change => {
    setStale(false);
    return { kind: "arrived", known: { keys: known } };
  }, []);
  usePoll("keys", api.keys, arrived, dispatch, {
    paused: paused && keys !== null && !stale,
    again,
  });
  const close = () => {
    setOpen({ kind: "none" });
  };
  const askAgain = () => {
    setAgain((times) => times + 1);
    setStale(true);
  };

  const create = (
    <button
      type="button"
      className="primary"
      onClick={() => {
        setOpen({ kind: "new" });
      }}
    >
      New key
    </button>
  );
  return (
    <>
      <Panel title="Keys" hint="use since the gateway began" actions={create}>
        {keys === null ? (
          <p className="empty">Asking the gateway…</p>
        ) : (
          <Table
            label="Keys"
            columns={keyColumns((key) => {
              setOpen({ kind: "revoke", key });
            })}
            rows={keys}
            idOf={({ id }) => id}
            empty="There are no keys."
          />
        )}
      </Panel>
      {open.kind === "new" && (
        <NewKeyDialog
          api={api}
          onClose={close}
          onCreated={(created) => {
            setOpen({ kind: "secret", created });
            askAgain();
          }}
        />
      )}
      {open.kind === "secret" && <SecretDialog created={open.created} onClose={close} />}
      {open.kind === "revoke" && (
        <RevokeDialog
          api={api}
          revoked={open.key}
          onClose={close}
          onRevoked={() => {
            close();
            askAgain();
          }}
        />
      )}
    </>
  );
}
