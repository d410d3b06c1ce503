// Where the page gets its data from: the server of `rewright view`, or what stands in a static file.
import type { Comparison, Head, Row, Rows, StepGroup, Summary, Tokens, Trajectory } from "./types";

export type Filters = Record<string, string>;
export const FILTERS = ["stage", "selection", "verdict", "stop", "tool", "task", "model", "step", "min", "max"];

export interface Source {
  live: boolean;
  runs(): Promise<Head[]>;
  versions(): Promise<number[]>;
  rows(run: number, filters: Filters): Promise<Rows>;
  position(run: number, filters: Filters, id: string): Promise<number>;
  trajectory(run: number, id: string): Promise<Trajectory>;
  many(run: number, ids: string[]): Promise<Trajectory[]>;
  raw(run: number, id: string): Promise<string>;
  tokens(run: number, id: string): Promise<Tokens>;
  step(run: number, step: number): Promise<StepGroup[]>;
  summary(run: number): Promise<Summary>;
  compare(left: number, right: number): Promise<Comparison>;
}

async function asked(name: string, query: Record<string, string | number>, body?: unknown): Promise<Response> {
  const words = new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)]));
  const more = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  let answer: Response;
  try {
    answer = await fetch(`api/${name}?${words}`, more);
  } catch {
    throw new Error("the server does not answer: is `rewright view` still running?");
  }
  if (!answer.ok) {
    const text = await answer.text();
    let detail = text || answer.statusText;
    try { detail = JSON.parse(text).detail; } catch { /* the text as it is */ }
    throw new Error(detail);
  }
  return answer;
}

const json = async (name: string, query: Record<string, string | number>, body?: unknown) =>
  (await asked(name, query, body)).json();

export const served: Source = {
  live: true,
  runs: () => json("runs", {}),
  versions: () => json("versions", {}),
  rows: (run, filters) => json("rows", { run, ...filters }),
  position: (run, filters, id) => json("position", { run, ...filters, id }),
  trajectory: (run, id) => json("trajectory", { run, id }),
  many: (run, ids) => json("trajectories", {}, { run, ids }),
  raw: async (run, id) => (await asked("raw", { run, id })).text(),
  tokens: (run, id) => json("tokens", { run, id }),
  step: (run, step) => json("step", { run, step }),
  summary: (run) => json("summary", { run }),
  compare: (left, right) => json("compare", { left, right }),
};

interface StaticRun {
  head: Head; summary: Summary; rows: Row[]; trajectories: Record<string, Trajectory>; tokens: Record<string, Tokens>;
  steps: Record<string, StepGroup[]>;
}
interface StaticData { runs: StaticRun[]; comparisons: Record<string, Comparison> }

export function stored(data: StaticData): Source {
  const texts = new Map<string, string>();
  const known = <T>(value: T | undefined, what: string): T => {
    if (value === undefined) throw new Error(`this file leaves out ${what}: see \`rewright view\` of the run itself`);
    return value;
  };
  const textOf = (run: number, id: string): string => {
    const key = `${run}/${id}`;
    if (!texts.has(key)) {
      const { turns, task, answer } = data.runs[run].trajectories[id];
      texts.set(key, JSON.stringify([id, answer, turns, task?.messages]).toLowerCase());
    }
    return texts.get(key)!;
  };
  const found = (run: number, filters: Filters): Row[] => {
    const words = (filters.q ?? "").toLowerCase().split(/\s+/).filter(Boolean).map((one) => JSON.stringify(one).slice(1, -1));
    const rows = data.runs[run].rows.filter((row) =>
      (["stage", "stop", "task", "model"] as const).every((key) => !filters[key] || row[key] === filters[key])
      && (!filters.tool || row.tools.includes(filters.tool))
      && (!filters.selection || row.selection === filters.selection || row.repair === filters.selection)
      && (!filters.verdict || verdictOf(row) === filters.verdict)
      && (!filters.min || (row.reward !== null && row.reward >= Number(filters.min)))
      && (!filters.max || (row.reward !== null && row.reward <= Number(filters.max)))
      && (!filters.step || row.step === Number(filters.step))
      && words.every((word) => textOf(run, row.id).includes(word)));
    const sort = filters.sort ?? "";
    const key = sort.replace("-", "") as keyof Row;
    const sign = sort.startsWith("-") ? -1 : 1;
    if (sort) {
      rows.sort((a, b) => {
        const [x, y] = [a[key], b[key]];
        if (x === null || y === null) return Number(x === null) - Number(y === null);
        return x < y ? -sign : x > y ? sign : 0;
      });
    }
    return rows;
  };
  return {
    live: false,
    runs: async () => data.runs.map((run) => run.head),
    versions: async () => data.runs.map((run) => run.head.version),
    rows: async (run, filters) => {
      const rows = found(run, filters);
      const [start, count] = [Number(filters.start ?? 0), Number(filters.count ?? 100)];
      const of = data.runs[run].rows.length;
      return { total: rows.length, start, rows: rows.slice(start, start + count), searched: of, done: true, of, version: 1 };
    },
    position: async (run, filters, id) => found(run, filters).findIndex((row) => row.id === id),
    trajectory: async (run, id) => known(data.runs[run].trajectories[id], "this trajectory"),
    many: async (run, ids) => ids.map((id) => known(data.runs[run].trajectories[id], "this trajectory")),
    raw: async (run, id) => JSON.stringify(known(data.runs[run].trajectories[id], "this trajectory")),
    tokens: async (run, id) => known(data.runs[run].tokens[id], "the tokens of this trajectory"),
    step: async (run, step) => data.runs[run].steps[String(step)] ?? [],
    summary: async (run) => data.runs[run].summary,
    compare: async (left, right) => known(data.comparisons[`${left}-${right}`], "this comparison"),
  };
}

export const verdictOf = (row: Row): string =>
  row.outcome === null ? "unjudged" : row.outcome >= 0.5 ? "right" : "wrong";
