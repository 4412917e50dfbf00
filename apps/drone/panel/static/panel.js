/** The control panel: wires the link to the instruments, and says when another version took over. */
import { createChart } from '/chart.js';
import { createHorizon } from '/horizon.js';
import { openLink } from '/link.js';
import { createPlace } from '/place.js';
import { createRotors } from '/rotors.js';
import { colourOf, short } from '/versions.js';
import { createViews } from '/views.js';

const HANDOVER_SHOWN_MS = 20_000;
const LOG_MAX = 3;
const $ = (id) => document.getElementById(id);
const put = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};
const signed = (value, digits, unit) => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}${unit}`;

const chart = createChart($('gyro'), $('ribbon'));
const horizon = createHorizon($('horizon'));
const rotors = createRotors($('rotors'));
const place = createPlace($('place'));
const views = createViews($('views'));
const instruments = [chart, horizon, rotors, place];

let telemetry = null;
let fresh = false;
let state = 'connecting';
let reconnects = 0;
let handovers = 0;
let handoverTimer;

const log = (text) => {
  const item = document.createElement('li');
  const time = document.createElement('time');
  time.textContent = new Date().toLocaleTimeString([], { hour12: false });
  item.append(time, text);
  $('log').append(item);
  while ($('log').children.length > LOG_MAX) $('log').firstChild.remove();
};

const changeVersion = (before, after) => {
  document.documentElement.style.setProperty('--version', colourOf(after));
  put('release', short(after));
  $('badge').title = after;
  if (before === null) return;
  handovers += 1;
  document.documentElement.style.setProperty('--before', colourOf(before));
  $('badge').classList.remove('changed');
  void $('badge').offsetWidth; // restarts the animation
  $('badge').classList.add('changed');
  put('handover-from', short(before));
  put('handover-to', short(after));
  put('handover-note', 'same page, same connection');
  $('handover').hidden = false;
  clearTimeout(handoverTimer);
  handoverTimer = setTimeout(() => {
    $('handover').hidden = true;
  }, HANDOVER_SHOWN_MS);
  log(`${short(after)} took over from ${short(before)}`);
};

openLink({
  hello(message) {
    const late = views.hello(message.views);
    for (const title of late) log(`${short(message.release)} brought a new view: ${title}`);
  },
  telemetry(message) {
    if (telemetry?.release !== message.release) changeVersion(telemetry?.release ?? null, message.release);
    telemetry = message;
    fresh = true;
    chart.add(message.release, message.trace);
    horizon.set(message.attitudeDeg[0], message.attitudeDeg[1]);
    rotors.set(message.rotors);
    place.set(message.position, message.goalM);
  },
  frame: (bytes) => views.frame(bytes),
  state(now, count) {
    if (count > reconnects) views.restart();
    if (state === 'live' && now === 'lost') log('connection lost');
    state = now;
    reconnects = count;
    $('link').dataset.state = now;
    $('link').lastElementChild.textContent = now;
    put('reconnects', String(count));
  },
});

const openedMs = performance.now();
const draw = (nowMs) => {
  requestAnimationFrame(draw);
  rotors.draw(nowMs);
  const s = Math.floor((nowMs - openedMs) / 1e3);
  put('open', `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}`);
  put('lost', String(views.counts().reduce((sum, { lost }) => sum + lost, 0)));
  if (!fresh || telemetry === null) return;
  fresh = false;
  for (const instrument of instruments) if (instrument !== rotors) instrument.draw();
  const [roll, pitch, yaw] = telemetry.attitudeDeg;
  put('roll', signed(roll, 2, '°'));
  put('pitch', signed(pitch, 2, '°'));
  put('yaw', signed(yaw, 1, '°'));
  put('height', `${(-telemetry.position[2]).toFixed(3)} m`);
  put('north', signed(telemetry.position[0], 3, ''));
  put('east', signed(telemetry.position[1], 3, ''));
  put('phase', telemetry.phase);
  put('epoch', `epoch ${telemetry.epoch}`);
};
requestAnimationFrame(draw);

/** For tests, and for whoever has the console open. */
globalThis.panel = {
  get facts() {
    return {
      state,
      reconnects,
      handovers,
      release: telemetry?.release ?? null,
      phase: telemetry?.phase ?? null,
      samples: chart.samples,
      views: views.counts(),
    };
  },
};
