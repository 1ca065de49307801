/**
 * @stoa/uploadista: Uploadista's event emitter, event broadcaster and Durable Object namespace on Stoa.
 */
export { StoaBroadcaster, type BroadcasterStats, type StoaBroadcasterOptions } from "./broadcaster.js";
export { StoaEmitter, type EmitterStats, type StoaEmitterOptions } from "./emitter.js";
export { eventSerializer, type FlowEvent, type FlowOf, type Serializer, type UploadEvent, type UploadFile } from "./events.js";
export {
  BaseEventEmitter, EventBroadcaster, eventEmitterService, stoaEventBroadcaster, stoaEventEmitter, typedEmitter,
  type BaseEventEmitterId, type EventBroadcasterId, type TypedEventEmitter,
} from "./layers.js";
export { stoaDurableObjectNamespace, type EventEmitterNamespace, type EventEmitterStub, type ObjectId } from "./namespace.js";
export type { ConnectOptions, EventPublisher } from "./options.js";
export type { EmitStats } from "./outbox.js";
export type { WebSocketConnection } from "./viewers.js";
