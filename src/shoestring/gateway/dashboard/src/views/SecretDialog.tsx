import type { CreatedKey } from "../api/contract";
import { CopyField } from "../parts/CopyField";
import { Dialog } from "../parts/Dialog";

/** The only time that a key's secret is seen; Escape does not lose it. */
export function SecretDialog({
  created,
  onClose,
}: {
  readonly created: CreatedKey;
  readonly onClose: () => void;
}) {
  return (
    <Dialog title="Keep this key now" onClose={onClose} escapable={false}>
      <p>
        This is the only time that the secret of <b>{created.key.name}</b> is shown. The gateway
        keeps its hash only.
      </p>
      <CopyField label="Key" text={created.secret} />
      <div className="buttons">
        <button type="button" onClick={onClose}>
          I have kept it
        </button>
      </div>
    </Dialog>
  );
}
