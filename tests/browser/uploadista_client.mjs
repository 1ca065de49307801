// A browser client in the manner of Uploadista's own, written from what that one was seen to do: native WebSockets on
// its fixed paths, every frame checked before it counts, no reconnect. Runs inside the page (as text), so it uses
// nothing from outside.

export function stock_client(base, token) {
  const text = (value) => typeof value === "string";
  const number = (value) => typeof value === "number";
  const maybe = (check) => (value) => value === undefined || check(value);
  const object = (members) => (value) => typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.entries(members).every(([name, check]) => check(value[name]));
  const one_of = (...checks) => (value) => checks.some((check) => check(value));
  const is = (wanted) => (value) => value === wanted;
  const file = object({ id: text, offset: number, storage: object({ id: text, type: text }), size: maybe(number), flow: maybe(object({ flowId: text, nodeId: text, jobId: text })) });
  const event = (type, data) => object({ type: is(type), data, flow: maybe(object({ flowId: text, nodeId: text, jobId: text })) });
  const upload_event = one_of(
    event("upload-started", file), event("upload-complete", file),
    event("upload-progress", object({ id: text, progress: number, total: number })),
    event("upload-failed", object({ id: text, error: text })),
    event("upload-validation-success", object({ id: text, validationType: one_of(is("checksum"), is("mimetype")) })),
    event("upload-validation-failed", object({ id: text, reason: text, expected: text, actual: text })),
    event("upload-validation-warning", object({ id: text, message: text })));
  const message = one_of(
    object({ type: is("upload_event"), payload: upload_event }),
    object({ type: is("flow_event"), payload: (value) => value !== undefined }),
    object({ type: is("subscribed"), payload: object({ eventKey: text }) }),
    object({ type: is("error"), message: maybe(text) }),
    object({ type: is("pong") }), object({ type: is("ping") }),
    object({ type: is("connection"), message: maybe(text), uploadId: maybe(text), timestamp: maybe(text) }));

  const client = { events: [], errors: [], frames: [], closed: {}, sockets: new Map() };
  const query = token ? `?token=${encodeURIComponent(token)}` : "";
  const open = (kind, id, take) => new Promise((resolve) => {
    const socket = new WebSocket(`${base.replace("http", "ws")}/uploadista/ws/${kind}/${id}${query}`);
    client.sockets.set(`${kind}/${id}`, socket);
    socket.onmessage = ({ data }) => {
      client.frames.push(data);
      let frame;
      try { frame = JSON.parse(data); } catch (error) { client.errors.push(String(error)); return; }
      take(frame, data);
    };
    socket.onopen = () => resolve(true);
    socket.onerror = () => client.errors.push("socket error");
    socket.onclose = ({ code, reason }) => {
      client.closed[`${kind}/${id}`] = { code, reason };
      client.sockets.delete(`${kind}/${id}`);
      resolve(false);
    };
  });
  client.open_upload = (id) => open("upload", id, (frame, data) => {
    if (!message(frame)) client.errors.push(`no such message: ${data}`);
    else if (frame.type === "upload_event") client.events.push(frame.payload);
  });
  client.open_flow = (id) => open("flow", id, (frame) => {
    if (frame.type === "flow_event") client.events.push(frame.payload);
    else if (!["subscribed", "connection", "error", "pong"].includes(frame.type)) client.errors.push(`unknown: ${frame.type}`);
  });
  client.ping = (id) => client.sockets.get(`flow/${id}`).send(JSON.stringify({ type: "ping", timestamp: new Date().toISOString() }));
  client.close = (id) => client.sockets.get(id).close();
  return client;
}
