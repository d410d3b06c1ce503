// The route in the address, what is loaded for it, and the theme.
import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { FILTERS, type Filters, type Source } from "./source";
import type { Head } from "./types";

export type Screen = "list" | "t" | "group" | "steps" | "overview" | "compare";
const SCREENS = ["list", "t", "group", "steps", "overview", "compare"];

export interface Route { screen: Screen; params: Filters }

export function readRoute(): Route {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const screen = (SCREENS.includes(path) ? path : "list") as Screen;
  return { screen, params: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

/** The address of a screen. Filters are kept; an empty value removes a key. */
export function linkTo(route: Route, screen: Screen, changes: Filters): string {
  const kept = Object.entries(route.params).filter(([key]) => ["run", "q", "sort", ...FILTERS].includes(key));
  const params = Object.entries({ ...Object.fromEntries(kept), ...changes }).filter(([, value]) => value !== "");
  return `#/${screen}?${new URLSearchParams(params)}`;
}

export interface App {
  source: Source; heads: Head[]; route: Route; run: number; head: Head; filters: Filters; tick: number;
  go(screen: Screen, changes: Filters): void; link(screen: Screen, changes: Filters): string; back(): void;
  place: { current: number };
}
export const AppContext = createContext<App>(null as unknown as App);
export const useApp = (): App => useContext(AppContext);

export interface Loaded<T> { value: T | null; error: string }

/** Load something whenever the keys change; the old value stays until the new one is there. */
export function useLoaded<T>(load: () => Promise<T>, keys: unknown[], reset: unknown = null): Loaded<T> {
  const [state, setState] = useState<Loaded<T> & { reset: unknown }>({ value: null, error: "", reset });
  const latest = useRef(0);
  useEffect(() => {
    const mine = ++latest.current;
    const set = (value: T | null, error: string) => { if (mine === latest.current) setState({ value, error, reset }); };
    load().then((value) => set(value, ""), (problem: Error) => set(null, problem.message));
  }, keys);
  return state.reset === reset ? state : { value: null, error: "" };
}

export function filtersOf(route: Route): Filters {
  const kept = ["q", "sort", ...FILTERS].filter((key) => route.params[key]);
  return Object.fromEntries(kept.map((key) => [key, route.params[key]]));
}

export const number = (value: number | null | undefined, digits = 2): string =>
  value === null || value === undefined ? "–" : value.toFixed(digits);
export const whole = (value: number): string => value.toLocaleString("en");
export const percent = (value: number): string => `${(100 * value).toFixed(1)}%`;
export const words = (text: string): string => text.replaceAll("_", " ");
