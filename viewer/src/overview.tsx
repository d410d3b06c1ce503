// The results of a run: held-out success, counts, costs and curves.
import { number, percent, useApp, useLoaded, whole, words } from "./app";
import { Chart } from "./chart";
import type { Evaluation, Rate, Summary } from "./types";

export function Overview() {
  const app = useApp();
  const { value, error } = useLoaded(() => app.source.summary(app.run), [app.run, app.tick], app.run);
  if (error) return <main class="page"><p class="problem" role="alert">{error}</p></main>;
  if (value === null) return <main class="page"><p class="soft">Counting…</p></main>;
  const { report, curves } = value;
  const [main, more] = [curves.filter((one) => one.main), curves.filter((one) => !one.main)];
  return (
    <main class="page">
      <h1>{app.head.name}</h1>
      <p class="soft small">{app.head.about}</p>
      <h2>Held-out tasks</h2>
      {report.stages.length === 0 ? <p class="soft">Nothing was evaluated on held-out tasks yet.</p> : <Evaluations rows={report.stages} />}
      <Counts report={report} />
      {report.sources && <Sources rows={Object.entries(report.sources)} />}
      <Costs report={report} />
      {main.length > 0 && <h2>Learning curves <span class="soft small">drag to zoom, double-click to see all</span></h2>}
      <div class="charts">{main.map((one) => <Chart key={one.stage + one.key} title={`${one.stage}: ${words(one.key)}`} series={[{ name: one.key, points: one.points }]} />)}</div>
      {more.length > 0 && (
        <details>
          <summary class="soft small">{more.length} more curves</summary>
          <div class="charts">{more.map((one) => <Chart key={one.stage + one.key} title={`${one.stage}: ${words(one.key)}`} series={[{ name: one.key, points: one.points }]} />)}</div>
        </details>
      )}
    </main>
  );
}

const counted = (counts: Record<string, number>): string => Object.entries(counts).map(([name, count]) => `${name} ${count}`).join(", ");

export function Interval({ row }: { row: { success: number; low: number; high: number } }) {
  const [low, value, high] = [row.low, row.success, row.high].map((one) => 160 * Math.min(1, Math.max(0, one)) + 5);
  return (
    <svg class="interval" width="170" height="12" aria-hidden="true">
      <line x1="5" x2="165" y1="6" y2="6" /><line class="range" x1={low} x2={high} y1="6" y2="6" /><circle cx={value} cy="6" r="4" />
    </svg>
  );
}

function Evaluations({ rows }: { rows: Evaluation[] }) {
  return (
    <>
      <div class="scroll"><table>
        <thead><tr><th>model after</th><th>success</th><th>95% interval</th><th /><th>Solve-F1</th><th>calls</th><th>tasks</th><th>seconds</th></tr></thead>
        <tbody>{rows.map((row) => (
          <tr key={row.stage}><td>{row.stage}</td><td>{percent(row.success)}</td><td>{(100 * row.low).toFixed(1)} – {(100 * row.high).toFixed(1)}</td>
            <td><Interval row={row} /></td><td>{number(row.solve_f1, 3)}</td><td>{number(row.calls)}</td><td>{row.tasks}</td><td>{number(row.seconds, 1)}</td></tr>
        ))}</tbody>
      </table></div>
      {rows.map((row) => (
        <>
          {row.untrained && <p class="bad small">{row.stage}: {row.untrained}: this is the model before it, tried again.</p>}
          {row.failures ? <p class="bad small">{row.stage}: {row.failures} of {row.trajectories} trajectories had an infrastructure failure ({counted(row.broke ?? {}) || "engine or tools"}) and count as not solved.</p> : null}
          {Object.entries({ ...row.sources, ...row.categories }).map(([name, part]) => <p class="small" key={name}>{row.stage}, {name}: {rate(part)} of {part.tasks} tasks.</p>)}
          {Object.entries(row.metrics ?? {}).map(([name, part]) => <p class="small" key={name}>{row.stage}: {name} {number(part.value, 3)} [{number(part.low, 3)}, {number(part.high, 3)}] of {part.trajectories}.</p>)}
        </>
      ))}
    </>
  );
}

