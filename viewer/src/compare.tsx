// Two runs side by side: the table, the curves, and the same task under both.
import { percent, useApp, useLoaded, words } from "./app";
import { Chart } from "./chart";
import { SideBySide } from "./group";
import { Interval } from "./overview";
import type { Comparison, Evaluation } from "./types";

export function Compare() {
  const app = useApp();
  const left = 0;
  const right = Math.max(1, Math.min(Number(app.route.params.right ?? 1) || 1, app.heads.length - 1));
  const names = [app.heads[left].name, app.heads[right]?.name ?? ""];
  const { value, error } = useLoaded(() => app.source.compare(left, right), [left, right, app.tick], right);
  const both = useLoaded(() => Promise.all([left, right].map((run) => app.source.summary(run))), [left, right], right);
  const pair = [app.route.params.l, app.route.params.r];
  const sides = useLoaded(() => pair[0] && pair[1] ? Promise.all([app.source.trajectory(left, pair[0]), app.source.trajectory(right, pair[1])]) : Promise.resolve(null),
    [...pair, right], pair.join());
  if (error) return <main class="page"><p class="problem" role="alert">{error}</p></main>;
  if (value === null) return <main class="page"><p class="soft">Comparing…</p></main>;
  if (pair[0] && pair[1]) {
    return (
      <main class="page wide">
        <div class="over-title small"><a href={app.link("compare", { right: String(right) })}>← comparison</a></div>
        {sides.error && <p class="problem">{sides.error}</p>}
        {sides.value && <>
          <h1 class="title"><span class="text">{sides.value[0].row.prompt || sides.value[0].row.task}</span></h1>
          <SideBySide all={sides.value} titles={names} links={sides.value.map((one, place) => app.link("t", { run: String(place ? right : left), id: one.row.id }))} />
        </>}
      </main>
    );
  }
  const curves = (both.value?.[0].curves ?? []).flatMap((one) => {
    const other = both.value![1].curves.find((two) => two.stage === one.stage && two.key === one.key);
    return other ? [{ one, other }] : [];
  });
  return (
    <main class="page">
      <h1>{names[0]} and {app.heads.length > 2 ? (
        <select aria-label="other run" value={String(right)} onChange={(event) => app.go("compare", { right: event.currentTarget.value })}>
          {app.heads.map((one, run) => run > 0 && <option key={run} value={String(run)}>{one.name}</option>)}
        </select>) : names[1]}</h1>
      <h2>Held-out tasks</h2>
      {value.stages.length === 0 ? <p class="soft">No evaluation in either run.</p> : <Table found={value} names={names} />}
      <CountsTable found={value} names={names} />
      {curves.length > 0 && <h2>Curves of both <span class="soft small">drag to zoom, double-click to see all</span></h2>}
      <div class="charts">{curves.filter(({ one }) => one.main).concat(curves.filter(({ one }) => !one.main)).slice(0, 8).map(({ one, other }) =>
        <Chart key={one.stage + one.key} title={`${one.stage}: ${words(one.key)}`} series={[{ name: names[0], points: one.points }, { name: names[1], points: other.points }]} />)}</div>
      {value.tasks.length > 0 && <h2>The same tasks under both <span class="soft small">those first that differ</span></h2>}
      <div class="groups" role="list">
        {value.tasks.map((task) => (
          <a role="listitem" key={task.stage + task.task} href={app.link("compare", { right: String(right), l: task.left.id, r: task.right.id })}>
            <span class="text">{task.prompt || task.task}</span>
            <span class="small"><span class="badge">{task.stage}</span> {percent(task.left.success)} → <b class={task.right.success > task.left.success ? "good" : task.right.success < task.left.success ? "bad" : ""}>{percent(task.right.success)}</b></span>
          </a>
        ))}
      </div>
      {value.left_out > 0 && <p class="soft small">{value.left_out} more tasks</p>}
    </main>
  );
}

const rate = (row: Evaluation | null): string => row === null ? "–" : `${percent(row.success)} [${(100 * row.low).toFixed(1)}, ${(100 * row.high).toFixed(1)}]`;

function Table({ found, names }: { found: Comparison; names: string[] }) {
  return (
    <>
      <div class="scroll"><table>
        <thead><tr><th>model after</th><th>{names[0]}</th><th /><th>{names[1]}</th><th /><th>difference</th><th>tasks</th></tr></thead>
        <tbody>{found.stages.map((row) => (
          <tr key={row.stage}><td>{row.stage}</td>
            <td>{rate(row.left)}</td><td>{row.left && <Interval row={row.left} />}</td><td>{rate(row.right)}</td><td>{row.right && <Interval row={row.right} />}</td>
            <td>{row.difference === null ? "–" : `${(100 * row.difference.value).toFixed(1)} [${(100 * row.difference.low).toFixed(1)}, ${(100 * row.difference.high).toFixed(1)}]`}</td>
            <td>{row.difference?.tasks ?? 0}</td></tr>
        ))}</tbody>
      </table></div>
      {found.stages.map((row) => row.changed > 0 && <p class="soft small" key={row.stage}>{row.stage}: {row.changed} tasks have the same id and are not the same: they are left out.</p>)}
    </>
  );
}

function CountsTable({ found, names }: { found: Comparison; names: string[] }) {
  const keys = [...new Set(found.counts.flatMap((one) => Object.keys(one)))];
  if (!keys.length) return null;
  return (
    <div class="scroll"><table>
      <thead><tr><th>candidates</th>{names.map((name) => <th key={name}>{name}</th>)}</tr></thead>
      <tbody>{keys.map((key) => <tr key={key}><td>{key}</td>{found.counts.map((one, place) => <td key={place}>{one[key] ?? "–"}</td>)}</tr>)}</tbody>
    </table></div>
  );
}
