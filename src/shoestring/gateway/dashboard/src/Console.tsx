import { useEffect, useRef, useState, type Dispatch } from "react";
import type { Api } from "./api/client";
import type { Overview, SessionKey } from "./api/contract";
import { Header } from "./Header";
import { Connection } from "./parts/Connection";
import { usePoll } from "./polling/usePoll";
import { useHash, viewAt, viewsFor } from "./route";
import type { Change, Page } from "./state/page";
import { Engines } from "./views/Engines";
import { Keys } from "./views/Keys";
import { OverviewView } from "./views/OverviewView";
import { Playground } from "./views/Playground";
import { Requests } from "./views/Requests";

interface Props {
  readonly api: Api;
  readonly page: Page;
  readonly session: SessionKey;
  readonly dispatch: Dispatch<Change>;
}

const arrived = (overview: Overview): Change => ({ kind: "arrived", known: { overview } });

/** What somebody sees who has signed in. */
export function Console({ api, page, session, dispatch }: Props) {
  const main = useRef<HTMLElement>(null);
  const [paused, setPaused] = useState(false);
  const views = viewsFor(session.scopes);
  const view = viewAt(useHash(), views);
  const { overview } = page;
  usePoll("overview", api.overview, arrived, dispatch, { paused: paused && overview !== null });
  useEffect(() => {
    document.title = `${view.title} · shoestring gateway`;
  }, [view]);

  return (
    <>
      <a
        className="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault(); // the hash names the view
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <Header {...{ api, session, views, view, overview, paused, setPaused, dispatch }} />
      <main ref={main} tabIndex={-1}>
        <h1 className="unseen">{view.title}</h1>
        <Connection lost={page.lost} />
        {view.id === "keys" ? (
          <Keys {...{ api, paused, dispatch }} keys={page.keys} />
        ) : view.id === "requests" ? (
          <Requests {...{ api, paused, dispatch }} requests={page.requests} />
        ) : overview === null ? (
          <p className="empty">Asking the gateway…</p>
        ) : view.id === "overview" ? (
          <OverviewView overview={overview} />
        ) : view.id === "engines" ? (
          <Engines engines={overview.engines} aliases={overview.aliases} />
        ) : (
          <Playground models={overview.models} />
        )}
      </main>
    </>
  );
}
