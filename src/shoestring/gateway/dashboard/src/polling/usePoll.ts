import { useEffect, type Dispatch } from "react";
import { SignedOutError, textOf } from "../api/errors";
import type { Change, Source } from "../state/page";
import { poll } from "./poll";

/**
 * Poll one source while the component stands; what comes changes the page.
 *
 * `ask` and `toChange` must stay the same between renders. `again` asks at once when it changes.
 */
export function usePoll<T>(
  source: Source,
  ask: (signal: AbortSignal) => Promise<T>,
  toChange: (value: T) => Change,
  dispatch: Dispatch<Change>,
  { paused = false, again = 0 } = {},
): void {
  useEffect(() => {
    if (paused) return undefined;
    const end = poll(ask, {
      arrived: (value) => {
        dispatch(toChange(value));
      },
      failed: (error) => {
        dispatch(
          error instanceof SignedOutError
            ? { kind: "turned_out" }
            : { kind: "lost", source, why: textOf(error) },
        );
      },
    });
    return () => {
      end();
      dispatch({ kind: "left", source });
    };
  }, [source, ask, toChange, dispatch, paused, again]);
}
