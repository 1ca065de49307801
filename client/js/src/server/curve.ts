/**
 * CORE. CURVE keys: Z85 text of 40 characters each. As in libstoa the secret key is enough: the
 * public key follows from it, and the routers' is taken to be the same pair unless another is named.
 */
import { createPrivateKey, createPublicKey } from "node:crypto";

import { StoaError } from "../errors.js";

const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
/** What stands before 32 bytes of an X25519 private key in PKCS #8. */
const PKCS8 = Buffer.from("302e020100300506032b656e04220420", "hex");
const KEY_BYTES = 32;
const KEY_TEXT = 40;

/** A publisher's CURVE keys. */
export interface CurveOptions {
  readonly secretKey: string;
  /** Default: that of `secretKey`. */
  readonly publicKey?: string | undefined;
  /** The routers'. Default: `publicKey`, for clusters that share one pair. */
  readonly serverKey?: string | undefined;
}

export type CurveKeys = { readonly [name in keyof CurveOptions]-?: string };

function refuse(name: string, what: string): never {
  throw new StoaError("BadRequest", 0, `curve.${name}: ${what}`); // never the key itself
}

function decode(name: string, text: unknown): Buffer {
  const wanted = "a CURVE key is 40 characters of Z85 (stoa keygen makes one)";
  if (typeof text !== "string" || text.length !== KEY_TEXT) refuse(name, wanted);
  const bytes = Buffer.alloc(KEY_BYTES);
  for (let i = 0; i < KEY_TEXT; i += 5) {
    let value = 0;
    for (let k = 0; k < 5; k++) {
      const digit = DIGITS.indexOf(text[i + k] as string);
      if (digit < 0) refuse(name, wanted);
      value = value * 85 + digit;
    }
    if (value > 0xffffffff) refuse(name, wanted);
    bytes.writeUInt32BE(value, (i / 5) * 4);
  }
  return bytes;
}

function encode(bytes: Buffer): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4) {
    let value = bytes.readUInt32BE(i);
    let five = "";
    for (let k = 0; k < 5; k++) {
      five = (DIGITS[value % 85] as string) + five;
      value = Math.floor(value / 85);
    }
    text += five;
  }
  return text;
}

function publicOf(secret: Buffer): string {
  const key = createPrivateKey({ key: Buffer.concat([PKCS8, secret]), format: "der", type: "pkcs8" });
  return encode(createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-KEY_BYTES));
}

/** All three, checked; null: links are in clear. */
export function curveKeys(given: CurveOptions | undefined): CurveKeys | null {
  if (!given) return null;
  const publicKey = publicOf(decode("secretKey", given.secretKey));
  if (given.publicKey !== undefined && given.publicKey !== publicKey)
    refuse("publicKey", "it is not that of secretKey; leave it out");
  const serverKey = given.serverKey ?? publicKey;
  decode("serverKey", serverKey);
  return { secretKey: given.secretKey, publicKey, serverKey };
}
