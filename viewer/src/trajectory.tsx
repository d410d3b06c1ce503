// One trajectory: conversation, verdict, scores, credit, tokens, repair and raw JSON.
import { useEffect, useState } from "preact/hooks";
import { number, readRoute, useApp, useLoaded, whole, words, type App } from "./app";
import { CallView, Conversation, MessageView, argumentsText, verdictWords } from "./conversation";
import { Diff } from "./diff";
import { Badges, Mark } from "./list";
import { Picture } from "./picture";
import { TokensView } from "./tokens";
import type { Trajectory } from "./types";

const moves: number[] = [];
let walking = false;

/** Go to a neighbour in the list. Keys may come faster than the page is drawn: the address is ahead of it. */
async function walk(app: App, by: number): Promise<void> {
  moves.push(by);
  if (walking) return; // the walk under way takes this move too
  walking = true;
  try {
    let id: string | undefined;
    let [at, total] = [-1, 0];
    const rows = (place: number) => app.source.rows(app.run, { ...app.filters, start: String(place), count: "1" });
    while (moves.length) {
      const { screen, params } = readRoute();
      if (screen !== "t") break; // the person has left
      if (params.id !== id) {
        id = params.id ?? "";
        at = await app.source.position(app.run, app.filters, id);
        if (at < 0) break;
        total = (await rows(at)).total;
      }
      const to = moves.splice(0).reduce((place, move) => Math.max(0, Math.min(total - 1, place + move)), at);
      if (to === at) continue;
      const found = await rows(to);
      const now = readRoute();
      if (now.screen !== "t" || now.params.id !== id || !found.rows.length) continue;
      app.place.current = at = to;
      total = found.total;
      id = found.rows[0].id;
      app.go("t", { id, tab: now.params.tab === "repair" ? "" : now.params.tab ?? "" });
    }
  } catch { /* the head of the page says that the server does not answer */ } finally {
    moves.length = 0;
    walking = false;
  }
}

export function TrajectoryScreen() {
  const app = useApp();
  const id = app.route.params.id ?? "";
  const tab = app.route.params.tab ?? "conversation";
  const [open, setOpen] = useState(false);
  const { value: one, error } = useLoaded(() => app.source.trajectory(app.run, id), [app.run, id, app.tick], id);
  const key = JSON.stringify([app.run, app.filters]);
  const place = useLoaded(() => app.source.position(app.run, app.filters, id), [id, key, app.tick], id + key);

  const step = (by: number) => walk(app, by);
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (["INPUT", "SELECT", "TEXTAREA"].includes((event.target as HTMLElement).tagName)) return;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "j") step(1);
      else if (event.key === "k") step(-1);
      else if (event.key === "e") setOpen((now) => !now);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });

  if (error) return <main class="page"><p class="problem" role="alert">{error}</p></main>;
  if (one === null) return <main class="page"><p class="soft">Loading…</p></main>;
  const tabs: [string, string][] = [["conversation", "Conversation"]];
  if (one.has_tokens) tabs.push(["tokens", "Token colours"]);
  if (one.repair?.repaired_id) tabs.push(["repair", "Repair"]);
  tabs.push(["raw", "Raw JSON"]);
  return (
    <main class="page">
      <div class="over-title small">
        <a href={app.link("list", {})}>← list</a>
        <button type="button" onClick={() => step(-1)} disabled={(place.value ?? -1) <= 0} aria-label="previous">k ↑</button>
        <button type="button" onClick={() => step(1)} disabled={(place.value ?? -1) < 0} aria-label="next">j ↓</button>
        <span class="grow" />
        {one.group.length > 1 && <a href={app.link("group", { id })}>{one.row.step === null && one.row.stage.startsWith("eval") ? `all ${one.group.length} models side by side` : `group of ${one.group.length} side by side`}</a>}
        {one.row.step !== null && <a href={app.link("steps", { at: String(one.row.step), id })}>step {one.row.step + 1}</a>}
      </div>
      <h1 class="title"><Mark row={one.row} /> <span class="text">{one.row.prompt || one.row.task}</span></h1>
      <p class="small soft id"><Badges row={one.row} /> <span>{one.row.id}</span></p>
      <div class="columns">
        <div class="main">
          <nav class="tabs" aria-label="views">
            {tabs.map(([name, title]) => <a key={name} href={app.link("t", { id, tab: name === "conversation" ? "" : name })} aria-current={tab === name ? "page" : undefined}>{title}</a>)}
            <span class="grow" />
            {tab === "conversation" && <button type="button" onClick={() => setOpen(!open)}>{open ? "fold all" : "unfold all"}</button>}
          </nav>
          {tab === "conversation" && <><TaskView one={one} open={open} /><Conversation key={String(open)} one={one} open={open} /><CreditView one={one} /></>}
          {tab === "tokens" && <TokensView id={id} />}
          {tab === "repair" && <RepairView one={one} />}
          {tab === "raw" && <Raw id={id} />}
        </div>
        <Facts one={one} />
      </div>
    </main>
  );
}

