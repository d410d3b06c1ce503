// All trajectories in a virtual list: only the rows on the screen are elements, and only ranges are loaded.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { number, useApp, whole, words } from "./app";
import { FILTERS, verdictOf } from "./source";
import type { Counts, Row, Rows } from "./types";

const CHUNK = 100;
const KEPT_CHUNKS = 20;
const SORTS = [
  ["", "file order"], ["-reward", "highest reward"], ["reward", "lowest reward"], ["-quality", "highest quality"],
  ["quality", "lowest quality"], ["-turns", "most turns"], ["-calls", "most calls"], ["-tokens", "most tokens"],
  ["tokens", "fewest tokens"], ["-seconds", "slowest"], ["step", "step"], ["task", "task"],
];

export function List() {
  const app = useApp();
  const { filters, run, source, tick } = app;
  const key = JSON.stringify([run, filters]);
  const box = useRef<HTMLDivElement>(null);
  const chunks = useRef(new Map<number, Row[]>());
  const wanted = useRef(new Set<number>());
  const [about, setAbout] = useState<Omit<Rows, "rows" | "start"> | null>(null);
  const [error, setError] = useState("");
  const [view, setView] = useState({ top: 0, height: 800 });
  const [, redraw] = useState(0);
  const [cursor, setCursor] = useState(app.place.current);
  const generation = useRef(0);
  const placed = useRef(false);
  const rowHeight = innerWidth < 700 ? 92 : 58;

  const load = async (chunk: number, mine: number) => {
    if (wanted.current.has(chunk)) return;
    wanted.current.add(chunk);
    try {
      for (;;) {
        const found = await source.rows(run, { ...filters, start: String(chunk * CHUNK), count: String(CHUNK) });
        if (mine !== generation.current) return;
        chunks.current.delete(chunk);
        chunks.current.set(chunk, found.rows);
        for (const old of chunks.current.keys()) {
          if (chunks.current.size <= KEPT_CHUNKS) break;
          chunks.current.delete(old);
        }
        setError("");
        setAbout(found);
        redraw((one) => one + 1);
        if (found.done) break;
      }
    } catch (problem) {
      if (mine === generation.current) setError((problem as Error).message);
    } finally {
      if (mine === generation.current) wanted.current.delete(chunk);
    }
  };

  const before = useRef(key);
  useEffect(() => {
    if (before.current !== key) {
      before.current = key;
      chunks.current.clear();
      app.place.current = 0;
      setCursor(0);
      box.current?.scrollTo(0, 0);
      setView((one) => ({ ...one, top: 0 }));
    }
    const mine = ++generation.current;
    // Of a run that is going on, what is on the screen stays until the new rows are there.
    const shown = Math.floor((placed.current ? (box.current?.scrollTop ?? 0) / rowHeight : app.place.current) / CHUNK);
    for (const chunk of [...chunks.current.keys()]) {
      if (chunk !== shown && chunk !== shown + 1) chunks.current.delete(chunk);
    }
    wanted.current = new Set();
    void load(shown, mine);
    if (chunks.current.has(shown + 1)) void load(shown + 1, mine);
  }, [key, tick]);

  const total = about?.total ?? 0;
  const first = Math.max(0, Math.floor(view.top / rowHeight) - 5);
  const last = Math.min(total, Math.ceil((view.top + view.height) / rowHeight) + 5);
  useEffect(() => {
    if (about === null || !about.done) return;
    for (let chunk = Math.floor(first / CHUNK); chunk * CHUNK < last; chunk++) {
      if (!chunks.current.has(chunk)) void load(chunk, generation.current);
    }
  });
  useEffect(() => {
    const element = box.current!;
    const measure = () => setView({ top: element.scrollTop, height: element.clientHeight });
    measure();
    addEventListener("resize", measure);
    return () => removeEventListener("resize", measure);
  }, []);
  useEffect(() => { // The list has no height before it is known how many rows there are.
    if (about === null || placed.current) return;
    placed.current = true;
    const element = box.current!;
    element.scrollTop = Math.max(0, app.place.current * rowHeight - element.clientHeight / 3);
    setView({ top: element.scrollTop, height: element.clientHeight });
  }, [about]);

  const rowAt = (place: number): Row | undefined => chunks.current.get(Math.floor(place / CHUNK))?.[place % CHUNK];
  const open = async (place: number) => {
    app.place.current = place;
    // The row may have been scrolled away and dropped.
    const row = rowAt(place) ?? (await source.rows(run, { ...filters, start: String(place), count: "1" })).rows[0];
    if (row) app.go("t", { id: row.id });
  };
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (["INPUT", "SELECT", "TEXTAREA"].includes((event.target as HTMLElement).tagName)) return;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const move = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (move) {
        event.preventDefault();
        const end = about === null ? Infinity : total - 1; // before the first rows nobody knows how many there are
        const place = Math.max(0, Math.min(end, app.place.current + move)); // two keys may come before one drawing
        setCursor(place);
        app.place.current = place;
        const element = box.current!;
        const top = place * rowHeight;
        if (top < element.scrollTop) element.scrollTop = top;
        if (top + rowHeight > element.scrollTop + element.clientHeight) element.scrollTop = top + rowHeight - element.clientHeight;
      } else if (event.key === "Enter") void open(app.place.current);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });

  const rows = [];
  for (let place = first; place < last; place++) {
    const row = rowAt(place);
    rows.push(
      <div class={`row${place === cursor ? " at" : ""}`} key={place} role="listitem"
        style={{ top: `${place * rowHeight}px`, height: `${rowHeight}px` }}>
        {row ? <RowView row={row} href={app.link("t", { id: row.id })} onOpen={() => { app.place.current = place; }} />
          : <span class="soft small">…</span>}
      </div>,
    );
  }
  return (
    <main class="list-page">
      <Controls />
      <p class="soft small status" role="status">
        {about === null && !error ? "Loading…" : ""}
        {about && `${whole(total)} of ${whole(app.head.trajectories)} trajectories`}
        {about && !about.done && ` · searched ${whole(about.searched)} of ${whole(about.of)}`}
        {app.head.left_out ? ` · ${whole(app.head.left_out)} of the run's trajectories are left out of this file` : ""}
      </p>
      {error && <p class="problem" role="alert">{error}</p>}
      <div class="list" ref={box} onScroll={(event) => setView({ top: event.currentTarget.scrollTop, height: event.currentTarget.clientHeight })}>
        <div style={{ height: `${total * rowHeight}px` }} role="list">{rows}</div>
        {about && total === 0 && about.done && (
          <p class="soft empty">{app.head.trajectories ? "No trajectory passes the filters." : "No trajectories yet."}</p>
        )}
      </div>
    </main>
  );
}

