// What the tests in a browser share: programs, ports, a local cluster, Chromium.
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import path from "node:path";
import { chromium } from "playwright-core";

export const root = path.resolve(import.meta.dirname, "../..");
export const bin = path.resolve(process.argv.includes("--bin") ? process.argv[process.argv.indexOf("--bin") + 1] : path.join(root, "build/bin"));

// Below the range of ports that outgoing connections get; the name keeps it from other tests until this one ends.
const listening = (where) => new Promise((resolve) => {
  const server = createServer().once("error", () => resolve(null)).listen(where, () => resolve(server.unref()));
});
export const free_port = async () => {
  for (;;) {
    const port = 12768 + Math.floor(Math.random() * 20000);
    if (!await listening({ path: `\0stoa-test-port-${port}` })) continue;
    const server = await listening({ port, host: "127.0.0.1" });
    if (server) return new Promise((resolve) => { server.close(() => resolve(port)); });
  }
};

// A connection to a port of this machine that can be cut.
export async function wire(port) {
  const ends = new Set();
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const [end, other] of [[near, far], [far, near]]) {
      ends.add(end);
      end.pipe(other);
      end.on("error", () => {}).on("close", () => { ends.delete(end); other.destroy(); });
    }
  }).listen(await free_port(), "127.0.0.1");
  await once(server, "listening");
  const cut = () => { for (const end of ends) end.destroy(); };
  return { url: `http://127.0.0.1:${server.address().port}`, cut, close: () => { cut(); server.close(); } };
}

export const stoa = (...words) => spawnSync(path.join(bin, "stoa"), words, { encoding: "utf8", timeout: 120_000 });

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"] });