function TaskView({ one, open }: { one: Trajectory; open: boolean }) {
  if (one.task === null) return <p class="soft small">This task is no longer in the files of the run.</p>;
  const { messages, tools } = one.task;
  const hidden = messages.filter((message) => message.role === "system");
  return (
    <>
      <details class="setting" open={open} key={String(open)}>
        <summary class="soft small">{hidden.length ? "system prompt and " : ""}{tools.length} tools{tools.length ? `: ${tools.slice(0, 6).map((tool) => tool.name).join(", ")}${tools.length > 6 ? " …" : ""}` : ""}</summary>
        {hidden.map((message, place) => <MessageView key={place} message={message} />)}
        {tools.map((tool, place) => (
          <details class="tool" key={place}>
            <summary><code><b>{tool.name}</b></code> <span class="soft small">{tool.description}</span></summary>
            <pre>{JSON.stringify(tool.parameters ?? {}, null, 2)}</pre>
          </details>
        ))}
      </details>
      {messages.filter((message) => message.role !== "system").map((message, place) => <MessageView key={place} message={message} />)}
    </>
  );
}

function CreditView({ one }: { one: Trajectory }) {
  const app = useApp();
  if (one.credit === null) return <p class="soft small">No credit: it needs gold calls or an outcome, and at least one turn.</p>;
  const said = one.credit.used_by_rl ? "the credit that RL trained with" : one.recomputed
    ? "computed for the page: RL stored no credit" : one.credit.advantages === null
      ? "rewards only: it is in no group" : "the credit that RL would give it in its group";
  return (
    <section class="credit">
      <h2>Credit of every turn <span class="soft small">{said}</span></h2>
      <Picture drawing={one.credit.drawing} />
      <p class="soft small">{app.head.words}</p>
    </section>
  );
}

