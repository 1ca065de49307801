/** Tokens as oRPC's servers sign them, both generations. */
import { createHmac } from "node:crypto";

export const key = "signing-key-of-the-tests";
const hmac = (text, secret) => createHmac("sha256", secret).update(text).digest("base64url");
const withTimes = (claims) => {
  const iat = Math.floor(Date.now() / 1000);
  return JSON.stringify({ ...claims, iat: claims.iat ?? iat, exp: claims.exp ?? iat + 3600 });
};

export function e2(claims, secret = key) {
  const json = withTimes(claims);
  return `${json}.${hmac(json, secret)}`;
}

export function e1(claims, secret = key) {
  const part = (text) => Buffer.from(text).toString("base64url");
  const head = `${part('{"alg":"HS256"}')}.${part(withTimes({ rpc: [], ...claims }))}`;
  return `${head}.${hmac(head, secret)}`;
}
