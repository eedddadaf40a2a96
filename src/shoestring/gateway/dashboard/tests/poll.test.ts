import { beforeEach, describe, expect, it, vi } from "vitest";
import { EVERY_S, poll, type Surroundings } from "../src/polling/poll";

/** A page whose time and visibility the test moves. */
class Stage implements Surroundings {
  visible = true;
  private now_s = 0;
  private readonly timers = new Map<() => void, number>();
  private readonly watchers = new Set<() => void>();

  isVisible = () => this.visible;

  watchVisibility(changed: () => void) {
    this.watchers.add(changed);
    return () => void this.watchers.delete(changed);
  }

  later(action: () => void, delay_s: number) {
    this.timers.set(action, this.now_s + delay_s);
    return () => void this.timers.delete(action);
  }

  async pass(seconds: number) {
    this.now_s += seconds;
    for (const [action, due_s] of [...this.timers]) {
      if (due_s > this.now_s) continue;
      this.timers.delete(action);
      action();
    }
    await settled();
  }

  async show(visible: boolean) {
    this.visible = visible;
    for (const watcher of this.watchers) watcher();
    await settled();
  }
}

const settled = () => new Promise((done) => setTimeout(done, 0));

type Ask = (signal: AbortSignal) => Promise<string>;

let stage: Stage;
const arrived = vi.fn();
const failed = vi.fn();
const listener = { arrived, failed };

beforeEach(() => {
  vi.clearAllMocks();
  stage = new Stage();
});

describe("polling", () => {
  it("asks at once, and again some time after each answer", async () => {
    const ask = vi.fn<Ask>(() => Promise.resolve("here"));
    poll(ask, listener, stage);
    await settled();
    await stage.pass(EVERY_S - 0.01);
    expect(ask).toHaveBeenCalledTimes(1);
    await stage.pass(0.01);
    expect(ask).toHaveBeenCalledTimes(2);
    expect(arrived.mock.calls).toEqual([["here"], ["here"]]);
  });

  it("never asks twice at once, however slow the answer", async () => {
    const ask = vi.fn<Ask>(() => new Promise<string>(() => undefined));
    poll(ask, listener, stage);
    await stage.pass(60);
    expect(ask).toHaveBeenCalledTimes(1);
  });

  it("goes on after a failure", async () => {
    const away = new Error("away");
    const ask = vi.fn<Ask>(() => Promise.resolve("back")).mockRejectedValueOnce(away);
    poll(ask, listener, stage);
    await settled();
    expect(failed).toHaveBeenCalledExactlyOnceWith(away);
    await stage.pass(EVERY_S);
    expect(arrived).toHaveBeenCalledExactlyOnceWith("back");
  });

  it("asks nothing while hidden, and at once when seen again", async () => {
    const ask = vi.fn<Ask>(() => Promise.resolve("here"));
    poll(ask, listener, stage);
    await settled();
    await stage.show(false);
    await stage.pass(600);
    expect(ask).toHaveBeenCalledTimes(1);
    await stage.show(true);
    expect(ask).toHaveBeenCalledTimes(2);
    await stage.pass(EVERY_S);
    expect(ask).toHaveBeenCalledTimes(3);
  });

  it("does not begin while hidden", async () => {
    stage.visible = false;
    const ask = vi.fn<Ask>(() => Promise.resolve("here"));
    poll(ask, listener, stage);
    await stage.pass(60);
    expect(ask).not.toHaveBeenCalled();
  });

  it("gives up and drops the answer that it waits for when hidden or ended", async () => {
    const signals: AbortSignal[] = [];
    let answer: (value: string) => void = () => undefined;
    const ask = (signal: AbortSignal) => {
      signals.push(signal);
      return new Promise<string>((resolve) => {
        answer = resolve;
      });
    };
    const end = poll(ask, listener, stage);
    await stage.show(false);
    answer("late");
    await settled();
    await stage.show(true);
    end();
    answer("later");
    await stage.pass(60);
    await stage.show(true);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
    expect(arrived).not.toHaveBeenCalled();
    expect(failed).not.toHaveBeenCalled();
  });
});
