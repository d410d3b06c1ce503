// The JSON of src/rewright/viewer: query.py, details.py, tokens.py, overview.py.
export interface Row {
  id: string; task: string; prompt: string; answer: string; stage: string; stop: string; model: string;
  tools: string[]; selection: string; repair: string; parent: boolean; failed: boolean; step: number | null;
  turns: number; calls: number; tokens: number; outcome: number | null; reward: number | null;
  quality: number | null; seconds: number | null; turn_reward: number | null;
}
export type Counts = [string, number][];
export interface Facets {
  stage: Counts; stop: Counts; model: Counts; task: Counts; tool: Counts; selection: Counts; verdict: Counts;
  reward: [number, number] | null;
}
export interface Step {
  step: number; rollouts: number; groups: number; success: number | null; reward: number | null;
  turn_reward: number | null;
}
export interface Head {
  name: string; path: string; about: string; version: number; trajectories: number; facets: Facets; steps: Step[];
  words: string; left_out?: number;
}
export interface Rows {
  total: number; start: number; rows: Row[]; searched: number; done: boolean; of: number; version: number;
}
export interface Call { name: string; arguments: unknown; error: string | null; raw: string }
export interface Result { content: string; error: string | null; seconds: number }
export interface Message { role: string; content: string }
export interface Turn {
  thought: string; said: string; stop: string; calls: Call[]; results: Result[]; follow_up: Message[];
  weights: number | null; reward: number | null; advantage: number | null;
}
export interface Shape {
  kind: "rect" | "line" | "curve" | "text"; x: number; y: number; width: number; height: number; end_x: number;
  end_y: number; fill: string; radius: number; stroke: string | null; dashed: boolean; opacity: number; label: string;
  words: [string, string][]; anchor: "start" | "middle" | "end"; size: number; bold: boolean; mono: boolean;
}
export interface Drawing { title: string; width: number; height: number; shapes: Shape[] }
export interface Repair {
  original_id: string; repaired_id: string | null; mode: string; accepted: boolean; reason: string; attempts: number;
  reasons: string[]; tokens: number | null;
}
export interface Tool { name?: string; description?: string; parameters?: unknown }
export interface Trajectory {
  row: Row; turns: Turn[]; answer: string | null; failure: string | null;
  task: null | {
    id: string; messages: Message[]; tools: Tool[]; source: string; judge: string; answers: string[] | null;
    gold_calls: Call[] | null;
  };
  verdict: null | { correct: boolean; outcome: number; reason: string; metrics: Record<string, number> };
  quality: null | { total: number; scores: Record<string, number> };
  repair: Repair | null;
  credit: null | {
    used_by_rl: boolean; trajectory_reward: number | null; rewards: number[]; advantages: number[] | null;
    drawing: Drawing;
  };
  recomputed: boolean; format_problem: string | null; reward_model: number | null;
  usage: { prompt: number; completion: number; money: number | null };
  provenance: { model: string; sampling: Record<string, unknown>; seed: string | null; parent: string | null };
  seconds: number; has_tokens: boolean; group: string[];
}
export interface Segment {
  kind: "prompt" | "turn" | "result"; turn: number; ids: number[]; texts: string[] | null;
  log_probs: number[] | null; mask: number; advantage: number | null;
}
export interface Tokens { segments: Segment[]; problem: string; left_out: number }
export interface StepGroup { task: string; prompt: string; rows: Row[] }
export interface Curve { stage: string; key: string; main: boolean; points: [number, number][] }
export interface Evaluation {
  stage: string; success: number; low: number; high: number; solve_f1: number | null; calls: number; tasks: number;
  trajectories?: number; seconds: number; untrained?: string; failures?: number; broke?: Record<string, number>;
  metrics?: Record<string, { value: number; low: number; high: number; trajectories: number }>;
  sources?: Record<string, Rate>; categories?: Record<string, Rate>;
}
/** Success on a part of the tasks: of one source of a mixture, or of one category. */
export interface Rate { success: number; low: number; high: number; tasks: number; trajectories: number }
export interface Cost {
  trajectories: number; turns: number; prompt_tokens: number; completion_tokens: number; uncounted: number;
  seconds: number | null; money: number | null;
}
export interface Summary {
  report: {
    stages: Evaluation[]; counts: Record<string, number>; broke: Record<string, number>;
    repaired_by_mode: Record<string, number>; sets?: Record<string, number>; costs: Record<string, Cost>;
    reward_model_accuracy: number | null; reward_model_held_out_pairs: number; length_rule: string | null;
    length_rule_accuracy: number | null; faults: Record<string, Record<string, number>>;
    reward_model_accuracy_matched_format: number | null; skipped: Record<string, string>;
    sources?: Record<string, Rate & { counts: Record<string, number> }>;
    stage_seconds: Record<string, number>; seconds: number; titles: Record<string, string>;
  };
  curves: Curve[];
}
export interface Side { id: string; success: number }
export interface Comparison {
  runs: [string, string];
  stages: {
    stage: string; left: Evaluation | null; right: Evaluation | null; changed: number;
    difference: null | { value: number; low: number; high: number; tasks: number };
  }[];
  counts: [Record<string, number>, Record<string, number>];
  tasks: { stage: string; task: string; prompt: string; left: Side; right: Side }[];
  left_out: number;
}
