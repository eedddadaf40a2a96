import type { Dispatch } from "react";
import type { Api } from "./api/client";
import type { Overview, SessionKey } from "./api/contract";
import { SignedOutError, textOf } from "./api/errors";
import { ThemeButton } from "./parts/ThemeButton";
import type { View } from "./route";
import type { Change } from "./state/page";
import { duration } from "./text/format";

interface Props {
  readonly api: Api;
  readonly session: SessionKey;
  readonly views: readonly View[];
  readonly view: View;
  readonly overview: Overview | null;
  readonly paused: boolean;
  readonly setPaused: (paused: boolean) => void;
  readonly dispatch: Dispatch<Change>;
}

export function Header(props: Props) {
  const { api, session, views, view, overview, paused, setPaused, dispatch } = props;

  const signOut = async () => {
    try {
      await api.signOut();
    } catch (error) {
      if (!(error instanceof SignedOutError)) {
        dispatch({ kind: "lost", source: "session", why: `not signed out: ${textOf(error)}` });
        return;
      }
    }
    dispatch({ kind: "signed_out" });
  };

  return (
    <header className="top">
      <div className="brand">
        <img src="./favicon.svg" alt="" width="22" height="22" />
        <span>shoestring</span>
        {overview !== null && (
          <span className="hint wide-only" title={`running for ${duration(overview.uptime_s)}`}>
            {overview.version}, up {duration(overview.uptime_s)}
          </span>
        )}
      </div>
      <nav aria-label="Views">
        {views.map(({ id, title }) => (
          <a key={id} href={`#${id}`} aria-current={id === view.id ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <div className="tools">
        <button
          type="button"
          className="quiet"
          aria-pressed={paused}
          title={paused ? "Updates are paused" : "Updates every 2 s"}
          onClick={() => {
            setPaused(!paused);
          }}
        >
          <svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
            <path d={paused ? "M4.5 2.5 13 8l-8.5 5.5Z" : "M4 3H6.5V13H4ZM9.5 3H12V13H9.5Z"} />
          </svg>
          <span className="wide-only">{paused ? "paused" : "live"}</span>
          <span className="unseen">: pause updates</span>
        </button>
        <ThemeButton />
        <span className="who wide-only" title={`key ${session.id}: ${session.scopes.join(", ")}`}>
          {session.name}
        </span>
        <button type="button" onClick={() => void signOut()}>
          Sign out
        </button>
      </div>
    </header>
  );
}
