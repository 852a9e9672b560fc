// A device in a browser: WebTransport where it gets through, WebSocket where it does not. It answers each message that asks for it, and
// reports what it sees to the server of this page.

const { edge, token, deviceId, conversationId } = Object.fromEntries(new URLSearchParams(location.search));
const PROTOCOL = 'antiphon.v1.json';
const PATIENCE_MS = 3000;

const report = (what) => fetch('report', { method: 'POST', body: JSON.stringify(what) });
const bytesOfHex = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
const within = (promise, ms) =>
  Promise.race([promise, new Promise((_, fail) => setTimeout(() => fail(new Error('took too long')), ms))]);

// Frames on a stream, each behind its length in four bytes, big-endian.
async function overWebTransport(offer) {
  const hashes = offer.certificateSha256
    ? [{ algorithm: 'sha-256', value: bytesOfHex(offer.certificateSha256) }]
    : [];
  const session = new WebTransport(`${offer.url}?protocol=${PROTOCOL}`, { serverCertificateHashes: hashes });
  await within(session.ready, PATIENCE_MS);
  const stream = await session.createBidirectionalStream();
  const writer = stream.writable.getWriter();
  const send = (frame) => {
    const body = new TextEncoder().encode(JSON.stringify(frame));
    const framed = new Uint8Array(4 + body.length);
    new DataView(framed.buffer).setUint32(0, body.length);
    framed.set(body, 4);
    return writer.write(framed);
  };
  const receive = async (take) => {
    const reader = stream.readable.getReader();
    let held = new Uint8Array(0);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held = Uint8Array.from([...held, ...value]);
      while (held.length >= 4) {
        const length = new DataView(held.buffer).getUint32(0);
        if (held.length < 4 + length) break;
        take(JSON.parse(new TextDecoder().decode(held.slice(4, 4 + length))));
        held = held.slice(4 + length);
      }
    }
  };
  return { name: 'webtransport', send, receive };
}

async function overWebSocket(offer) {
  const socket = new WebSocket(offer.url, PROTOCOL);
  const waiting = [];
  let take = (frame) => waiting.push(frame);
  socket.onmessage = (event) => take(JSON.parse(event.data));
  await new Promise((open, fail) => {
    socket.onopen = open;
    socket.onerror = () => fail(new Error('no WebSocket'));
  });
  const receive = async (taker) => {
    waiting.forEach(taker);
    take = taker;
  };
  return { name: 'websocket', send: (frame) => socket.send(JSON.stringify(frame)), receive };
}

async function connect() {
  const { transports } = await (await fetch(`${edge}/v1/transports`)).json();
  const offer = (name) => transports.find((transport) => transport.name === name);
  try {
    return await overWebTransport(offer('webtransport'));
  } catch (failure) {
    await report({ failed: 'webtransport', why: String(failure) });
    return overWebSocket(offer('websocket'));
  }
}

try {
  const connection = await connect();
  let answered = 0;
  const received = connection.receive((frame) => {
    if (frame.welcome) report({ connected: connection.name });
    const { text, senderId } = frame.message ?? {};
    if (text?.startsWith('ping ')) {
      answered += 1;
      const send = { conversationId, clientMsgId: `page-${answered}`, text: text.replace('ping', 'pong') };
      connection.send({ id: `s${answered}`, send });
      report({ heard: text, from: senderId });
    }
  });
  await connection.send({ id: 'hello', hello: { accessToken: token, deviceId, cursors: [] } });
  await received;
} catch (failure) {
  report({ failed: 'page', why: String(failure) });
}
