import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { AppContext, filtersOf, linkTo, readRoute, type App, type Screen } from "./app";
import { Compare } from "./compare";
import { GroupScreen } from "./group";
import { List } from "./list";
import { Overview } from "./overview";
import { served, stored, type Filters } from "./source";
import { Steps } from "./steps";
import { TrajectoryScreen } from "./trajectory";
import type { Head } from "./types";
import "./style.css";

const embedded = document.getElementById("data");
const source = embedded ? stored(JSON.parse(embedded.textContent ?? "")) : served;
const POLL_MS = 2000;

function remembered(): string {
  try { return localStorage.getItem("theme") ?? ""; } catch { return ""; }
}

function Page() {
  const [heads, setHeads] = useState<Head[] | null>(null);
  const [error, setError] = useState("");
  const [lost, setLost] = useState("");
  const [route, setRoute] = useState(readRoute);
  const [tick, setTick] = useState(0);
  const [help, setHelp] = useState(false);
  const [theme, setTheme] = useState(remembered);
  const place = useRef(0);

  useEffect(() => {
    const changed = () => setRoute(readRoute());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  useEffect(() => {
    source.runs().then((found) => { setHeads(found); setError(""); }, (problem: Error) => setError(problem.message));
  }, [tick]);
  useEffect(() => {
    if (!source.live || heads === null) return;
    const timer = setInterval(async () => {
      if (document.hidden) return;
      try {
        const versions = await source.versions();
        setLost("");
        if (versions.some((version, run) => version !== heads[run].version)) setTick((one) => one + 1);
      } catch (problem) {
        setLost((problem as Error).message);
      }
    }, POLL_MS);
    return () => clearInterval(timer);
  }, [heads]);
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("theme", theme); } catch { /* not remembered */ }
  }, [theme]);

  const app = useMemo<App | null>(() => {
    if (heads === null) return null;
    const run = Math.min(Number(route.params.run ?? 0) || 0, heads.length - 1);
    const go = (screen: Screen, changes: Filters) => { location.hash = linkTo(route, screen, changes); };
    return {
      source, heads, route, run, head: heads[run], filters: filtersOf(route), tick, go, place,
      link: (screen, changes) => linkTo(route, screen, changes),
      back: () => go("list", {}),
    };
  }, [heads, route, tick]);

  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName);
      if (event.key === "Escape") {
        if (help) setHelp(false);
        else if (typing) target.blur();
        else if (app && app.route.screen !== "list") app.back();
        return;
      }
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "?") setHelp((one) => !one);
      else if (event.key === "/" && app) {
        event.preventDefault();
        if (app.route.screen !== "list") app.back();
        setTimeout(() => document.getElementById("search")?.focus(), 0);
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [app, help]);

  if (app === null) return <main class="page">{error ? <p class="problem" role="alert">{error}</p> : <p class="soft">Loading…</p>}</main>;
  const { head } = app;
  const dark = theme === "dark" || (!theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const tabs: [Screen, string][] = [["list", "Trajectories"], ["overview", "Results"]];
  if (head.steps.length) tabs.push(["steps", "RL steps"]);
  if (heads!.length > 1) tabs.push(["compare", "Compare"]);
  document.title = `${head.name} · Rewright`;
  return (
    <AppContext.Provider value={app}>
      <header class="top">
        {heads!.length > 1 && app.route.screen !== "compare" ? (
          <select aria-label="run" value={String(app.run)}
            onChange={(event) => { location.hash = `#/list?run=${event.currentTarget.value}`; }}>
            {heads!.map((one, run) => <option value={String(run)} key={run}>{one.name}</option>)}
          </select>
        ) : <b class="name">{app.route.screen === "compare" ? heads!.map((one) => one.name).join(" · ") : head.name}</b>}
        <nav>
          {tabs.map(([screen, title]) => (
            <a key={screen} href={app.link(screen, {})}
              aria-current={screen === app.route.screen ? "page" : undefined}>{title}</a>
          ))}
        </nav>
        <span class="grow" />
        {source.live && <span class={lost ? "bad small" : "soft small"} title={lost || "follows the run while it is going"}>
          {lost ? "not connected" : "live"}</span>}
        <button type="button" onClick={() => setTheme(dark ? "light" : "dark")} aria-label="light or dark">◐</button>
        <button type="button" onClick={() => setHelp(!help)} aria-label="keys">?</button>
      </header>
      {(lost || error) && <p class="problem" role="alert">{lost || error}</p>}
      {app.route.screen === "list" && <List />}
      {app.route.screen === "t" && <TrajectoryScreen key={`${app.run}/${app.route.params.id}`} />}
      {app.route.screen === "group" && <GroupScreen />}
      {app.route.screen === "steps" && <Steps />}
      {app.route.screen === "overview" && <Overview />}
      {app.route.screen === "compare" && <Compare />}
      {help && <Help close={() => setHelp(false)} />}
    </AppContext.Provider>
  );
}

const KEYS = [
  ["/", "search"], ["j, k", "next and previous trajectory"], ["Enter", "open the trajectory"],
  ["Esc", "back to the list"], ["e", "unfold or fold everything"], ["?", "these keys"],
];

function Help({ close }: { close: () => void }) {
  return (
    <div class="over" onClick={close}>
      <div class="panel" role="dialog" aria-label="keys">
        <h2>Keys</h2>
        <dl>{KEYS.map(([key, what]) => <><dt><kbd>{key}</kbd></dt><dd>{what}</dd></>)}</dl>
      </div>
    </div>
  );
}

render(<Page />, document.getElementById("app")!);
