(() => {
  const seen = (e) => e.checkVisibility() && e.getBoundingClientRect().width > 0;
  const rgb = (c) => c.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const contrast = (e) => { // WCAG 2.2, relative luminance
    const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const px = (id) => { const e = document.getElementById(id); return seen(e) ? parseFloat(getComputedStyle(e).fontSize) : 0; };
  const inside = (a, b) => a.left >= b.left - 1 && a.top >= b.top - 1 && a.right <= b.right + 1 && a.bottom <= b.bottom + 1;
  const screen = {left: 0, top: 0, right: innerWidth, bottom: innerHeight};
  const all = [...document.querySelectorAll('h1, p, li, b, span:not(.icon), button')].filter(seen);
  const overflows = [];
  for (const e of all) {
    const box = e.closest('header, #words, footer').getBoundingClientRect();
    const range = document.createRange();
    range.selectNodeContents(e);
    // a line of text is judged by its width: its height is the font's, taller than any letter
    const wide = [...range.getClientRects()].some((r) => r.left < box.left - 1 || r.right > box.right + 1);
    const clipped = e.id === 'class'; // a long class name ends in an ellipsis
    if ((wide && !clipped) || !inside(e.getBoundingClientRect(), box) || !inside(box, screen)) overflows.push(e.id || e.tagName);
  }
  const d = document.documentElement;
  if (d.scrollWidth > innerWidth || d.scrollHeight > innerHeight) overflows.push('page');
  const [head, main, foot] = ['header', 'main', 'footer'].map((n) => document.querySelector(n).getBoundingClientRect());
  if (head.bottom > main.top + 1 || main.bottom > foot.top + 1) overflows.push('bars');
  for (const e of document.querySelectorAll('.icon, #oval')) {
    if (!seen(e)) continue;
    const r = e.getBoundingClientRect();
    const covers = all.some((w) => {
      const o = w.getBoundingClientRect();
      return w.closest('#words') && r.left < o.right && o.left < r.right && r.top < o.bottom && o.top < r.bottom;
    });
    if (covers || !inside(r, main)) overflows.push(e.dataset.icon || e.id);
  }
  return {
    headline: document.getElementById('headline').innerText,
    overflows,
    headlinePx: px('headline'), advicePx: px('advice'), codePx: px('code'),
    faint: all.filter((e) => e.innerText && contrast(e) < (e.id === 'headline' ? 7 : 4.5)).map((e) => e.id || e.tagName),
    icons: [...document.querySelectorAll('.icon')].filter(seen).map((e) => e.dataset.icon),
    small: [...document.querySelectorAll('button')].filter(seen).filter((e) => e.offsetWidth < 60 || e.offsetHeight < 60).map((e) => e.id),
  };
})()
