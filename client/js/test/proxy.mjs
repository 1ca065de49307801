/** A TCP proxy in front of a gateway, by which tests cut connections, refuse upgrades and fall silent. */
import net from "node:net";

/**
 * `proxy.url`; `cut()` resets all connections; `refuseUpgrades`: answers an upgrade with 400; `blackhole`: takes
 * connections and passes nothing on; `requests`: the first line of each request head that came.
 */
export async function startProxy(port) {
  const sockets = new Set();
  const proxy = { refuseUpgrades: false, blackhole: false, requests: [] };
  const server = net.createServer((client) => {
    const upstream = net.connect(port, "127.0.0.1");
    const both = [client, upstream];
    for (const socket of both) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        for (const other of both) other.destroy();
      });
    }
    client.on("data", (bytes) => {
      const head = bytes.subarray(0, 2048).toString("latin1");
      if (/^(GET|POST|DELETE) /.test(head)) {
        proxy.requests.push(head.split("\r\n")[0]);
        if (proxy.refuseUpgrades && /\r\nupgrade: websocket/i.test(head)) {
          client.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
          return;
        }
      }
      if (!proxy.blackhole) upstream.write(bytes);
    });
    upstream.on("data", (bytes) => { if (!proxy.blackhole) client.write(bytes); });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  // Node 20 never gets rid of a handle that is reset while its end is under way, and turns at exit for ever.
  const reset = (socket) => socket.writableEnded ? socket.destroy() : socket.resetAndDestroy();
  proxy.cut = () => sockets.forEach(reset);
  proxy.connections = () => sockets.size / 2;
  proxy.upgrades = () => proxy.requests.filter((line) => line.includes("/stoa")).length;
  proxy.close = () => new Promise((resolve) => {
    server.close(resolve);
    proxy.cut();
  });
  return proxy;
}
