// A subscription that several components look at: one per client, key, options and fold, held as long as somebody
// looks and a tick longer, so that Strict Mode's second mount, a component that moves in the tree, or two components
// that want the same share it. No React in here.
//
// Watch: the subscription and what was folded from it. View: what one hook holds; it is made while rendering, which
// must not have effects, and finds or opens its watch only when React subscribes to it.
import type { Stoa } from "../index.js";
import type { Event, Member, Missed, Status, StatusDetail, Subscription, SubscribeOptions } from "../types.js";
import { onNextFrame } from "./frame.js";

/** A hook's status: that of its subscription, or `idle` for the key `null`. */
export type HookStatus = "idle" | Status;

/** How events become a state. Two hooks share a watch only if all three are the same objects. */
export interface Fold<T, S> {
  readonly initial: S;
  readonly reducer: (state: S, event: Event<T>) => S;
  /** The state from which the retained events are folded after a gap. Default: `initial`. */
  readonly onMissed?: ((missed: Missed, state: S) => S) | undefined;
}

/** What is subscribed. */
export interface WatchOptions {
  readonly after?: string | undefined;
  readonly replay?: "all" | "none" | number | undefined;
  /** How many of the newest events are kept beside the state. */
  readonly keep?: number | undefined;
  readonly presence?: boolean | undefined;
  /** Goes to the room's `identify`. */
  readonly connectionState?: unknown;
}

/** What hooks render; a new object whenever something in it changed, at most once a frame. */
export interface Snapshot<T, S> {
  readonly state: S;
  readonly events: readonly Event<T>[];
  readonly members: readonly Member[] | null;
  readonly missed: Missed | null;
  readonly status: HookStatus;
  readonly detail: StatusDetail;
  readonly error: Error | null;
}

type Draft<T, S> = { -readonly [Name in keyof Snapshot<T, S>]: Snapshot<T, S>[Name] };

const NO_EVENTS: readonly never[] = [];
const NO_DETAIL: StatusDetail = {};

const coldSnapshot = <T, S>(state: S, status: HookStatus): Snapshot<T, S> => ({
  state, events: NO_EVENTS, members: null, missed: null, status, detail: NO_DETAIL, error: null,
});

const sameFold = <T, S>(a: Fold<T, S>, b: Fold<T, S>): boolean =>
  a.reducer === b.reducer && Object.is(a.initial, b.initial) && a.onMissed === b.onMissed;

const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)));

/** One subscription, folded. */
class Watch<T, S> {
  /** Its state comes from one fold alone, so that others may look at it too. */
  pure = true;
  snapshot: Snapshot<T, S>;
  readonly #listeners = new Set<() => void>();
  readonly #keep: number;
  readonly #forget: () => void;
  /** What the next frame will tell. */
  readonly #draft: Draft<T, S>;
  /** The newest events, and until they are trimmed some older ones. */
  #recent: Event<T>[] = [];
  #subscription: Subscription<T> | null = null;
  #cancelFrame: (() => void) | null = null;
  #release: ReturnType<typeof setTimeout> | null = null;

