// One script and one style sheet with fixed names, into the Python package. Nothing is loaded at run time.
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig } from "vite";

const out = process.env.VIEWER_OUT ?? resolve(import.meta.dirname, "../src/rewright/viewer/bundle");
const lock = JSON.parse(readFileSync(resolve(import.meta.dirname, "package-lock.json"), "utf8"));
// What may end up in the bundle: every package that is not for development only.
const parts = Object.keys(lock.packages).filter((path) => path && !lock.packages[path].dev).sort();

const licences = {
  name: "licences",
  closeBundle() {
    const texts = parts.map((path) => {
      const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
      const folder = resolve(import.meta.dirname, path);
      const about = JSON.parse(readFileSync(resolve(folder, "package.json"), "utf8"));
      return `${name} ${about.version} (${about.license})\n\n${readFileSync(resolve(folder, "LICENSE"), "utf8").trim()}\n`;
    });
    writeFileSync(resolve(out, "LICENSES.txt"), `The bundle app.js contains these packages.\n\n${texts.join("\n\n")}`);
  },
};

export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none", charset: "ascii" },
  plugins: [licences],
  build: {
    outDir: out,
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    cssCodeSplit: false,
    lib: { entry: "src/main.tsx", formats: ["iife"], name: "viewer", fileName: () => "app.js", cssFileName: "app" },
  },
  define: { "process.env.NODE_ENV": '"production"' },
});
