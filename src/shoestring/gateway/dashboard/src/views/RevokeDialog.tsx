import { useState } from "react";
import type { Api } from "../api/client";
import type { Key } from "../api/contract";
import { textOf } from "../api/errors";
import { Dialog } from "../parts/Dialog";

interface Props {
  readonly api: Api;
  readonly revoked: Key;
  readonly onClose: () => void;
  readonly onRevoked: () => void;
}

export function RevokeDialog({ api, revoked, onClose, onRevoked }: Props) {
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const revoke = async () => {
    if (busy) return;
    setBusy(true);
    try {
      await api.revokeKey(revoked.id);
      onRevoked();
    } catch (error) {
      setProblem(textOf(error));
      setBusy(false);
    }
  };
  return (
    <Dialog title="Revoke this key?" onClose={onClose}>
      <p>
        <b>{revoked.name}</b> <span className="hint mono">{revoked.id}</span>
      </p>
      <p>Whoever holds it is refused from now on. This cannot be undone.</p>
      <div role="alert">{problem !== null && <p className="notice bad">{problem}</p>}</div>
      <div className="buttons">
        <button type="button" autoFocus onClick={onClose}>
          Cancel
        </button>
        <button type="button" className="danger" aria-disabled={busy} onClick={() => void revoke()}>
          Revoke
        </button>
      </div>
    </Dialog>
  );
}
