// The picture of predicted and gold calls: the shapes of reports/drawing.py as SVG elements.
import type { Drawing, Shape } from "./types";

export function Picture({ drawing }: { drawing: Drawing }) {
  return (
    <div class="picture">
      <svg viewBox={`0 0 ${drawing.width} ${drawing.height}`} font-family="system-ui, sans-serif" font-size="12" role="img">
        <title>{drawing.title}</title>
        <rect width={drawing.width} height={drawing.height} fill="#ffffff" />
        {drawing.shapes.map((shape, place) => <ShapeView key={place} shape={shape} />)}
      </svg>
    </div>
  );
}

function ShapeView({ shape: s }: { shape: Shape }) {
  if (s.kind === "rect") {
    return (
      <rect x={s.x} y={s.y} width={s.width} height={s.height} rx={s.radius} fill={s.fill} fill-opacity={s.opacity}
        stroke={s.stroke ?? undefined} stroke-dasharray={s.dashed ? "4 3" : undefined}>
        {s.label && <title>{s.label}</title>}
      </rect>
    );
  }
  if (s.kind === "line") return <line x1={s.x} y1={s.y} x2={s.end_x} y2={s.end_y} stroke={s.stroke ?? undefined} />;
  if (s.kind === "curve") {
    const middle = (s.x + s.end_x) / 2;
    return (
      <path d={`M ${s.x} ${s.y} C ${middle} ${s.y}, ${middle} ${s.end_y}, ${s.end_x} ${s.end_y}`} fill="none"
        stroke={s.stroke ?? undefined} stroke-width={s.width} stroke-opacity={s.opacity} />
    );
  }
  return (
    <text x={s.x} y={s.y} text-anchor={s.anchor} xml:space="preserve" font-size={s.size}
      font-family={s.mono ? "ui-monospace, DejaVu Sans Mono, monospace" : undefined} font-weight={s.bold ? 600 : undefined}>
      {s.words.map(([word, colour], place) => <tspan key={place} fill={colour}>{word}</tspan>)}
    </text>
  );
}
