// The kiosk page. It draws what /events says and nothing else; names and all
// other text go in as text, never as markup.

const $ = (id) => document.getElementById(id);
const texts = JSON.parse($('texts').textContent);
const root = document.documentElement;

const ADVICE_MS = 800;     // one advice stands at least this long
const SILENCE_MS = 5000;   // no ping for this long: the daemon is gone
const SLOW_MS = 2000;      // reading longer than this is said to be slow
const HOME_MS = 60000;     // idle this long: back to the first language and size
const CODED = ['recorded', 'late', 'already', 'unknown', 'noted', 'enrolled'];
const TROUBLE = ['retry', 'unknown', 'noted', 'card_fault', 'paused', 'not_enrolled'];

const home = root.dataset.home;
const quiet = root.dataset.quiet === 'true';
let language = home;
let screen = {state: 'starting'};
let badges = {ready: false};
let page = '';
let lost = false;

// shown is the state on the screen: a page that cannot keep its word says so
// instead of asking for a card.
function shown() {
  const waiting = screen.state === 'idle' || screen.state === 'no_class';
  if (lost) return 'lost';
  if (waiting && !badges.ready) return 'paused';
  if (screen.state === 'idle' && badges.reader) return 'no_reader';
  return screen.state;
}

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? '');

function words(state) {
  const t = texts[language];
  const {headline, advice} = {...t.state[state], ...(state === 'card_fault' && t.fault[screen.reason])};
  const w = {headline: fill(headline, screen), advice: fill(advice, screen), facts: '', code: ''};
  switch (state) {
    case 'reading': if (slow) w.advice = t.slow; break;
    case 'look': w.advice = t.advice[advised] ?? ''; w.facts = screen.tries ? fill(t.try, screen) : ''; break;
    case 'enrol_look': w.advice = advised ? t.advice[advised] ?? '' : w.advice; w.facts = screen.tries ? fill(t.picture, screen) : ''; break;
    case 'enrol_trainee': case 'enrol_officer': case 'not_enrolled': w.advice = t.enrol[screen.reason] ?? w.advice; break;
    case 'retry': w.advice = t.advice[advised] ?? ''; break;
    case 'noted': w.advice = t.noted[screen.reason] ?? t.noted['']; break;
    case 'no_class': w.advice = screen.until ? fill(t.next, screen) : ''; break;
    case 'starting': case 'paused': w.advice = badges.why?.[language] || w.advice; break;
    case 'recorded': case 'late':
      w.facts = [screen.at, screen.ordinal && fill(t.ordinal, screen)].filter(Boolean).join(' · ');
  }
  if (CODED.includes(state)) w.code = screen.code ?? '';
  if (state === 'paused') w.code = screen.reason ?? '';
  return w;
}

function put(id, text) {
  const e = $(id);
  if (e.textContent !== text) e.textContent = text;
  e.hidden = !text;
}

function draw() {
  const t = texts[language];
  const state = shown();
  const w = words(state);
  root.lang = t.lang;
  document.title = t.title;
  document.body.dataset.state = state;
  document.body.dataset.good = String((state === 'look' || state === 'enrol_look') && advised === '');
  put('headline', w.headline);
  put('name', lost ? '' : screen.name ?? '');
  put('advice', w.advice);
  put('facts', w.facts);
  put('receipt-label', state === 'paused' ? t.fault_code : t.receipt);
  put('code', w.code);
  $('receipt').hidden = !w.code;
  put('class', screen.class ?? '');
  put('until', state === 'idle' && screen.until ? fill(t.until, screen) : '');
  for (const li of document.querySelectorAll('[data-badge]')) {
    const key = li.dataset.badge;
    li.hidden = lost || !badges[key] || (key === 'reader' && state === 'no_reader'); // once is enough
    li.lastChild.textContent = fill(t.badge[key === 'offline' && badges.unsent ? 'saved' : key], badges);
  }
  put('identify', ['idle', 'no_reader'].includes(state) && screen.identify && !badges.camera ? t.button.identify : '');
  put('privacy', t.privacy);
  put('size', t.button.size);
  put('language', t.button.language);
  drawTime();
  fit();
}

// fit makes the words smaller until they fit, for long names and large text.
function fit() {
  const box = $('words');
  for (let f = 100; f >= 40; f -= 4) {
    box.style.setProperty('--fit', f / 100);
    if (box.scrollHeight <= box.clientHeight && box.scrollWidth <= box.clientWidth) return;
  }
}

