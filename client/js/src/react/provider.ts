"use client";
// Which client the hooks below use.
import { createContext, createElement, useContext, useEffect, useMemo, useRef, type ReactElement, type ReactNode } from "react";
import { Stoa } from "../index.js";
import type { StoaOptions } from "../types.js";

const StoaContext = createContext<Stoa | null>(null);

/** A client that lives elsewhere, or the gateway's address, from which one is made. */
export type StoaProviderProps = { readonly children?: ReactNode } & (
  | { readonly client: Stoa; readonly url?: never; readonly options?: never }
  | {
      readonly client?: never;
      /** The gateway. Default: the origin of this page. Another one is another client. */
      readonly url?: string | URL | undefined;
      /** Read when the client is made; of `token`, when it is a function, the newest is asked. */
      readonly options?: StoaOptions | undefined;
    }
);

/** Where a page came from is where its gateway is; a server renders without ever connecting. */
const ownOrigin = (): string => globalThis.location?.origin ?? "http://localhost";

/**
 * Gives the hooks below it their client. A client that it made itself needs no closing: its socket closes a few
 * seconds after the last hook let go (`options.idle`).
 */
export function StoaProvider({ client, url, options, children }: StoaProviderProps): ReactElement {
  const address = String(url ?? ownOrigin());
  const newest = useRef(options);
  useEffect(() => {
    newest.current = options;
  });
  const value = useMemo(() => {
    if (client) return client;
    const made = { ...newest.current };
    if (typeof made.token === "function")
      made.token = () => {
        const token = newest.current?.token;
        return typeof token === "function" ? token() : token;
      };
    return new Stoa(address, made);
  }, [client, address]);
  return createElement(StoaContext.Provider, { value }, children);
}

/** The client of the `StoaProvider` above. Its `publish`, `log` and `room` are for event handlers and effects. */
export function useStoa(): Stoa {
  const client = useContext(StoaContext);
  if (client === null) throw new Error("useStoa: there is no <StoaProvider> above this component; put one at the root");
  return client;
}