function Facts({ one }: { one: Trajectory }) {
  const app = useApp();
  const { provenance, usage, quality, repair } = one;
  const facts: [string, string | preact.ComponentChildren][] = [["verdict", verdictWords(one)]];
  const metrics = Object.entries(one.verdict?.metrics ?? {});
  if (metrics.length) facts.push(["metrics", metrics.map(([name, value]) => `${words(name)} ${number(value)}`).join(", ")]);
  if (one.task?.answers) facts.push(["gold answer", one.task.answers.join(" or ")]);
  if (quality) {
    facts.push(["quality", `${quality.total.toFixed(3)} (${Object.entries(quality.scores).map(([name, value]) => `${words(name)} ${value.toFixed(2)}`).join(", ")})`]);
  }
  if (one.row.selection) facts.push(["selection", one.row.selection]);
  if (repair) {
    const other = repair.original_id === one.row.id ? repair.repaired_id : repair.original_id;
    facts.push(["repair", `${repair.accepted ? "accepted" : "rejected"}: ${repair.reason}`]);
    facts.push(["repaired for", `${words(repair.mode)}, ${repair.attempts} attempt${repair.attempts === 1 ? "" : "s"}${repair.tokens === null ? "" : `, ${whole(repair.tokens)} tokens`}`]);
    if (other) facts.push([other === repair.original_id ? "original" : "last attempt", <a href={app.link("t", { id: other })}>{other}</a>]);
  }
  if (one.credit) facts.push(["trajectory reward", number(one.credit.trajectory_reward, 3)]);
  if (one.reward_model !== null) facts.push(["reward model", number(one.reward_model, 3)]);
  if (one.format_problem) facts.push(["format", one.format_problem]);
  facts.push(["stop reason", words(one.row.stop)], ["tokens", `${whole(usage.prompt)} prompt, ${whole(usage.completion)} generated`],
    ["seconds", number(one.seconds, 1)], ["cost", usage.money === null ? "no price in the recipe" : usage.money.toFixed(5)],
    ["model", provenance.model || "unknown"]);
  const weights = [...new Set(one.turns.map((turn) => turn.weights).filter((one) => one !== null))];
  if (weights.length) facts.push(["weights", `of step ${weights.map((one) => one! + 1).join(", ")}`]);
  if (provenance.seed !== null) facts.push(["seed", provenance.seed]);
  for (const [name, value] of Object.entries(provenance.sampling)) facts.push([words(name), typeof value === "object" ? JSON.stringify(value) : String(value)]);
  facts.push(["task", <a href={app.link("list", { task: one.row.task })}>{one.row.task}</a>]);
  const gold = one.task?.gold_calls;
  return (
    <aside class="facts">
      <dl>{facts.map(([name, value]) => <><dt>{name}</dt><dd>{value}</dd></>)}</dl>
      {gold && <details><summary class="soft small">{gold.length} gold calls</summary>
        {gold.map((call, place) => <CallView key={place} call={call} open={argumentsText(call).length > 90} />)}</details>}
    </aside>
  );
}

function RepairView({ one }: { one: Trajectory }) {
  const app = useApp();
  const repair = one.repair!;
  const ids = [repair.original_id, repair.repaired_id!];
  const { value, error } = useLoaded(() => Promise.all(ids.map((id) => app.source.trajectory(app.run, id))), [app.run, ...ids], ids.join());
  if (error) return <p class="problem">{error}</p>;
  if (value === null) return <p class="soft">Loading…</p>;
  return (
    <>
      <p class={repair.accepted ? "good" : "bad"}>{repair.accepted ? "accepted" : "rejected"}: {repair.reason}</p>
      {repair.reasons.length > 1 && <ol class="small soft">{repair.reasons.map((reason, place) => <li key={place}>{reason}</li>)}</ol>}
      <Diff before={value[0]} after={value[1]} />
      {value.map((side, place) => side.credit && (
        <section class="credit" key={place}>
          <h2>{place ? "After" : "Before"} <span class="soft small">{verdictWords(side)}</span></h2>
          <Picture drawing={side.credit.drawing} />
        </section>
      ))}
    </>
  );
}

const MOST_RAW = 2_000_000;

/** JSON on several lines. Numbers stay as they are written; a list of numbers stays on one line. */
export function indented(text: string): string {
  const parts = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  const open: boolean[] = []; // whether the parts of the enclosing object or list stand on lines of their own
  const line = () => `\n${"  ".repeat(open.length)}`;
  return parts.map((part, place) => {
    if (part === "{" || part === "[") {
      const next = parts[place + 1];
      const flat = next === "}" || next === "]" || (part === "[" && /^[-\d]/.test(next ?? ""));
      open.push(!flat);
      return flat ? part : part + line();
    }
    if (part === "}" || part === "]") return open.pop() ? line() + part : part;
    if (part === ",") return open[open.length - 1] ? part + line() : ", ";
    return part === ":" ? ": " : part;
  }).join("");
}

function Raw({ id }: { id: string }) {
  const app = useApp();
  const { value, error } = useLoaded(() => app.source.raw(app.run, id), [app.run, id], id);
  if (error) return <p class="problem">{error}</p>;
  if (value === null) return <p class="soft">Loading…</p>;
  const short = value.length <= MOST_RAW;
  return (
    <>
      {!app.source.live && <p class="soft small">What this file holds of the trajectory; the stored line is in the run.</p>}
      <pre class="raw">{short ? indented(value) : `${value.slice(0, MOST_RAW)}… (${whole(value.length - MOST_RAW)} more characters)`}</pre>
    </>
  );
}

