import { useState, type SubmitEvent } from "react";
import type { Api } from "../api/client";
import { textOf } from "../api/errors";
import { ThemeButton } from "../parts/ThemeButton";

interface Props {
  readonly api: Api;
  readonly why: string | null;
  readonly onSignedIn: () => Promise<void>;
}

/** Ask for a key; the gateway keeps the session in a cookie that scripts cannot read. */
export function SignIn({ api, why, onSignedIn }: Props) {
  const [problem, setProblem] = useState(why);
  const [busy, setBusy] = useState(false);

  const signIn = async (form: HTMLFormElement) => {
    const key = new FormData(form).get("key");
    setBusy(true);
    setProblem(null);
    try {
      await api.signIn(typeof key === "string" ? key.trim() : "");
      await onSignedIn();
    } catch (error) {
      setProblem(textOf(error));
      setBusy(false);
    }
  };

  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (!busy) void signIn(event.currentTarget);
  };

  return (
    <main className="alone">
      <form className="panel sign-in" onSubmit={submit}>
        <header>
          <img src="./favicon.svg" alt="" width="28" height="28" />
          <h1>shoestring gateway</h1>
          <ThemeButton />
        </header>
        {/* So that a keeper of passwords has a name to keep the key under. */}
        <input type="text" autoComplete="username" value="shoestring gateway" readOnly hidden />
        <div className="field">
          <label htmlFor="key">Key</label>
          <input
            id="key"
            name="key"
            type="password"
            className="mono"
            required
            autoFocus
            autoComplete="current-password"
            spellCheck={false}
            placeholder="shoe_…"
            aria-describedby="key-hint"
            aria-invalid={problem !== null}
          />
          <p id="key-hint" className="hint">
            A key with the scope <code>dashboard</code> or <code>admin</code>.
          </p>
        </div>
        <div role="alert">{problem !== null && <p className="notice bad">{problem}</p>}</div>
        <button type="submit" className="primary" aria-disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
