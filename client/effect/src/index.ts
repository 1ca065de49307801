/**
 * @stoa/effect: Stoa's rooms for Effect programs, with the verbs and error tags of Durable Object
 * rooms.
 */
export { defineRoom, type MethodSchemas, type RoomDefinition, type RoomSchemas } from "./contract.js";
export * from "./errors.js";
export type { Token } from "./request.js";
export {
  makeRooms,
  Rooms,
  type ConnectionInfo,
  type Member,
  type RoomClient,
  type RoomsOptions,
  type RoomsService,
  type RunOptions,
} from "./rooms.js";