const rate = (part: Rate): string => `${percent(part.success)} [${(100 * part.low).toFixed(1)}, ${(100 * part.high).toFixed(1)}]`;

function Sources({ rows }: { rows: [string, Rate & { counts: Record<string, number> }][] }) {
  return (
    <div class="scroll"><table class="sources">
      <thead><tr><th>candidates of</th><th>success</th><th>tasks</th><th>candidates</th><th>kept</th><th>low</th><th>wrong</th><th>repaired</th></tr></thead>
      <tbody>{rows.map(([name, row]) => (
        <tr key={name}><td>{name}</td><td>{rate(row)}</td><td>{whole(row.tasks)}</td><td>{whole(row.trajectories)}</td>
          {["kept", "low", "wrong", "repaired"].map((key) => <td key={key}>{whole(row.counts[key] ?? 0)}</td>)}</tr>
      ))}</tbody>
    </table></div>
  );
}

function Counts({ report }: { report: Summary["report"] }) {
  const lines: string[] = [];
  if (Object.keys(report.broke).length) lines.push(`Infrastructure failures (not counted as wrong): ${counted(report.broke)}.`);
  if (Object.keys(report.repaired_by_mode).length) lines.push(`Repaired: ${words(counted(report.repaired_by_mode))}.`);
  if (report.sets) lines.push(`SFT set: ${report.sets.sft} rows of ${report.sets.kept} kept and ${report.sets.repaired} repaired (${report.sets.duplicates} duplicates, ${report.sets.held_out} held out left out).`);
  if (report.reward_model_accuracy !== null) {
    const matched = report.reward_model_accuracy_matched_format;
    lines.push(`The reward model ranks ${percent(report.reward_model_accuracy)} of ${report.reward_model_held_out_pairs} held-out pairs right${matched === null ? "" : ` (${percent(matched)} of those of matched format)`}.`);
    if (report.length_rule !== null) lines.push(`By length alone (the ${report.length_rule} one wins) ${percent(report.length_rule_accuracy!)} would be right.`);
  }
  for (const [stage, reason] of Object.entries(report.skipped)) lines.push(`Skipped: ${stage} (${reason}).`);
  const stages = Object.entries(report.stage_seconds).map(([stage, seconds]) => `${stage} ${seconds.toFixed(0)}`).join(", ");
  lines.push(`${report.seconds.toFixed(0)} seconds in all${stages ? `: ${stages}` : ""}.`);
  return (
    <>
      <h2>Trajectories</h2>
      <ul class="counts">{Object.entries(report.counts).filter(([name, count]) => count || name !== "broken").map(([name, count]) => <li key={name}><b>{whole(count)}</b> {name}</li>)}</ul>
      <p class="soft small">{lines.join(" ")}</p>
    </>
  );
}

function Costs({ report }: { report: Summary["report"] }) {
  if (!Object.keys(report.costs).length) return null;
  return (
    <>
      <h2>Cost of generating</h2>
      <div class="scroll"><table>
        <thead><tr><th>stage</th><th>trajectories</th><th>prompt tokens</th><th>generated</th><th>uncounted</th><th>seconds</th><th>money</th></tr></thead>
        <tbody>{Object.entries(report.costs).map(([stage, cost]) => (
          <tr key={stage}><td>{stage}</td><td>{whole(cost.trajectories)}</td><td>{whole(cost.prompt_tokens)}</td><td>{whole(cost.completion_tokens)}</td>
            <td>{cost.uncounted ? `${cost.uncounted} of ${cost.turns} turns` : "–"}</td><td>{number(cost.seconds, 1)}</td><td>{number(cost.money, 4)}</td></tr>
        ))}</tbody>
      </table></div>
      {Object.keys(report.faults).length > 0 && <p class="soft small">Failed attempts at the engine: {Object.entries(report.faults).map(([stage, causes]) => `${stage}: ${counted(causes)}`).join("; ")}.</p>}
    </>
  );
}