export function Badges({ row }: { row: Row }) {
  return (
    <span class="badges">
      <span class="badge">{row.stage}{row.step === null ? "" : ` · step ${row.step + 1}`}</span>
      {row.selection && <span class={`badge ${row.selection}`}>{row.selection}</span>}
      {row.repair && <span class={`badge ${row.repair}`}>{row.repair}</span>}
      {!["answered", "called"].includes(row.stop) && <span class="badge wrong">{words(row.stop)}</span>}
    </span>
  );
}

export function Mark({ row }: { row: Row }) {
  const verdict = verdictOf(row);
  return <span class={`mark ${verdict}`} title={verdict} aria-label={verdict}>{{ right: "✓", wrong: "✗", unjudged: "·" }[verdict]}</span>;
}

function RowView({ row, href, onOpen }: { row: Row; href: string; onOpen: () => void }) {
  return (
    <a href={href} onClick={onOpen}>
      <Mark row={row} />
      <span class="what">
        <span class="question">{row.prompt || row.task}</span>
        <span class="said soft small">{row.answer || (row.stop === "no_answer" ? "no answer" : `no answer (${words(row.stop)})`)}</span>
      </span>
      <Badges row={row} />
      <span class="figures small">
        <span title="reward of RL, else the verdict's outcome"><b>{number(row.reward)}</b> reward</span>
        <span>{row.turns} turns</span><span>{row.calls} calls</span><span>{whole(row.tokens)} tok</span>
        <span>{number(row.seconds, 1)} s</span>
      </span>
    </a>
  );
}

function Controls() {
  const app = useApp();
  const { facets } = app.head;
  const set = (key: string, value: string) => app.go("list", { [key]: value });
  const [text, setText] = useState(app.filters.q ?? "");
  const [open, setOpen] = useState(innerWidth >= 700);
  const typed = useRef<number>(0);
  useEffect(() => { // What is being typed is newer than the address, which follows it.
    if (document.activeElement?.id !== "search") setText(app.filters.q ?? "");
  }, [app.filters.q]);
  const active = useMemo(() => FILTERS.filter((key) => app.filters[key]), [app.filters]);
  const choices: [string, Counts][] = [
    ["stage", facets.stage], ["selection", facets.selection], ["verdict", facets.verdict], ["stop", facets.stop],
    ["tool", facets.tool], ["task", facets.task], ["model", facets.model],
  ];
  return (
    <div class="controls">
      <input id="search" type="search" placeholder="search: all words must occur ( / )" aria-label="search" value={text}
        onInput={(event) => {
          const value = event.currentTarget.value;
          setText(value);
          clearTimeout(typed.current);
          typed.current = window.setTimeout(() => set("q", value), 250);
        }}
        onKeyDown={(event) => { if (event.key === "Enter") { clearTimeout(typed.current); set("q", text); event.currentTarget.blur(); } }} />
      <button type="button" class="narrow" aria-expanded={open} onClick={() => setOpen(!open)}>
        filters{active.length ? ` (${active.length})` : ""}</button>
      {open && choices.filter(([key, counts]) => counts.length > 1 || app.filters[key]).map(([key, counts]) => (
        <select key={key} aria-label={key} value={app.filters[key] ?? ""} class={app.filters[key] ? "on" : ""}
          onChange={(event) => set(key, event.currentTarget.value)}>
          <option value="">{key === "stop" ? "stop reason" : key}: all</option>
          {app.filters[key] && !counts.some(([name]) => name === app.filters[key]) && <option value={app.filters[key]}>{app.filters[key]}</option>}
          {counts.map(([name, count]) => <option value={name} key={name}>{`${words(name) || "(none)"} ${whole(count)}`}</option>)}
        </select>
      ))}
      {open && facets.reward && (["min", "max"] as const).map((key, side) => (
        <input key={key} class={`bound${app.filters[key] ? " on" : ""}`} type="number" step="any" aria-label={`${key} reward`}
          placeholder={`${key} reward ${number(facets.reward![side], 1)}`} value={app.filters[key] ?? ""}
          onChange={(event) => set(key, event.currentTarget.value)} />
      ))}
      {open && <select aria-label="sort" value={app.filters.sort ?? ""} onChange={(event) => set("sort", event.currentTarget.value)}>
        {SORTS.map(([value, title]) => <option value={value} key={value}>sort: {title}</option>)}
      </select>}
      {(active.length > 0 || app.filters.q) && (
        <button type="button" onClick={() => app.go("list", Object.fromEntries(["q", ...FILTERS].map((key) => [key, ""])))}>clear</button>
      )}
    </div>
  );
}
