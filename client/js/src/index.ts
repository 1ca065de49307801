/**
 * @stoa/client: subscribe, publish, rooms; in browsers and Node.
 */
export { Stoa } from "./client.js";
export { MissedError, StoaError } from "./errors.js";
export { Room } from "./room.js";
export type * from "./types.js";
