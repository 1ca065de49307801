/**
 * What the link plug-in of oRPC's durable iterators did around the published client: a token from the app's own
 * procedure, a socket that reconnects, `subscribe` that retries for ever, methods that do not, and a token that is
 * renewed on the same socket before it ends. Both generations, by the `orpc` that is given.
 */
import { WebSocket as ReconnectingWebSocket } from "partysocket";
import WebSocket from "ws";

const claimsOf = (token) => JSON.parse(token.startsWith("{")
  ? token.slice(0, token.lastIndexOf("."))
  : Buffer.from(token.split(".")[1], "base64url").toString());

/**
 * `token()` fetches one. `orpc`: { createORPCClient, RPCLink, ClientRetryPlugin } of one generation. `id`: of the second
 * generation. `refresh`: seconds before its end at which a token is renewed.
 */
export async function durable({ url, token: fetchToken, orpc, id, refresh = NaN, reconnect = {} }) {
  let token = await fetchToken(), timer, renewed = 0;
  const address = () => {
    const target = new URL(url);
    if (id !== undefined) target.searchParams.append("id", id);
    target.searchParams.append("token", token);
    return target.toString();
  };
  const socket = new ReconnectingWebSocket(address, undefined,
    { WebSocket, minReconnectionDelay: 20, maxReconnectionDelay: 100, ...reconnect });
  const link = new orpc.RPCLink({ websocket: socket, plugins: [new orpc.ClientRetryPlugin()] });
  const peer = orpc.createORPCClient(link);
  const plan = () => {
    const left = claimsOf(token).exp * 1000 - Date.now() - refresh * 1000;
    if (Number.isFinite(left)) timer = setTimeout(renew, Math.max(0, left));
  };
  const renew = async () => {
    const before = claimsOf(token);
    token = await fetchToken();
    const now = claimsOf(token);
    if (now.chn === before.chn && JSON.stringify(now.tags) === JSON.stringify(before.tags)) {
      await peer.updateToken({ token });
      renewed++;
    } else {
      socket.reconnect();
    }
    plan();
  };
  plan();
  const abort = new AbortController();
  const events = await peer.subscribe({}, { context: { retry: Number.POSITIVE_INFINITY }, signal: abort.signal });
  return {
    events,
    socket,
    renewed: () => renewed,
    call: (path, input) => peer.call(input === undefined ? { path } : { path, input }),
    peer,
    async close() {
      clearTimeout(timer);
      abort.abort();
      await events.return?.().catch(() => {});
      socket.close();
    },
  };
}
