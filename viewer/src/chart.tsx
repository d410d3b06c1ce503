// A curve or several, which can be zoomed by dragging; a double click shows all of it again.
import { useRef, useState } from "preact/hooks";

export interface Series { name: string; points: [number, number][] }

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [440, 220, 48, 12, 10, 26];
export const COLOURS = ["var(--gain)", "var(--bad)", "var(--good)", "var(--hard)"];

const ticks = (low: number, high: number, count: number): number[] => {
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * unit).find((one) => one >= raw)!;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-9 * step; value += step) found.push(+value.toPrecision(12));
  return found;
};
const short = (value: number): string => Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(+value.toPrecision(4));

export function Chart({ title, series, at, onPick }: { title: string; series: Series[]; at?: number; onPick?: (step: number) => void }) {
  const [zoom, setZoom] = useState<[number, number] | null>(null);
  const [drag, setDrag] = useState<[number, number] | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const svg = useRef<SVGSVGElement>(null);
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) return null;
  const steps = points.map(([step]) => step);
  const all: [number, number] = [Math.min(...steps), Math.max(...steps)];
  let [low, high] = zoom ?? all;
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const seen = points.filter(([step]) => step >= low && step <= high).map(([, value]) => value);
  let [bottom, top] = seen.length ? [Math.min(...seen), Math.max(...seen)] : [0, 1];
  if (bottom >= 0 && bottom < 0.5 * top) bottom = 0;
  if (top === bottom) [bottom, top] = [bottom - 0.5, top + 0.5];
  const pad = 0.05 * (top - bottom);
  [bottom, top] = [bottom === 0 ? 0 : bottom - pad, top + pad];
  const x = (step: number) => LEFT + ((step - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  const y = (value: number) => HEIGHT - BOTTOM - ((value - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
  const stepAt = (event: PointerEvent): number => {
    const box = svg.current!.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * WIDTH;
    return Math.min(high, Math.max(low, low + ((place - LEFT) / (WIDTH - LEFT - RIGHT)) * (high - low)));
  };
  const near = (one: Series): [number, number] | null => hover === null || one.points.length === 0 ? null
    : one.points.reduce((best, point) => Math.abs(point[0] - hover) < Math.abs(best[0] - hover) ? point : best);
  return (
    <figure class="chart">
      <figcaption class="small">
        <b>{title}</b>
        {series.length > 1 && series.map((one, place) => <span key={one.name} style={{ color: COLOURS[place % 4] }}> {one.name}</span>)}
        <span class="soft readout">{hover !== null && series.map((one) => near(one)).filter((one) => one).map((one) => ` ${short(one![0])}: ${short(one![1])}`).join(" · ")}</span>
        {zoom && <button type="button" onClick={() => setZoom(null)}>all</button>}
      </figcaption>
      <svg ref={svg} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={title}
        onPointerDown={(event) => { const step = stepAt(event); setDrag([step, step]); svg.current!.setPointerCapture(event.pointerId); }}
        onPointerMove={(event) => { const step = stepAt(event); setHover(step); if (drag) setDrag([drag[0], step]); }}
        onPointerUp={(event) => {
          if (drag) {
            const [from, to] = [...drag].sort((a, b) => a - b);
            if (to - from > 0.02 * (high - low)) setZoom([from, to]);
            else if (onPick) {
              const step = stepAt(event);
              onPick(steps.reduce((best, one) => Math.abs(one - step) < Math.abs(best - step) ? one : best));
            }
          }
          setDrag(null);
        }}
        onPointerLeave={() => setHover(null)} onDblClick={() => setZoom(null)}>
        {ticks(bottom, top, 4).map((value) => <g key={value}><line class="grid" x1={LEFT} x2={WIDTH - RIGHT} y1={y(value)} y2={y(value)} />
          <text x={LEFT - 5} y={y(value) + 4} text-anchor="end">{short(value)}</text></g>)}
        {ticks(low, high, 6).map((value) => <text key={value} x={x(value)} y={HEIGHT - 8} text-anchor="middle">{short(value)}</text>)}
        {at !== undefined && at >= low && at <= high && <line class="at" x1={x(at)} x2={x(at)} y1={TOP} y2={HEIGHT - BOTTOM} />}
        {series.map((one, place) => {
          const shown = one.points.filter(([step], index) => (step >= low || (one.points[index + 1]?.[0] ?? -Infinity) > low) && (step <= high || (one.points[index - 1]?.[0] ?? Infinity) < high));
          const colour = COLOURS[place % 4];
          const inside = one.points.filter(([step]) => step >= low && step <= high);
          return (
            <g key={one.name + place}>
              <svg x={LEFT} y={TOP} width={WIDTH - LEFT - RIGHT} height={HEIGHT - TOP - BOTTOM} viewBox={`${LEFT} ${TOP} ${WIDTH - LEFT - RIGHT} ${HEIGHT - TOP - BOTTOM}`} overflow="hidden">
                <polyline fill="none" style={{ stroke: colour }} stroke-width="1.6" points={shown.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ")} />
              </svg>
              {inside.length <= 40 && inside.map(([step, value]) => <circle key={step} cx={x(step)} cy={y(value)} r="2.5" style={{ fill: colour }} />)}
            </g>
          );
        })}
        {drag && <rect class="drag" x={Math.min(x(drag[0]), x(drag[1]))} y={TOP} width={Math.abs(x(drag[1]) - x(drag[0]))} height={HEIGHT - TOP - BOTTOM} />}
      </svg>
    </figure>
  );
}
