/**
 * CORE. Endpoint texts of routers, by the rules of client/endpoint.c: "tcp://host:port",
 * "host:port" or "ipc:///path".
 */
import { StoaError } from "../errors.js";
import { ENDPOINT_MAX_BYTES, ROUTERS_MAX } from "./limits.js";

const SOCKET_PATH_MAX_BYTES = 107; // what an address of a socket file holds

function invalid(text: string, what: string): never {
  throw new StoaError("BadRequest", 0, `router "${text.slice(0, 100)}": ${what}`);
}

function parseTcp(text: string): string {
  const address = text.startsWith("tcp://") ? text.slice(6) : text;
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, Math.max(colon, 0));
  const port = address.slice(colon + 1);
  if (host === "") invalid(text, "host:port is wanted");
  if (!/^[0-9]{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65535)
    invalid(text, "the port is a number from 1 to 65535");
  const fits = host.startsWith("[") ? /^\[[0-9a-fA-F:.%]+\]$/ : /^[!-~]+$/;
  if (!fits.test(host) || /[/;@*]/.test(host) || (!host.startsWith("[") && host.includes(":")))
    invalid(text, "a host's name or address is wanted, IPv6 in brackets: [::1]:7100");
  return `tcp://${address}`;
}

/** One endpoint as ZeroMQ wants it. */
export function parseEndpoint(text: string): string {
  if (Buffer.byteLength(text, "utf8") + 7 > ENDPOINT_MAX_BYTES) invalid(text, "too long");
  if (text.startsWith("ipc://")) {
    const path = text.slice(6);
    const size = Buffer.byteLength(path, "utf8");
    if (size === 0 || size > SOCKET_PATH_MAX_BYTES || path.includes("\0"))
      invalid(text, "the path of a socket file is wanted, of at most 107 bytes");
    return text;
  }
  if (text.includes("://") && !text.startsWith("tcp://"))
    invalid(text, "only tcp:// and ipc:// are spoken");
  return parseTcp(text);
}

/** A list, or a text with commas; at least one. */
export function parseRouters(routers: string | readonly string[]): string[] {
  const texts = (typeof routers === "string" ? routers.split(",") : routers.flatMap((one) => String(one).split(",")))
    .map((one) => one.trim())
    .filter((one) => one !== "");
  if (texts.length === 0)
    throw new StoaError("BadRequest", 0, "no router given: say where to publish, like tcp://127.0.0.1:7100");
  if (texts.length > ROUTERS_MAX) throw new StoaError("BadRequest", 0, `at most ${ROUTERS_MAX} routers`);
  return texts.map(parseEndpoint);
}
