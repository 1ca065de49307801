/**
 * CORE. XXH3, 64 bits, with a seed, for texts of up to 240 bytes: the identity of a cluster is the
 * hash of its name, and HELLO carries it. It runs once per publisher, so it is written for the
 * reader: every number is a bigint.
 */
const MASK = (1n << 64n) - 1n;
const PRIME64_1 = 0x9e3779b185ebca87n;
const PRIME64_2 = 0xc2b2ae3d27d4eb4fn;
const PRIME64_3 = 0x165667b19e3779f9n;
const PRIME_MX1 = 0x165667919e3779f9n;
const PRIME_MX2 = 0x9fb21c651e98df25n;

/** XXH3's default secret. */
const SECRET = Buffer.from(
  "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f" +
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c" +
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8" +
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364" +
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e" +
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e",
  "hex",
);
/** The longest text that {@link xxh3} takes. */
export const XXH3_MAX_BYTES = 240;

const u32 = (b: Buffer, at: number): bigint => BigInt(b.readUInt32LE(at));
const u64 = (b: Buffer, at: number): bigint => b.readBigUInt64LE(at);
const rotl = (x: bigint, n: bigint): bigint => ((x << n) | (x >> (64n - n))) & MASK;
const swap64 = (x: bigint): bigint => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(x);
  return b.readBigUInt64BE();
};
const swap32 = (x: bigint): bigint => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(Number(x));
  return BigInt(b.readUInt32BE());
};
const foldMultiply = (a: bigint, b: bigint): bigint => {
  const product = a * b;
  return (product & MASK) ^ (product >> 64n);
};

function avalanche(hash: bigint): bigint {
  let h = hash ^ (hash >> 37n);
  h = (h * PRIME_MX1) & MASK;
  return h ^ (h >> 32n);
}

function avalanche64(hash: bigint): bigint {
  let h = hash ^ (hash >> 33n);
  h = (h * PRIME64_2) & MASK;
  h ^= h >> 29n;
  h = (h * PRIME64_3) & MASK;
  return h ^ (h >> 32n);
}

function upTo16(b: Buffer, seed: bigint): bigint {
  const size = b.length;
  if (size > 8) {
    const low = u64(b, 0) ^ (((u64(SECRET, 24) ^ u64(SECRET, 32)) + seed) & MASK);
    const high = u64(b, size - 8) ^ (((u64(SECRET, 40) ^ u64(SECRET, 48)) - seed) & MASK);
    return avalanche((BigInt(size) + swap64(low) + high + foldMultiply(low, high)) & MASK);
  }
  if (size >= 4) {
    const mixed = seed ^ (swap32(seed & 0xffffffffn) << 32n);
    const keyed =
      (u32(b, size - 4) + (u32(b, 0) << 32n)) ^
      (((u64(SECRET, 8) ^ u64(SECRET, 16)) - mixed) & MASK);
    let h = keyed ^ rotl(keyed, 49n) ^ rotl(keyed, 24n);
    h = (h * PRIME_MX2) & MASK;
    h ^= (h >> 35n) + BigInt(size);
    h = (h * PRIME_MX2) & MASK;
    return h ^ (h >> 28n);
  }
  if (size > 0) {
    const first = BigInt(b.readUInt8(0));
    const middle = BigInt(b.readUInt8(size >> 1));
    const last = BigInt(b.readUInt8(size - 1));
    const combined = (first << 16n) | (middle << 24n) | last | (BigInt(size) << 8n);
    return avalanche64(combined ^ (((u32(SECRET, 0) ^ u32(SECRET, 4)) + seed) & MASK));
  }
  return avalanche64(seed ^ u64(SECRET, 56) ^ u64(SECRET, 64));
}

function mix16(b: Buffer, at: number, secret: number, seed: bigint): bigint {
  return foldMultiply(
    u64(b, at) ^ ((u64(SECRET, secret) + seed) & MASK),
    u64(b, at + 8) ^ ((u64(SECRET, secret + 8) - seed) & MASK),
  );
}

function upTo128(b: Buffer, seed: bigint): bigint {
  const size = b.length;
  let sum = BigInt(size) * PRIME64_1;
  for (let i = (size - 1) >> 5; i >= 0; i--) {
    sum += mix16(b, 16 * i, 32 * i, seed);
    sum += mix16(b, size - 16 * (i + 1), 32 * i + 16, seed);
  }
  return avalanche(sum & MASK);
}

function upTo240(b: Buffer, seed: bigint): bigint {
  const size = b.length;
  let sum = BigInt(size) * PRIME64_1;
  for (let i = 0; i < 8; i++) sum += mix16(b, 16 * i, 16 * i, seed);
  sum = avalanche(sum & MASK);
  for (let i = 8; i < size >> 4; i++) sum += mix16(b, 16 * i, 16 * (i - 8) + 3, seed);
  sum += mix16(b, size - 16, 136 - 17, seed);
  return avalanche(sum & MASK);
}

/** XXH3_64bits_withSeed of a text of at most {@link XXH3_MAX_BYTES} bytes. */
export function xxh3(text: Buffer, seed: bigint): bigint {
  if (text.length > XXH3_MAX_BYTES) throw new RangeError("xxh3: at most 240 bytes");
  if (text.length <= 16) return upTo16(text, seed);
  return text.length <= 128 ? upTo128(text, seed) : upTo240(text, seed);
}

const SEED_OF_CLUSTER_ID = 2n;

/** What a cluster of that name says in HELLO and WELCOME. */
export function clusterId(name: string): bigint {
  return xxh3(Buffer.from(name, "utf8"), SEED_OF_CLUSTER_ID);
}