// The terminal's time zone, not the browser's: records carry it.
const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit', minute: '2-digit', timeZone: root.dataset.zone || undefined,
});

// A wrong time is not shown.
function drawTime() {
  put('time', badges.clock ? '' : clock.format(new Date()));
}

// --- advice: the newest, but each stands long enough to be read

let advised = '';
let advisedAt = -Infinity;
let adviceTimer = 0;

function advise() {
  clearTimeout(adviceTimer);
  const wanted = screen.advice ?? '';
  if (wanted === advised) return;
  const wait = advisedAt + ADVICE_MS - performance.now();
  if (wait > 0) {
    adviceTimer = setTimeout(() => { advise(); draw(); }, wait);
    return;
  }
  advised = wanted;
  advisedAt = performance.now();
}

// --- what else follows from a state

let slow = false;
let slowTimer = 0;
let homeTimer = 0;

function enter(state, before) {
  clearTimeout(slowTimer);
  clearTimeout(homeTimer); // never in the middle of a visit
  slow = false;
  if (state === 'reading') slowTimer = setTimeout(() => { slow = true; draw(); }, SLOW_MS);
  if (looking(state) !== looking(before)) preview(looking(state));
  if (state === 'idle') restHome();
  sound(state);
}

const looking = (state) => ['look', 'retry', 'enrol_look'].includes(state);

function preview(on) {
  const img = $('preview');
  if (on) {
    advisedAt = -Infinity; // the first advice comes at once
    img.src = `/preview?${Date.now()}`;
  } else {
    img.removeAttribute('src');
  }
}
$('preview').addEventListener('error', () => {
  setTimeout(() => { if (looking(screen.state) && !lost) $('preview').src = `/preview?${Date.now()}`; }, 500);
});

function restHome() {
  clearTimeout(homeTimer);
  homeTimer = setTimeout(() => {
    language = home;
    enlarge(false);
    draw();
  }, HOME_MS);
}

let audio;
function sound(state) {
  const notes = state === 'recorded' || state === 'enrolled' ? [660, 880] : state === 'late' || state === 'already' ? [660]
    : TROUBLE.includes(state) ? [220] : [];
  if (quiet || !notes.length) return;
  try {
    audio ??= new AudioContext();
    notes.forEach((pitch, i) => {
      const at = audio.currentTime + i * 0.15;
      const tone = audio.createOscillator();
      const gain = audio.createGain();
      tone.frequency.value = pitch;
      gain.gain.setValueAtTime(0.15, at);
      gain.gain.exponentialRampToValueAtTime(0.001, at + 0.15);
      tone.connect(gain).connect(audio.destination);
      tone.start(at);
      tone.stop(at + 0.16);
    });
  } catch { /* no sound device: the screen says it all */ }
}

function update(next) {
  const before = screen.state;
  screen = next;
  if (screen.state !== before) enter(screen.state, before);
  advise();
  draw();
}

// --- the stream, and finding back to it

let source;
let heard = 0;

function connect() {
  source?.close();
  heard = performance.now();
  source = new EventSource('/events');
  const on = (name, act) => source.addEventListener(name, (e) => {
    heard = performance.now();
    act(JSON.parse(e.data));
    if (e.lastEventId) document.body.dataset.event = e.lastEventId;
  });
  on('snapshot', (s) => {
    if (page && page !== s.page) location.reload();
    page = s.page;
    badges = s.badges;
    update(s.screen);
  });
  on('screen', update);
  on('badges', (b) => { badges = b; draw(); });
  on('ping', () => {});
  source.onopen = () => {
    heard = performance.now();
    lost = false;
    draw();
  };
  source.onerror = () => {
    if (!lost) {
      lost = true;
      draw();
    }
  };
}

setInterval(() => {
  const silent = performance.now() - heard > SILENCE_MS;
  if (silent) source.onerror();
  if (silent || source.readyState === EventSource.CLOSED) connect();
  drawTime();
}, 1000);

// --- buttons

function enlarge(on) {
  root.classList.toggle('large', on);
  $('size').setAttribute('aria-pressed', String(on));
}

$('size').addEventListener('click', () => {
  enlarge(!root.classList.contains('large'));
  restHome();
  draw();
});
$('language').addEventListener('click', () => {
  language = language === 'zh' ? 'en' : 'zh';
  restHome();
  draw();
});
$('identify').addEventListener('click', () => {
  fetch('/identify', {method: 'POST'}).catch(() => {}); // the stream says that the daemon is gone
});
addEventListener('resize', fit);
document.fonts.ready.then(fit);

draw();
connect();
