/**
 * The panel's one websocket. A handover moves it to the new version's process without this page noticing; `reconnects`
 * counts the times it broke all the same.
 */
const RETRY_MS_MAX = 4_000;

/**
 * @param {{ hello(m: object): void, telemetry(m: object): void, frame(bytes: ArrayBuffer): void, state(state: 'connecting' | 'live' | 'lost', reconnects: number): void }} on
 */
export const openLink = (on) => {
  let reconnects = -1;
  let retryMs = 250;
  const connect = () => {
    reconnects += 1;
    on.state(reconnects === 0 ? 'connecting' : 'lost', reconnects);
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      retryMs = 250;
      on.state('live', reconnects);
    };
    socket.onmessage = ({ data }) => {
      if (typeof data !== 'string') return on.frame(data);
      const message = JSON.parse(data);
      if (message.type === 'hello') on.hello(message);
      else if (message.type === 'telemetry') on.telemetry(message);
    };
    socket.onclose = () => {
      on.state('lost', reconnects);
      setTimeout(connect, retryMs);
      retryMs = Math.min(2 * retryMs, RETRY_MS_MAX);
    };
  };
  connect();
};
