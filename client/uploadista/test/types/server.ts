// What a server in TypeScript writes, compiled under strict: services declared as Uploadista's are, its server's options,
// and what must not compile.
import { openPublisher } from "@stoa/client/server";
import {
  BaseEventEmitter, eventSerializer, StoaEmitter, stoaDurableObjectNamespace, stoaEventBroadcaster, stoaEventEmitter,
  typedEmitter, type FlowEvent, type UploadEvent, type WebSocketConnection,
} from "@stoa/uploadista";
import { Context, Data, Effect, Layer } from "effect";

class TheirError extends Data.TaggedError("UploadistaError")<{ code: string; status: number; body: string }> {}
interface TheirEmitter {
  readonly subscribe: (key: string, connection: WebSocketConnection) => Effect.Effect<void, TheirError>;
  readonly unsubscribe: (key: string) => Effect.Effect<void, TheirError>;
  readonly emit: (key: string, event: string) => Effect.Effect<void, TheirError>;
}
class TheirEmitterService extends Context.Tag("BaseEventEmitter")<TheirEmitterService, TheirEmitter>() {}
interface TheirBroadcaster {
  readonly publish: (channel: string, message: string) => Effect.Effect<void, TheirError>;
  readonly subscribe: (channel: string, handler: (message: string) => void) => Effect.Effect<void, TheirError>;
  readonly unsubscribe?: (channel: string) => Effect.Effect<void, TheirError>;
}
class TheirBroadcasterService extends Context.Tag("EventBroadcaster")<TheirBroadcasterService, TheirBroadcaster>() {}
interface ServerOptions {
  readonly eventEmitter?: Layer.Layer<TheirEmitterService>;
  readonly eventBroadcaster?: Layer.Layer<TheirBroadcasterService>;
}
const server = (options: ServerOptions): ServerOptions => options;

export const one = server({ eventEmitter: stoaEventEmitter({ url: "http://127.0.0.1:8080", token: async () => "t" }) });
export const two = server({ eventBroadcaster: stoaEventBroadcaster({ url: "http://127.0.0.1:8080", routers: "router-0:7100" }) });
export const three = server({ eventEmitter: stoaEventEmitter(new StoaEmitter({ publisher: await openPublisher({ url: "http://x" }) })) });
// @ts-expect-error the one is not the other
export const four = server({ eventEmitter: stoaEventBroadcaster({ url: "http://x" }) });
// @ts-expect-error there is no such option
stoaEventEmitter({ adress: "http://x" });

/** Their code, on our layer: nothing is left to provide. */
const emits = Effect.flatMap(TheirEmitterService, (emitter) => emitter.emit("u1", "text"));
export const provided: Effect.Effect<void, TheirError> = Effect.provide(emits, stoaEventEmitter({ url: "http://x" }));

/** Our service, against theirs. */
export const fits: TheirEmitter = Context.get(Context.make(BaseEventEmitter, {} as BaseEventEmitter), BaseEventEmitter);

const uploads = typedEmitter(fits as BaseEventEmitter, eventSerializer("upload_event"));
const flows = typedEmitter(fits as BaseEventEmitter, eventSerializer("flow_event"));
const progress: UploadEvent = { type: "upload-progress", data: { id: "u", progress: 1, total: 2 } };
const paused: FlowEvent = { eventType: "flow-pause", jobId: "j", flowId: "f", pausedAt: "n" };
export const emitted: Effect.Effect<void> = Effect.zipRight(uploads.emit("u", progress), flows.emit("j", paused));
// @ts-expect-error progress needs a total
export const wrong = uploads.emit("u", { type: "upload-progress", data: { id: "u", progress: 1 } });
// @ts-expect-error a flow's event is no upload's
export const mixed = uploads.emit("u", paused);

const namespace = stoaDurableObjectNamespace({ url: "http://127.0.0.1:8080" });
export const sent: Promise<void> = namespace.get(namespace.idFromName("u1")).emit("text");
