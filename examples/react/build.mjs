// Makes dist/index.html: one file with everything in it, as a gateway's `gateway.page` or any web server has it.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const bundle = async (entry) => {
  const { outputFiles } = await build({
    entryPoints: [path.join(here, "src", entry)], bundle: true, write: false, minify: true, format: "esm", target: "es2022",
    jsx: "automatic", define: { "process.env.NODE_ENV": '"production"' }, legalComments: "none",
  });
  return outputFiles[0].text;
};
// Within a script or style element only its own end tag means anything.
const inlined = (text, tag) => text.replaceAll(`</${tag}`, `<\\/${tag}`);

const [script, style] = await Promise.all([bundle("main.tsx"), bundle("style.css")]);
const page = readFileSync(path.join(here, "src/index.html"), "utf8")
  .replace("<!-- style -->", () => `<style>${inlined(style, "style")}</style>`)
  .replace("<!-- script -->", () => `<script type="module">${inlined(script, "script")}</script>`);
mkdirSync(path.join(here, "dist"), { recursive: true });
writeFileSync(path.join(here, "dist/index.html"), page);
console.log(`dist/index.html: ${Math.round(page.length / 1024)} KiB`);
