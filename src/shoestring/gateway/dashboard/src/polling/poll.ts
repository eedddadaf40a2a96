/** Ask again and again while somebody looks. */

export const EVERY_S = 2;

/** The page as the poller sees it; a test gives its own. */
export interface Surroundings {
  isVisible(): boolean;
  /** Call back when visibility changes, until the returned function is called. */
  watchVisibility(changed: () => void): () => void;
  /** Do something later, unless the returned function is called before. */
  later(action: () => void, delay_s: number): () => void;
}

export const THIS_PAGE: Surroundings = {
  isVisible: () => document.visibilityState === "visible",
  watchVisibility: (changed) => {
    document.addEventListener("visibilitychange", changed);
    return () => {
      document.removeEventListener("visibilitychange", changed);
    };
  },
  later: (action, delay_s) => {
    const timer = setTimeout(action, delay_s * 1000);
    return () => {
      clearTimeout(timer);
    };
  },
};

export interface Listener<T> {
  readonly arrived: (value: T) => void;
  readonly failed: (error: unknown) => void;
}

const nothing = (): void => undefined;

/**
 * Ask now and two seconds after each answer; never twice at once, and not while hidden.
 *
 * Returns what ends it. An answer that comes after the end, or after hiding, is dropped.
 */
export function poll<T>(
  ask: (signal: AbortSignal) => Promise<T>,
  listener: Listener<T>,
  around: Surroundings = THIS_PAGE,
): () => void {
  let flight: AbortController | null = null;
  let cancelTimer = nothing;

  const pause = (): void => {
    cancelTimer();
    flight?.abort();
    flight = null;
  };

  const askOnce = async (): Promise<void> => {
    const own = new AbortController();
    flight = own;
    const tell = await ask(own.signal).then(
      (value) => () => {
        listener.arrived(value);
      },
      (error: unknown) => () => {
        listener.failed(error);
      },
    );
    if (own.signal.aborted) return;
    flight = null;
    cancelTimer = around.later(() => void askOnce(), EVERY_S);
    tell();
  };

  const look = (): void => {
    if (!around.isVisible()) pause();
    else if (flight === null) {
      cancelTimer();
      void askOnce();
    }
  };

  const unwatch = around.watchVisibility(look);
  look();
  return () => {
    unwatch();
    pause();
  };
}