  constructor(client: Stoa, key: string, options: WatchOptions, public fold: Fold<T, S>, forget: () => void) {
    this.#keep = options.keep ?? 0;
    this.#forget = forget;
    this.snapshot = coldSnapshot(fold.initial, "connecting");
    this.#draft = { ...this.snapshot };
    const how: SubscribeOptions = {
      after: options.after, replay: options.replay, state: options.connectionState,
      onMissed: (missed) => this.#missed(missed),
      onStatus: (status, detail) => this.#change({ status, detail, ...(detail.error && status === "closed" && { error: detail.error }) }),
      onError: (error) => this.#fail(error),
      ...(options.presence && { onPresence: ({ members }) => this.#change({ members }) }),
    };
    try {
      this.#subscription = client.subscribe<T>(key, how, (event) => this.#take(event));
    } catch (thrown) {
      this.#fail(asError(thrown)); // a key that cannot be one
    }
  }

  get viewers(): number {
    return this.#listeners.size;
  }

  enter(listener: () => void): void {
    if (this.#release !== null) clearTimeout(this.#release);
    this.#release = null;
    this.#listeners.add(listener);
  }

  leave(listener: () => void): void {
    this.#listeners.delete(listener);
    if (this.#listeners.size === 0) this.#release ??= setTimeout(() => this.#end(), 0);
  }

  #end(): void {
    this.#forget();
    this.#subscription?.close();
    this.#cancelFrame?.();
    this.#cancelFrame = null;
  }

  #take(event: Event<T>): void {
    let state: S;
    try {
      state = this.fold.reducer(this.#draft.state, event);
    } catch (thrown) {
      this.#subscription?.close();
      return this.#fail(asError(thrown));
    }
    if (this.#keep > 0) {
      this.#recent.push(event);
      if (this.#recent.length > 2 * this.#keep) this.#recent = this.#recent.slice(-this.#keep);
    } else if (Object.is(state, this.#draft.state)) {
      return;
    }
    this.#change({ state });
  }

  #missed(missed: Missed): void {
    const { initial, onMissed } = this.fold;
    const state = onMissed ? onMissed(missed, this.#draft.state) : initial;
    this.#recent = [];
    this.#change({ missed, state });
  }

  #fail(error: Error): void {
    this.#change({ status: "closed", error });
  }

  /** Notes it at once, tells it with the next frame. */
  #change(changed: Partial<Snapshot<T, S>>): void {
    Object.assign(this.#draft, changed);
    this.#cancelFrame ??= onNextFrame(() => {
      this.#cancelFrame = null;
      if (this.#keep > 0 && !this.#sameEvents()) this.#draft.events = this.#recent.slice(-this.#keep);
      this.snapshot = { ...this.#draft };
      for (const listener of [...this.#listeners]) listener();
    });
  }

  /** Whether the events that were told last are still the newest. */
  #sameEvents(): boolean {
    const told = this.#draft.events;
    return told.at(-1) === this.#recent.at(-1) && told.length === Math.min(this.#recent.length, this.#keep);
  }
}

type AnyWatch = Watch<never, never>;

/** Watchs by client, then by key and options; those of one address differ in their folds. */
const registry = new WeakMap<Stoa, Map<string, Set<AnyWatch>>>();

const find = <T, S>(client: Stoa, address: string, fold: Fold<T, S>): Watch<T, S> | undefined => {
  for (const watch of registry.get(client)?.get(address) ?? []) {
    const candidate = watch as unknown as Watch<T, S>;
    if (candidate.pure && sameFold(candidate.fold, fold)) return candidate;
  }
  return undefined;
};

function open<T, S>(client: Stoa, address: string, key: string, options: WatchOptions, fold: Fold<T, S>): Watch<T, S> {
  const addresses = registry.get(client) ?? new Map<string, Set<AnyWatch>>();
  registry.set(client, addresses);
  const watches = addresses.get(address) ?? new Set<AnyWatch>();
  addresses.set(address, watches);
  const watch: Watch<T, S> = new Watch(client, key, options, fold, () => {
    watches.delete(watch as unknown as AnyWatch);
    if (watches.size === 0 && addresses.get(address) === watches) addresses.delete(address);
  });
  watches.add(watch as unknown as AnyWatch);
  return watch;
}

/** What a hook subscribes to. Making one has no effect. */
export class View<T, S> {
  readonly #client: Stoa;
  readonly #key: string | null;
  readonly #options: WatchOptions;
  readonly #address: string;
  readonly #cold: Snapshot<T, S>;
  readonly #idle: Snapshot<T, S>;
  #fold: Fold<T, S>;
  #watch: Watch<T, S> | null = null;
  #listener: (() => void) | null = null;

  /** With the key `null` it stays idle for ever. */
  constructor(client: Stoa, key: string | null, options: WatchOptions, fold: Fold<T, S>) {
    this.#client = client;
    this.#key = key;
    this.#options = options;
    this.#fold = fold;
    this.#address = addressOf(key, options);
    this.#idle = coldSnapshot(fold.initial, "idle");
    this.#cold = coldSnapshot(fold.initial, "connecting");
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    if (this.#key === null) return () => {};
    const own = () => listener(); // the same function twice is still two listeners
    this.#listener = own;
    this.#enter(own);
    return () => {
      this.#watch?.leave(own);
      this.#watch = this.#listener = null;
    };
  };

  readonly getSnapshot = (): Snapshot<T, S> => {
    if (this.#key === null) return this.#idle;
    return (this.#watch ?? find(this.#client, this.#address, this.#fold))?.snapshot ?? this.#cold;
  };

  readonly getServerSnapshot = (): Snapshot<T, S> => (this.#key === null ? this.#idle : this.#cold);

  /**
   * A render brought another reducer: it folds the events to come, as that of `useReducer`. Who shares the watch with
   * others leaves them theirs and opens one of its own.
   */
  refold(fold: Fold<T, S>): void {
    if (sameFold(fold, this.#fold)) return;
    this.#fold = fold;
    if (this.#watch === null || this.#listener === null) return;
    if (this.#watch.viewers === 1) {
      this.#watch.fold = fold;
      this.#watch.pure = false;
      return;
    }
    this.#watch.leave(this.#listener);
    this.#enter(this.#listener);
    this.#listener();
  }

  #enter(listener: () => void): void {
    if (this.#key === null) return;
    this.#watch =
      find(this.#client, this.#address, this.#fold) ??
      open(this.#client, this.#address, this.#key, this.#options, this.#fold);
    this.#watch.enter(listener);
  }
}

/** Key and options as one text: hooks with equal ones may share, and a change of it is a new subscription. */
export const addressOf = (key: string | null, options: WatchOptions): string =>
  JSON.stringify([key, options.after, options.replay, options.keep, options.presence, options.connectionState]);
