"use strict";
(() => {
  const PAGE = 24;
  const root = document.querySelector(".viewer");
  const { episodes, images } = JSON.parse(root.querySelector("script").textContent);
  const form = root.querySelector("form");
  const list = root.querySelector(".found");
  const more = root.querySelector(".more");
  let limit = PAGE;

  // The texts of episodes come from a model. They only ever become text nodes.
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  // An SVG needs its namespace. The parser of the browser knows it.
  const namespace = new DOMParser().parseFromString("<svg></svg>", "text/html")
    .querySelector("svg").namespaceURI;
  const shape = (tag, attributes) => {
    const made = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  const frame = ([left, top, right, bottom], stroke, kind) => shape("rect", {
    class: kind, x: left + stroke / 2, y: top + stroke / 2, "stroke-width": stroke,
    width: Math.max(right - left - stroke, 0), height: Math.max(bottom - top - stroke, 0),
    ...(kind === "evidence" ? { "stroke-dasharray": `${3 * stroke} ${2 * stroke}` } : {}),
  });
  const picture = (episode) => {
    const [width, height] = episode.size;
    const stroke = Math.max(width, height) / 90;
    const drawn = shape("svg", { class: "picture", viewBox: `0 0 ${width} ${height}` });
    drawn.append(shape("image", {
      href: images[episode.image], width, height, preserveAspectRatio: "none",
    }));
    if (episode.boxes.length) {
      // The image is dimmed as a whole, and each view is drawn again above it.
      drawn.append(shape("rect", { class: "dim", width, height }));
      episode.boxes.forEach(([left, top, right, bottom]) => {
        const view = shape("svg", {
          x: left, y: top, width: right - left, height: bottom - top,
          viewBox: `${left} ${top} ${right - left} ${bottom - top}`,
        });
        view.append(shape("image", {
          href: images[episode.image], width, height, preserveAspectRatio: "none",
        }));
        drawn.append(view);
      });
    }
    episode.boxes.forEach((box) => drawn.append(frame(box, stroke, "box")));
    episode.evidence.forEach((box) => drawn.append(frame(box, stroke * 0.8, "evidence")));
    return drawn;
  };

  const asked = (episode) =>
    episode.regions.length ? "asked" : episode.answer === null ? "none" : "direct";
  const request = (episode) => ({
    asked: `asked for ${episode.regions.join(" and ")}`,
    direct: "answered directly",
    none: "gave no valid answer",
  }[asked(episode)]);
  const round = (value) => (value === null ? "–" : String(Math.round(value * 1000) / 1000));

  const card = (episode) => {
    const verdict = episode.correct ? "right" : "wrong";
    const made = element("article", `episode ${verdict}`);
    made.append(picture(episode));
    const head = element("p", "bill", `${episode.version} · ${request(episode)}`);
    if (episode.changed) head.append(element("b", "changed", " · changed"));
    made.append(head, element("p", "question", episode.question));
    const answer = element("p", "answer");
    const mark = element("span", "verdict", episode.correct ? "✓" : "✗");
    mark.title = verdict;
    answer.append(mark, element("b", "", episode.answer ?? `no answer (${episode.stop})`));
    if (!episode.correct) answer.append(element("span", "truth", `truth: ${episode.truth}`));
    made.append(answer);
    const parts = Object.entries(episode.parts).map(([name, value]) => `${name} ${round(value)}`);
    const reward = `reward ${round(episode.reward)}${parts.length ? ` (${parts.join(", ")})` : ""}`;
    const cost = `${episode.visual_tokens} visual tokens · RTR ${round(episode.rtr_token)}`;
    made.append(element("p", "bill", `${reward} · ${cost}`));
    if (episode.turns.length) {
      const details = element("details");
      details.append(element("summary", "", `the policy's turns: ${episode.turns.length}`));
      episode.turns.forEach((turn) => details.append(element("pre", "", turn)));
      made.append(details);
    }
    return made;
  };

  const matches = (episode) => {
    const wanted = Object.fromEntries(new FormData(form));
    const text = `${episode.question} ${episode.answer ?? ""} ${episode.sample_id}`.toLowerCase();
    const reward = episode.reward ?? NaN;
    return (!wanted.version || episode.version === wanted.version)
      && (!wanted.least || reward >= Number(wanted.least))
      && (!wanted.most || reward <= Number(wanted.most))
      && (!wanted.asked || asked(episode) === wanted.asked)
      && (!wanted.verdict || (wanted.verdict === "right") === episode.correct)
      && (!wanted.changed || episode.changed === true)
      && (!wanted.text || text.includes(wanted.text.toLowerCase()));
  };
  const show = () => {
    const found = episodes.filter(matches);
    list.replaceChildren(...found.slice(0, limit).map(card));
    root.querySelector(".count").textContent = `${found.length} of ${episodes.length} episodes`;
    more.hidden = found.length <= limit;
  };

  const versions = form.elements.namedItem("version");
  versions.append(new Option(`all (${new Set(episodes.map((one) => one.version)).size})`, ""));
  new Set(episodes.map((one) => one.version)).forEach((name) =>
    versions.append(new Option(name, name)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { limit = PAGE; show(); });
  more.querySelector("button").addEventListener("click", () => { limit += PAGE; show(); });
  show();
})();
