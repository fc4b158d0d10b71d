// A cti.v1 client in JavaScript, for browsers (Node 22 too: CTI_URL=... CTI_TOKEN=... node client.mjs): prints each pop.
const { CTI_URL, CTI_TOKEN } = globalThis.process ? process.env : { CTI_URL: `${location.origin.replace("http", "ws")}/ws` };
let epoch, mark; // where to resume; nothing yet

function connect() {
  const line = new WebSocket(CTI_URL, "cti.v1");
  const send = (frame) => line.readyState === WebSocket.OPEN && line.send(JSON.stringify(frame));
  line.onopen = () => send({ op: "hello", id: "1", token: CTI_TOKEN, resume: mark }); // without a token: the cookie
  const beat = setInterval(() => send({ op: "ping", id: "beat" }), 20_000);
  line.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "welcome" && !frame.resumed) [epoch, mark] = [frame.epoch, undefined];
    else if ("seq" in frame && frame.type !== "welcome") mark = { epoch, seq: frame.seq }; // the snapshot, every fact
    else if (frame.id === "beat" && mark) mark.seq = Math.max(mark.seq, frame.data.seq);
    if (frame.type === "pop.shown" || frame.type === "pop.updated") {
      const pop = frame.data.view;
      console.log(pop.formatted ?? pop.number, "for", pop.queue, pop.candidates.map((one) => one.account.name));
    }
  };
  line.onclose = ({ code }) => {
    clearInterval(beat);
    if ([4400, 4401, 4403, 4409].includes(code)) console.log("refused:", code);
    else setTimeout(connect, 1000);
  };
  // Node tells of a refused connection by an error alone; browsers by a close too, which is then the one that counts.
  line.onerror = () => line.readyState === WebSocket.CONNECTING && line.onclose({ code: 1006 });
}
connect();
