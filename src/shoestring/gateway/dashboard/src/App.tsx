import { useCallback, useReducer, type Dispatch } from "react";
import type { Api } from "./api/client";
import type { SessionKey } from "./api/contract";
import { Console } from "./Console";
import { Connection } from "./parts/Connection";
import { usePoll } from "./polling/usePoll";
import { changed, START, type Change, type Page } from "./state/page";
import { SignIn } from "./views/SignIn";

/** The whole page: nobody knows yet who looks, somebody has to sign in, or somebody has. */
export function App({ api }: { readonly api: Api }) {
  const [page, dispatch] = useReducer(changed, START);
  const reload = useCallback(async () => {
    dispatch({ kind: "signed_in", key: await api.session(new AbortController().signal) });
  }, [api]);

  if (page.session === undefined) return <Asking api={api} page={page} dispatch={dispatch} />;
  if (page.session === null) return <SignIn api={api} why={page.whyOut} onSignedIn={reload} />;
  return <Console api={api} page={page} session={page.session} dispatch={dispatch} />;
}

interface AskingProps {
  readonly api: Api;
  readonly page: Page;
  readonly dispatch: Dispatch<Change>;
}

const signedIn = (key: SessionKey): Change => ({ kind: "signed_in", key });

function Asking({ api, page, dispatch }: AskingProps) {
  usePoll("session", api.session, signedIn, dispatch);
  return (
    <main className="alone">
      <Connection lost={page.lost} />
    </main>
  );
}
