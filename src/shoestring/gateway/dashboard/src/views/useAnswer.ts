import { useCallback, useEffect, useReducer, useRef } from "react";
import { askModel, type Question } from "../api/chat";
import { textOf } from "../api/errors";
import { answering, NO_ANSWER, type Answer } from "../state/answer";

/** Asks one question at a time; leaving the view stops the answer, and the gateway its work. */
export function useAnswer(): {
  readonly answer: Answer;
  readonly ask: (question: Question) => void;
  readonly stop: () => void;
} {
  const [answer, dispatch] = useReducer(answering, NO_ANSWER);
  const flight = useRef<AbortController | null>(null);
  const stop = useCallback(() => {
    flight.current?.abort();
  }, []);
  useEffect(() => stop, [stop]);

  const run = useCallback(async (question: Question) => {
    flight.current?.abort();
    const own = new AbortController();
    flight.current = own;
    dispatch({ kind: "asked", at_s: performance.now() / 1000 });
    try {
      for await (const piece of askModel(question, own.signal)) dispatch(piece);
      dispatch({ kind: "ended" });
    } catch (error) {
      if (flight.current !== own) return; // a newer question has the word
      dispatch(own.signal.aborted ? { kind: "stopped" } : { kind: "failed", why: textOf(error) });
    }
  }, []);

  const ask = useCallback(
    (question: Question) => {
      void run(question);
    },
    [run],
  );
  return { answer, ask, stop };
}
