// examples/chat/chat.lua as a Durable Object, in the platform's own open runtime: hibernating WebSockets, the
// state in storage, what is said sent behind the write (the runtime holds what leaves until storage has it).
//
//   node peer.mjs MINIFLARE PORT DIRECTORY     MINIFLARE: its folder; runs until SIGTERM
import { createRequire } from "node:module";

const [folder, port, directory] = process.argv.slice(2);
const { Miniflare } = createRequire(import.meta.url)(folder);

const script = `
export class Chat {
  constructor(room) { this.room = room; }

  async fetch(request) {
    const userId = new URL(request.url).searchParams.get("userId") ?? "anon";
    const { 0: client, 1: socket } = new WebSocketPair();
    this.room.acceptWebSocket(socket, ["user:" + userId]);
    socket.serializeAttachment({ userId, joinedAt: Date.now() });
    if (await this.room.storage.get("state") === undefined)
      this.room.storage.put("state", { createdAt: Date.now(), messageCount: 0 });
    this.broadcast({ _tag: "UserJoined", userId }, socket);
    return new Response(null, { status: 101, webSocket: client });
  }

  async webSocketMessage(socket, message) {
    const event = JSON.parse(message);
    const { userId } = socket.deserializeAttachment();
    if (event._tag === "Say" && typeof event.text === "string") {
      const state = await this.room.storage.get("state");
      state.messageCount++;
      this.room.storage.put("state", state);
      this.broadcast({ _tag: "Message", text: event.text, userId, ts: Date.now() });
    } else if (event._tag === "Typing") {
      this.broadcast({ _tag: "Typing", userId }, socket);
    }
  }

  webSocketClose(socket, code) {
    this.broadcast({ _tag: "UserLeft", userId: socket.deserializeAttachment().userId }, socket);
  }

  broadcast(message, except) {
    const text = JSON.stringify(message);
    for (const socket of this.room.getWebSockets())
      if (socket !== except) socket.send(text);
  }
}

export default {
  fetch(request, env) {
    const name = new URL(request.url).pathname;
    if (request.headers.get("Upgrade") !== "websocket") return new Response("a chat room");
    return env.CHAT.get(env.CHAT.idFromName(name)).fetch(request);
  },
};`;

const platform = new Miniflare({
  modules: true, script, host: "127.0.0.1", port: Number(port), compatibilityDate: "2026-01-01",
  durableObjects: { CHAT: { className: "Chat", useSQLite: true } }, durableObjectsPersist: directory,
});
process.on("SIGTERM", () => platform.dispose().then(() => process.exit(0)));
await platform.ready;
